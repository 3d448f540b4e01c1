"""Run the benchmark: methods x sets x seeds, each cell in a process of its own, and print the table.

    python tools/reproduce_table.py                       # every method, the eight development sets, 5 seeds
    python tools/reproduce_table.py --methods gon-edge,pca-40 --seeds 0
    python tools/reproduce_table.py --protocol decisions --sets machines --methods gon-edge,pca-40,knn
    python tools/reproduce_table.py --protocol published --sets paper --methods gon-reference,random

Cells go to OUT/cells-PROTOCOL.jsonl as they finish; a second run takes up where the first stopped.  The table is
printed as Markdown, and written beside the cells as .md, .csv and .png.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from gon_edge.errors import InputError  # noqa: E402
from gon_edge.research import datasets, protocol, table  # noqa: E402
from gon_edge.research.cells import append_cell, read_cells  # noqa: E402

# Without a seed in them: once is enough, whatever --seeds says.
DETERMINISTIC = frozenset(
    {"distance-from-mean", "largest-z", "last-difference", "pca", "pca-40", "pca-40-clipped", "pca-row", "dilof"}
    | {"matrix-profile", "matrix-profile-z", "ols-ar", "ridge-ar"}
)
# One thread a cell: times are then of one core, and cells can run side by side.
THREADS = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL", "NUMBA")}


def main(arguments: list[str] | None = None) -> int:
    """Run what is missing, print the table, return the exit status."""
    options = parse(arguments)
    if options.cell:
        return run_cell(options)
    try:
        names = [name for group in options.sets for name in expand_sets(group, options.data)]
        unknown = set(options.methods) - set(protocol.METHODS)
        if unknown:
            raise InputError(f"no method {sorted(unknown)}; there are: {', '.join(protocol.METHODS)}")
        for name in names:
            datasets.load(name, options.data)
    except InputError as error:
        print(f"reproduce_table: {error}", file=sys.stderr)
        return error.exit_code
    options.out.mkdir(parents=True, exist_ok=True)
    cells_path = options.out / f"cells-{options.protocol}.jsonl"
    wanted = [
        (method, name, seed)
        for seed in options.seeds
        for name in names
        for method in options.methods
        if method not in DETERMINISTIC or seed == options.seeds[0]
    ]
    done = {key(cell): cell for cell in read_cells(cells_path) if "error" not in cell}
    todo = [cell for cell in wanted if cell not in done]
    run_all(todo, options, cells_path)
    cells = [cell for cell in latest(read_cells(cells_path)) if key(cell) in set(wanted)]
    if not cells:
        print("reproduce_table: no cell finished", file=sys.stderr)
        return 1
    if options.protocol == "decisions":
        cells = table.at_best_setting(table.settings(cells))
    stem = options.out / f"table-{options.protocol}"
    text = f"{heading(options)}\n\n{table.markdown(cells, protocol=options.protocol)}"
    stem.with_suffix(".md").write_text(text)
    stem.with_suffix(".csv").write_text(table.comma_separated(cells))
    table.picture(cells, stem.with_suffix(".png"), figure="ap" if options.protocol == "corrected" else "f1")
    print(text)
    return 1 if any("error" in cell for cell in cells) else 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    listed = lambda text: [part for part in text.split(",") if part]  # noqa: E731
    parser.add_argument("--methods", type=listed, default=None, help="names, comma separated; default: every method")
    parser.add_argument(
        "--sets",
        type=listed,
        default=["development"],
        help="names, or a group: development (default), machines, paper, all",
    )
    parser.add_argument("--seeds", type=seeds, default=None, help="a count, or numbers comma separated; default 5")
    parser.add_argument("--protocol", choices=sorted(protocol.PROTOCOLS), default="corrected")
    parser.add_argument("--jobs", type=int, default=1, help="cells at once; times are only comparable with 1")
    parser.add_argument("--timeout", type=float, default=3600.0, help="seconds for a cell")
    parser.add_argument("--data", type=Path, default=None, help=f"folder of the sets; default ${datasets.ENVIRONMENT}")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "benchmark", help="where cells and tables go")
    parser.add_argument("--cell", nargs=3, metavar=("METHOD", "SET", "SEED"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.methods is None:
        options.methods = [m for m in protocol.METHODS if m != "gon-reference" or options.protocol == "published"]
    if options.seeds is None:
        options.seeds = list(range(5))
    return options


def seeds(text: str) -> list[int]:
    """Read "3" as 0, 1, 2 and "0,4" or "4," as what they say."""
    return [int(part) for part in text.split(",") if part] if "," in text else list(range(int(text)))


def expand_sets(group: str, folder: Path | None) -> Iterable[str]:
    """Return the names a group stands for, or the name itself."""
    groups = {
        "development": datasets.DEVELOPMENT,
        "machines": (*datasets.DEVELOPMENT, *datasets.RECORDED),
        "paper": datasets.PAPER,
    }
    if group == "all":
        return datasets.available(folder)
    return groups.get(group, (group,))


def run_cell(options: argparse.Namespace) -> int:
    """Measure one cell in this process and print it as JSON."""
    method, name, seed = options.cell
    figures = protocol.measure(
        method, datasets.load(name, options.data), random_state=int(seed), protocol=options.protocol
    )
    print(json.dumps(figures))
    return 0


def run_all(todo: list[tuple[str, str, int]], options: argparse.Namespace, path: Path) -> None:
    """Measure cells, a process each, and append each to the file as it ends."""
    started = time.monotonic()
    with ThreadPoolExecutor(options.jobs, thread_name_prefix="cell") as pool:
        running = {pool.submit(measure_in_process, cell, options): cell for cell in todo}
        for count, future in enumerate(as_completed(running), start=1):
            append_cell(path, future.result())
            show_progress(count, len(todo), time.monotonic() - started, running[future])


def measure_in_process(cell: tuple[str, str, int], options: argparse.Namespace) -> dict[str, Any]:
    """Return a cell measured by a fresh process, or its error."""
    method, name, seed = cell
    record: dict[str, Any] = {"method": method, "dataset": name, "seed": seed, "protocol": options.protocol}
    command = [sys.executable, __file__, "--protocol", options.protocol, "--cell", method, name, str(seed)]
    if options.data:
        command += ["--data", str(options.data)]
    try:
        finished = subprocess.run(
            command, capture_output=True, text=True, timeout=options.timeout, env={**os.environ, **THREADS}, check=False
        )
    except subprocess.TimeoutExpired:
        return {**record, "error": f"more than {options.timeout:g} s"}
    if finished.returncode:
        return {**record, "error": (finished.stderr.strip().splitlines() or [f"status {finished.returncode}"])[-1]}
    return {**record, **json.loads(finished.stdout.splitlines()[-1])}


def show_progress(count: int, total: int, elapsed_s: float, cell: tuple[str, str, int]) -> None:
    """Draw the bar on stderr; without a terminal, a line a cell."""
    filled = round(30 * count / total)
    left = datetime.timedelta(seconds=round(elapsed_s / count * (total - count)))
    line = f"[{'#' * filled}{'.' * (30 - filled)}] {count}/{total}, {left} left: {cell[0]} on {cell[1]}, seed {cell[2]}"
    end = "\n" if count == total or not sys.stderr.isatty() else ""
    print(f"\r\x1b[K{line}" if sys.stderr.isatty() else line, end=end, file=sys.stderr, flush=True)


def latest(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the last record of each cell."""
    return list({key(cell): cell for cell in cells}.values())


def key(cell: dict[str, Any]) -> tuple[str, str, int]:
    """Return what names a cell."""
    return cell["method"], cell["dataset"], cell["seed"]


def heading(options: argparse.Namespace) -> str:
    """Return the line that says what was run, when, on what."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()
    today = datetime.datetime.now(datetime.UTC).date()
    count = len(options.seeds)
    return (
        f"Protocol {options.protocol}, {count} seed{'s' * (count != 1)}, sets {', '.join(options.sets)}; {today}, "
        f"commit {commit or 'unknown'}, {platform.machine()}, Python {platform.python_version()}, one thread."
    )


if __name__ == "__main__":
    sys.exit(main())
