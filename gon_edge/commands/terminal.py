"""What a person sees in a terminal: colour where it is wanted, progress on a line, a picture redrawn in place, a
whole screen with keys.

Nothing here is needed by a program that reads our output: without a terminal there is no colour and no redrawing.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import shutil
import sys
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import IO, Any, Self

from gon_edge.commands.text import columns, duration_text

_SGR = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36", "on red": "41"}
_ESCAPE = re.compile(r"\x1b\[[0-9;]*m")
_BLOCKS = " ▁▂▃▄▅▆▇█"


def wants_redraw(stream: IO[str], environ: Mapping[str, str] | None = None) -> bool:
    """Whether `stream` is a terminal that moves its cursor when told to."""
    environ = os.environ if environ is None else environ
    return stream.isatty() and environ.get("TERM", "dumb") != "dumb"


def wants_colour(stream: IO[str], environ: Mapping[str, str] | None = None) -> bool:
    """Whether `stream` is a terminal and nobody has set ``NO_COLOR`` (no-color.org)."""
    environ = os.environ if environ is None else environ
    return wants_redraw(stream, environ) and not environ.get("NO_COLOR")


class Paint:
    r"""Colours text, or leaves it alone.

    Parameters
    ----------
    colour : bool

    Examples
    --------
    >>> Paint(False)("alert", "red"), Paint(True)("alert", "red")
    ('alert', '\x1b[31malert\x1b[0m')
    """

    def __init__(self, colour: bool) -> None:
        self._colour = colour

    def __call__(self, text: str, *styles: str) -> str:
        """Return `text` in `styles`: bold, dim, red, green, yellow, cyan, on red."""
        if not self._colour or not styles or not text:
            return text
        return f"\x1b[{';'.join(_SGR[style] for style in styles)}m{text}\x1b[0m"


def clip(line: str, width: int) -> str:
    """Return `line` cut to `width` visible characters; colours count as none and are closed."""
    if len(_ESCAPE.sub("", line)) <= width:
        return line
    kept, left, at = [], width - 1, 0
    for escape in _ESCAPE.finditer(line):
        kept += [line[at : min(escape.start(), at + left)], escape[0]]
        left = max(0, left - (escape.start() - at))
        at = escape.end()
    kept.append(line[at : at + left])
    return "".join(kept) + "…" + ("\x1b[0m" if _ESCAPE.search(line) else "")


def bar(fraction: float, width: int) -> str:
    """Return a bar `width` characters long, filled by `fraction` from 0 to 1.

    Examples
    --------
    >>> bar(0.5, 8)
    '████░░░░'
    """
    full = round(max(0.0, min(1.0, fraction)) * width)
    return "█" * full + "░" * (width - full)


def chart(values: Sequence[float], threshold: float | None, *, width: int, height: int, paint: Paint) -> list[str]:
    """Draw the newest values as columns, with the threshold as a dashed line.

    Parameters
    ----------
    values : sequence of float
        Oldest first; the newest `width` are drawn, the newest on the right.
    threshold : float or None
        Columns above it are red.
    width, height : int
        Characters.
    paint : Paint

    Returns
    -------
    list of str
        `height` lines of `width` visible characters, the top one first.  Zero is at the bottom; the top is the largest
        value, and between 1.5 and 3 times the threshold: a fault must neither hide it nor flatten what is normal.
    """
    shown = list(values)[-width:]
    top = max([*shown, 1e-12])
    if threshold is not None and threshold > 0.0:
        top = max(1.5 * threshold, min(top, 3.0 * threshold))
    line_row = None if threshold is None else min(height - 1, int(threshold / top * height))
    lines = []
    for row in range(height - 1, -1, -1):
        empty = paint("┄" if row == line_row else " ", "yellow")
        cells = [empty] * (width - len(shown))
        for value in shown:
            eighths = round(max(0.0, min(1.0, value / top)) * height * 8) - row * 8
            if eighths <= 0:
                cells.append(empty)
            elif row == line_row and eighths > 8:  # the line stays to be seen across columns that are above it
                cells.append(paint("┄", "yellow", "on red"))
            else:
                over = threshold is not None and value > threshold
                cells.append(paint(_BLOCKS[min(8, eighths)], "red" if over else "green"))
        lines.append("".join(cells))
    return lines


def sparkline(values: Sequence[float], threshold: float | None, *, width: int, paint: Paint) -> str:
    """Return the newest values as one line of `width` characters, the newest on the right; those above it are red.

    The scale is that of :func:`chart`: zero is at the bottom, the top between 1.5 and 3 times the threshold.

    Examples
    --------
    >>> sparkline([0.0, 1.0, 2.0, 9.0], 2.0, width=6, paint=Paint(False))
    '  ▁▁▃█'
    """
    shown = [value for value in list(values)[-width:] if value is not None] if width > 0 else []
    top = max([*shown, 1e-12])
    if threshold is not None and threshold > 0.0:
        top = max(1.5 * threshold, min(top, 3.0 * threshold))
    blocks = "".join(
        paint(
            _BLOCKS[max(1, round(8 * max(0.0, min(1.0, value / top))))],
            "red" if threshold is not None and value > threshold else "green",
        )
        for value in shown
    )
    return " " * (width - len(shown)) + blocks


def fit(text: str, width: int) -> str:
    """Return `text` cut or filled up to `width` columns of a terminal; most of East Asia's characters take two.

    Examples
    --------
    >>> fit("pump", 6), fit("temperature", 6), fit("泵泵泵", 5)
    ('pump  ', 'tempe…', '泵泵…')
    """
    if columns(text) > width:
        kept, left = "", width - 1
        for c in text:
            left -= columns(c)
            if left < 0:
                break
            kept += c
        text = f"{kept}…" if width > 0 else ""
    return text + " " * (width - columns(text))


class Screen:
    """Lines redrawn in place, below whatever the terminal showed before; the last picture stays when it is closed.

    Parameters
    ----------
    stream : text file
        A terminal.
    """

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._drawn = 0
        self._size = os.terminal_size((0, 0))

    def __enter__(self) -> Self:
        self._stream.write("\x1b[?25l\x1b[?7l")  # no cursor, no wrapping
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.write("\x1b[?7h\x1b[?25h\x1b[0m")
        self._stream.flush()

    @property
    def size(self) -> os.terminal_size:
        """Columns and lines there is room for."""
        columns, lines = shutil.get_terminal_size()
        return os.terminal_size((max(columns, 20), max(lines - 1, 4)))

    def draw(self, lines: Sequence[str]) -> None:
        """Show `lines` in place of those drawn before; what does not fit is cut off."""
        size = self.size
        shown = [clip(line, size.columns) for line in lines[: size.lines]]
        # After a change of size nobody knows where the old lines ended up.
        start = "\x1b[2J\x1b[H" if self._drawn and size != self._size else f"\x1b[{self._drawn}F" if self._drawn else ""
        # Erasing comes first: after the last column the cursor stands on it, and would erase that.
        self._stream.write(start + "".join(f"\x1b[K{line}\n" for line in shown) + "\x1b[J")
        self._stream.flush()
        self._drawn, self._size = len(shown), size


class WholeScreen:
    """A terminal's second screen: what it showed before comes back when it is closed.

    Parameters
    ----------
    stream : text file
        A terminal.
    """

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def __enter__(self) -> Self:
        self._stream.write("\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J")  # second screen, no cursor, no wrapping
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):  # the connection has gone, and the terminal with it
            self._stream.write("\x1b[?7h\x1b[?25h\x1b[0m\x1b[?1049l")
            self._stream.flush()

    @property
    def size(self) -> os.terminal_size:
        """Columns and lines there are."""
        columns, lines = shutil.get_terminal_size()
        return os.terminal_size((max(columns, 20), max(lines, 4)))

    def draw(self, lines: Sequence[str]) -> None:
        """Show `lines` from the top; what does not fit is cut off."""
        size = self.size
        shown = [f"\x1b[K{clip(line, size.columns)}" for line in lines[: size.lines]]
        self._stream.write("\x1b[H" + "\n".join(shown) + "\x1b[J")
        self._stream.flush()


class Keyboard:
    """Keys one by one, without Enter and without being shown; the terminal is as before when it is closed.

    Parameters
    ----------
    stream : text file
        A terminal.
    """

    def __init__(self, stream: IO[str]) -> None:
        self._fd = stream.fileno()
        self._before = termios.tcgetattr(self._fd)

    def __enter__(self) -> Self:
        settings = termios.tcgetattr(self._fd)
        settings[3] &= ~(termios.ICANON | termios.ECHO)
        settings[6][termios.VMIN], settings[6][termios.VTIME] = 1, 0
        settings[6][termios.VSUSP] = b"\0"  # Ctrl-Z would leave the second screen to the shell
        termios.tcsetattr(self._fd, termios.TCSADRAIN, settings)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(termios.error):
            termios.tcsetattr(self._fd, termios.TCSAFLUSH, self._before)

    def key(self, timeout_s: float) -> str:
        """Return what was pressed, an arrow as its escape sequence; empty when nothing was within `timeout_s`.

        A terminal that is gone gives Ctrl-D, the end of input.
        """
        if not select.select([self._fd], [], [], timeout_s)[0]:
            return ""
        try:
            return os.read(self._fd, 8).decode(errors="replace") or "\x04"
        except OSError:
            return "\x04"


class Progress:
    """How far something long has come: a bar on a terminal, a line every few seconds elsewhere; nothing if it is quick.

    Parameters
    ----------
    unit : str
        What is counted, as in ``rows``.
    stream : text file, optional
        Default: stderr.
    clock : callable
        Monotonic seconds.

    Examples
    --------
    >>> with Progress("rows") as progress:
    ...     for done in range(3):
    ...         progress(done, done / 3)
    """

    _FIRST_S = 0.5
    _BAR_EVERY_S = 0.1
    _LINE_EVERY_S = 5.0

    def __init__(self, unit: str, stream: IO[str] | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._unit = unit
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock
        self._redraws = wants_redraw(self._stream)
        self._began = clock()
        self._due = self._began + (self._FIRST_S if self._redraws else self._LINE_EVERY_S)
        self._fraction: float | None = None
        self._shown = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._shown and self._redraws:
            self._stream.write("\r\x1b[K")
            self._stream.flush()

    def __call__(self, done: int, fraction: float | None = None) -> None:
        """Say that `done` units are done, and which fraction of all that is; ``None`` leaves the fraction as it was."""
        if fraction is not None:
            self._fraction = fraction
        now = self._clock()
        if now < self._due:
            return
        self._due = now + (self._BAR_EVERY_S if self._redraws else self._LINE_EVERY_S)
        text = f"{done} {self._unit}, {done / max(now - self._began, 1e-9):.0f} a second"
        if self._fraction is not None:
            left_s = (now - self._began) * (1.0 - self._fraction) / max(self._fraction, 1e-9)
            text = f"{100.0 * self._fraction:3.0f} %  {text}, {duration_text(left_s)} left"
            text = f"{bar(self._fraction, 24)} {text}" if self._redraws else text
        if self._redraws:
            self._stream.write(f"\r{clip(text, shutil.get_terminal_size().columns - 1)}\x1b[K")
        else:
            self._stream.write(f"{text}\n")
        self._stream.flush()
        self._shown = True


class RoundProgress:
    """How far training is: a bar on a terminal; elsewhere a line for each phase, and every few seconds.

    Parameters
    ----------
    stream : text file, optional
        Default: stderr.
    clock : callable
        Monotonic seconds.
    """

    _LINE_EVERY_S = 5.0

    def __init__(self, stream: IO[str] | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock
        self._redraws = wants_redraw(self._stream)
        self._due = clock() + self._LINE_EVERY_S
        self._said = ""
        self._drawn = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._drawn:
            self._stream.write("\r\x1b[K")
            self._stream.flush()

    def __call__(self, told: Mapping[str, Any]) -> None:
        """Show what `rounds.Rounds` tells."""
        if "released" in told:
            self._line(f"{told['released']} rows are accepted as normal")
            return
        if "waiting" in told:
            what = f"{told['stream']}: waiting for the training of {told['waiting'] or 'another process'} to end"
            self._show(what, what)
            return
        memory = f"{told['rss_bytes'] / 2**20:.0f} of {told['budget_bytes'] / 2**20:.0f} MiB"
        loss = "" if told["loss"] is None else f", loss {told['loss']:.4g}"
        held = f", on hold: {told['held']}" if told["held"] else ""
        rest = f"{told['phase']}{loss}, {memory}, {duration_text(told['elapsed_s'])}{held}"
        drawn = f"{told['stream']} {bar(told['share'], 24)} {100 * told['share']:3.0f} %  {rest}"
        phase = f"{told['stream']} {told['phase']} {told['held']}"
        self._show(phase, drawn if self._redraws else f"{told['stream']}: {100 * told['share']:.0f} %, {rest}")

    def _show(self, phase: str, text: str) -> None:
        if self._redraws:
            self._stream.write(f"\r{clip(text, shutil.get_terminal_size().columns - 1)}\x1b[K")
            self._stream.flush()
            self._drawn = True
        elif phase != self._said or self._clock() >= self._due:
            self._said = phase
            self._line(text)

    def _line(self, text: str) -> None:
        self._due = self._clock() + self._LINE_EVERY_S
        start = "\r\x1b[K" if self._drawn else ""
        self._stream.write(f"{start}{text}\n")
        self._stream.flush()
        self._drawn = False
