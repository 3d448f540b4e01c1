"""Compares the Parameters section of each docstring with the signature beside it.

A docstring that has such a section must name every parameter, in order; one without is left alone, because a sentence
is often enough.  For a class the signature is that of ``__init__``, or its fields; a class with a base may leave to the
base what that documents.  By ast: nothing is imported.

    python tools/check_docstrings.py gon_edge tools
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

Function = ast.FunctionDef | ast.AsyncFunctionDef


def documented_parameters(docstring: str) -> list[str] | None:
    """Return the names below "Parameters"; ``None`` without such a section."""
    lines = docstring.splitlines()
    for i, line in enumerate(lines[:-1]):
        if line.strip() == "Parameters" and re.fullmatch(r"-{3,}", lines[i + 1].strip()):
            break
    else:
        return None
    margin = len(line) - len(line.lstrip())
    names: list[str] = []
    for at, text in enumerate(lines[i + 2 :], i + 2):
        if at + 1 < len(lines) and re.fullmatch(r"-{3,}", lines[at + 1].strip()):
            break  # the title of the next section
        if text.strip() and len(text) - len(text.lstrip()) == margin:
            names += [name.strip().lstrip("*") for name in text.split(":")[0].split(",")]
    return names


def signature(function: Function) -> list[str]:
    """Return the names of the parameters, without self and cls."""
    arguments = function.args
    names = [a.arg for a in (*arguments.posonlyargs, *arguments.args)]
    names += [arguments.vararg.arg] if arguments.vararg else []
    names += [a.arg for a in arguments.kwonlyargs]
    names += [arguments.kwarg.arg] if arguments.kwarg else []
    return names[1:] if names[:1] in (["self"], ["cls"]) else names


def fields(cls: ast.ClassDef) -> list[str]:
    """Return the annotated names of a class body: the fields of a dataclass."""
    return [
        node.target.id for node in cls.body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    ]


def problems(path: Path) -> Iterator[str]:
    """Yield one line for each docstring of a file that disagrees with its signature."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        documented = documented_parameters(ast.get_docstring(node) or "")
        if documented is None:
            continue
        if isinstance(node, ast.ClassDef):
            inits = [n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"]
            expected = signature(inits[0]) if inits else fields(node)
        else:
            expected = signature(node)
        if isinstance(node, ast.ClassDef) and node.bases:
            expected = [name for name in expected if name in documented]
        if documented != expected:
            yield f"{path}:{node.lineno}: {node.name}: documented {documented}, signature {expected}"


def main(places: list[str]) -> int:
    """Check every Python file below `places`; the exit status is 1 when one disagrees."""
    found = [
        problem
        for place in places
        for path in (sorted(Path(place).rglob("*.py")) if Path(place).is_dir() else [Path(place)])
        for problem in problems(path)
    ]
    for problem in found:
        print(problem)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or ["gon_edge"]))
