"""What rich draws, as text."""

from __future__ import annotations

import io

from rich.console import Group, RenderableType

from gon_edge.commands.terminal import console


def drawn(picture: RenderableType, width: int = 80) -> str:
    """Return `picture` as it appears where there is no colour."""
    out = io.StringIO()
    console(out, width).print(Group(picture))  # print would join a text alone with what else it prints
    return out.getvalue()
