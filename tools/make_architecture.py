"""Writes the list of rooms and modules in ARCHITECTURE.md from the first sentence of each package and module.

    python tools/make_architecture.py            # between the marks in ARCHITECTURE.md
    python tools/make_architecture.py --check    # exit status 1 where the page says something else

By ast: nothing is imported.
"""

from __future__ import annotations

import argparse
import ast
import configparser
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "gon_edge"
PAGE = ROOT / "ARCHITECTURE.md"
MARKS = "<!-- rooms -->", "<!-- end of rooms -->"


def main() -> int:
    """Write the list, or check it; return the exit status."""
    parser = argparse.ArgumentParser(description="Write the list of modules in ARCHITECTURE.md.")
    parser.add_argument("--check", action="store_true", help="change nothing; exit status 1 where the page differs")
    options = parser.parse_args()
    before = PAGE.read_text(encoding="utf-8")
    begin, end = map(re.escape, MARKS)
    listed = "\n".join(rooms())
    after, count = re.subn(f"{begin}.*{end}", lambda _: f"{MARKS[0]}\n{listed}\n{MARKS[1]}", before, flags=re.DOTALL)
    if count != 1:
        sys.exit(f"{PAGE.name}: the marks {' and '.join(MARKS)} are missing")
    if after == before:
        return 0
    if options.check:
        print(f"{PAGE.name} differs from the docstrings; run tools/make_architecture.py")
        return 1
    PAGE.write_text(after, encoding="utf-8")
    return 0


def rooms() -> Iterator[str]:
    """Yield the lines: from the ground up, a heading and the door of each room, a row for each of its modules."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    layers = setup["importlinter:contract:layers"]["layers"].split()
    names = [name for name in reversed(layers) if name not in ("|", "__main__", "research")]
    for name in names:
        folder = PACKAGE / name
        if not folder.is_dir():
            yield f"\n### `{name}.py`\n\n{sentence(folder.with_suffix('.py'))}"
            continue
        yield f"\n### `{name}/`\n\n{docstring(folder / '__init__.py')}\n\n| Module | What it does |\n|---|---|"
        for file in sorted(folder.rglob("*.py")):
            if file != folder / "__init__.py":
                module = file.parent.name + "/" if file.name == "__init__.py" else file.name
                inside = file.relative_to(folder).parent
                shown = module if file.name == "__init__.py" or inside == Path() else f"{inside}/{module}"
                yield f"| `{shown}` | {sentence(file)} |"


def docstring(file: Path) -> str:
    """Return the docstring of a module."""
    return (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").strip()


def sentence(file: Path) -> str:
    """Return the first paragraph of a module's docstring, fit for a cell of a table."""
    text = " ".join(docstring(file).split("\n\n")[0].split()).replace("``", "`").replace("|", "\\|")
    return re.sub(r":\w+:`~?([\w.]+)`", r"`\1`", text)


if __name__ == "__main__":
    sys.exit(main())
