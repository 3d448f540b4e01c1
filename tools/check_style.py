"""Checks the rules of the house that ruff has no rule for.

Docstrings: a Parameters section names every parameter of the signature beside it, in order.  A docstring without such a
section is left alone, because a sentence is often enough.  For a class the signature is that of ``__init__``, or its
fields; a class with a base may leave to the base what that documents.

Constants: a number at the top of a module has its source or its reason beside it.  A comment or a string in the same
block of assignments counts for all of the block.

Size: a file has at most 500 lines, a function at most 60 without its docstring, and at most seven parameters.  Where a
reader is better off with more, a line says so: ``# Long: ...`` or ``# Many parameters: ...`` above the function, and
"Over 500 lines: ..." in the module's docstring.

Statements: a conditional expression is not used as one.

By ast: nothing is imported.

    python tools/check_style.py gon_edge tools
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

Function = ast.FunctionDef | ast.AsyncFunctionDef

MOST_LINES, MOST_FUNCTION_LINES, MOST_PARAMETERS = 500, 60, 7


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


def wrong_docstrings(path: Path, tree: ast.Module) -> Iterator[str]:
    """Yield one line for each docstring of a file that disagrees with its signature."""
    for node in ast.walk(tree):
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


def unexplained_constants(path: Path, tree: ast.Module, lines: list[str]) -> Iterator[str]:
    """Yield one line for each number at the top of a module without a comment or a string in its block."""
    for node in tree.body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        names = [name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)]
        if not names or not all(name.isupper() for name in names) or not is_numeric(node.value):
            continue
        first, last = node.lineno - 1, node.end_lineno
        while first and lines[first - 1].strip():
            first -= 1
        while last < len(lines) and lines[last].strip():
            last += 1
        block = lines[first:last]
        if not any("#" in line or line.lstrip().startswith(('"""', "'")) for line in block):
            yield f"{path}:{node.lineno}: {', '.join(names)}: a number without its source or reason"


def is_numeric(value: ast.expr | None) -> bool:
    """Whether an expression is a number, or numbers and nothing else; 0, 1 and -1 alone explain themselves."""
    if value is None:
        return False
    leaves = [node for node in ast.walk(value) if not isinstance(node, ast.operator | ast.unaryop | ast.expr_context)]
    numbers = [node for node in leaves if isinstance(node, ast.Constant)]
    plain = all(isinstance(node, ast.Constant | ast.BinOp | ast.UnaryOp | ast.Tuple) for node in leaves)
    if (
        not plain
        or not numbers
        or not all(isinstance(n.value, int | float) and not isinstance(n.value, bool) for n in numbers)
    ):
        return False
    return len(numbers) > 1 or numbers[0].value not in (0, 1)


def oversized(path: Path, tree: ast.Module, lines: list[str]) -> Iterator[str]:
    """Yield one line for each file, function and signature that is too long and does not say why."""
    if len(lines) > MOST_LINES and f"Over {MOST_LINES} lines:" not in (ast.get_docstring(tree) or ""):
        yield f"{path}:1: {len(lines)} lines; at most {MOST_LINES}, or a reason in the module's docstring"
    for node in ast.walk(tree):
        if not isinstance(node, Function):
            continue
        first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
        above = []
        for line in reversed(lines[: first - 1]):
            if not line.lstrip().startswith("#"):
                break
            above.append(line)
        excuse = " ".join(above)
        described = ast.get_docstring(node, clean=False) is not None
        docstring = node.body[0].end_lineno - node.body[0].lineno + 1 if described else 0
        length = node.end_lineno - node.lineno + 1 - docstring
        if length > MOST_FUNCTION_LINES and "# Long:" not in excuse:
            yield f"{path}:{node.lineno}: {node.name} has {length} lines; at most {MOST_FUNCTION_LINES}, or # Long: why"
        count = len(signature(node))
        if count > MOST_PARAMETERS and "# Many parameters:" not in excuse:
            yield f"{path}:{node.lineno}: {node.name} has {count} parameters; at most {MOST_PARAMETERS}, or a reason"


def conditional_statements(path: Path, tree: ast.Module) -> Iterator[str]:
    """Yield one line for each conditional expression that is used as a statement."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.IfExp):
            yield f"{path}:{node.lineno}: a conditional expression as a statement; write if"


def problems(path: Path) -> Iterator[str]:
    """Yield one line for each rule that a file breaks."""
    text = path.read_text(encoding="utf-8")
    tree, lines = ast.parse(text), text.splitlines()
    yield from wrong_docstrings(path, tree)
    yield from conditional_statements(path, tree)
    if path.parts[0] == "gon_edge" and "research" not in path.parts:
        yield from unexplained_constants(path, tree, lines)
        yield from oversized(path, tree, lines)


def main(places: list[str]) -> int:
    """Check every Python file below `places`; the exit status is 1 when one breaks a rule."""
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
