"""Measured cells on disk, a JSON object a line, so that an interrupted command goes on where it stopped.

A command that is killed while it writes leaves half a line.  That cell is measured again.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Cell = dict[str, Any]


def read_cells(path: Path) -> list[Cell]:
    """Return all cells of a file, none where there is no file; a line that was cut off is left out."""
    cells = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            cells.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return cells


def append_cell(path: Path, cell: Cell) -> None:
    """Add a cell to a file, on a line of its own even after one that was cut off."""
    with path.open("a+b") as file:
        if file.tell():
            file.seek(-1, 2)
            if file.read() != b"\n":
                file.write(b"\n")
        file.write(json.dumps(cell).encode() + b"\n")
