"""A terminal: whether it redraws and shows colour, its keys, and how far something long has come.

`top` and the demo draw on a `console` of rich.  rich is loaded when something is drawn, and not before: what goes to a
file or a pipe, or is over in a moment, does without it.  Words and tables in plain text are in ``text``.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import termios
import time
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, NoReturn, Self

from gon_edge.commands.text import answered_text, duration_text, visible

if TYPE_CHECKING:
    from rich.console import Console

_BAR_AFTER_S = 0.5
"""A bar for less would only flash.  Not critical."""

_BAR_EVERY_S = 0.1
"""Smooth to the eye.  Not critical: drawing one takes 0.5 ms."""

_LINE_EVERY_S = 5.0
"""Where a bar cannot be redrawn.  Not critical: often enough to see life, rare enough for a log."""

_BAR_COLUMNS = 24
"""Half of a narrow terminal is left for the words."""


def wants_redraw(stream: IO[str], environ: Mapping[str, str] | None = None) -> bool:
    """Whether `stream` is a terminal that moves its cursor when told to."""
    environ = os.environ if environ is None else environ
    return stream.isatty() and environ.get("TERM", "dumb") != "dumb"


def wants_colour(stream: IO[str], environ: Mapping[str, str] | None = None) -> bool:
    """Whether `stream` is a terminal and nobody has set ``NO_COLOR`` (no-color.org)."""
    environ = os.environ if environ is None else environ
    return wants_redraw(stream, environ) and not environ.get("NO_COLOR")


def console(stream: IO[str], width: int | None = None) -> Console:
    """Return a console of rich that writes to `stream`.

    It takes text as it is: square brackets, colons and numbers of foreign names mean nothing to it.  Control characters
    do, so foreign text goes through `visible` first.

    Parameters
    ----------
    stream : text file
    width : int, optional
        Columns.  Default: those of the terminal.
    """
    from rich.console import Console

    return Console(
        file=stream,
        width=width,
        force_terminal=wants_redraw(stream),
        color_system="auto" if wants_colour(stream) else None,
        markup=False,
        highlight=False,
        emoji=False,
    )


@contextlib.contextmanager
def ends_on_signals() -> Iterator[None]:
    """Leave by an exception when the connection closes or somebody ends us, so that the terminal is given back.

    A signal that something else handles already is left to it.
    """

    def end(number: int, _frame: object) -> NoReturn:
        raise SystemExit(128 + number)

    numbers = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is signal.SIG_DFL]
    for number in numbers:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


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


class _OneLine:
    """One line about something long.  On a terminal it is a bar that goes away; elsewhere it is a line now and then.

    Parameters
    ----------
    stream : text file, optional
        Default: stderr.
    clock : callable
        Monotonic seconds.
    """

    def __init__(self, stream: IO[str] | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock
        self._redraws = wants_redraw(self._stream)
        self._due = clock() + (_BAR_AFTER_S if self._redraws else _LINE_EVERY_S)
        self._bar = contextlib.ExitStack()
        self._update: Callable[[str, float | None], None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def _show(self, text: str, fraction: float | None) -> None:
        """Show `text`, beside a bar where there can be one; a fraction of ``None`` is not known."""
        if not self._redraws:
            self._say(text)
            return
        self._due = self._clock() + _BAR_EVERY_S
        if self._update is None:
            self._update = self._begin_bar()
        self._update(visible(text), fraction)

    def _say(self, text: str) -> None:
        """Write a line that stays."""
        self._bar.close()
        self._update = None
        self._due = self._clock() + _LINE_EVERY_S
        self._stream.write(f"{visible(text)}\n")
        self._stream.flush()

    def _begin_bar(self) -> Callable[[str, float | None], None]:
        from rich import progress

        # What others write meanwhile is not redirected: data on stdout must not reach the console of stderr.
        bar = progress.Progress(
            progress.BarColumn(_BAR_COLUMNS),
            progress.TextColumn("{task.description}", markup=False),
            console=console(self._stream),
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._bar.enter_context(ends_on_signals())  # the cursor is hidden meanwhile
        self._bar.enter_context(bar)
        task = bar.add_task("", total=None)

        def update(text: str, fraction: float | None) -> None:
            bar.update(task, description=text, total=None if fraction is None else 1.0, completed=fraction or 0.0)
            bar.refresh()

        return update


class Progress(_OneLine):
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

    def __init__(self, unit: str, stream: IO[str] | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(stream, clock)
        self._unit = unit
        self._began = clock()
        self._fraction: float | None = None

    def __call__(self, done: int, fraction: float | None = None) -> None:
        """Say that `done` units are done, and which fraction of all that is; ``None`` leaves the fraction as it was."""
        if fraction is not None:
            self._fraction = fraction
        now = self._clock()
        if now < self._due:
            return
        passed_s = max(now - self._began, 1e-9)
        text = f"{done} {self._unit}, {done / passed_s:.0f} a second"
        if self._fraction is not None:
            left_s = passed_s * (1.0 - self._fraction) / max(self._fraction, 1e-9)
            text = f"{100.0 * self._fraction:3.0f} %  {text}, {duration_text(left_s)} left"
        self._show(text, self._fraction)


class RoundProgress(_OneLine):
    """How far training is: a bar on a terminal; elsewhere a line for each phase, and every few seconds."""

    _phase = ""

    def __call__(self, told: Mapping[str, Any]) -> None:
        """Show what `rounds.Rounds` tells."""
        if "released" in told:
            self._say(f"{told['released']} rows are accepted as normal")
            return
        if "answer" in told:
            self._say(answered_text(told["answer"], told["rows"]))
            return
        if "queued" in told:
            text = f"waiting for {told['queued']}"
            phase, share = text, None
        elif "waiting" in told:
            text = f"{told['stream']}: waiting for the training of {told['waiting'] or 'another process'} to end"
            phase, share = text, None
        else:
            phase, share = f"{told['stream']} {told['phase']} {told['held']}", told["share"]
            memory = f"{told['rss_bytes'] / 2**20:.0f} of {told['budget_bytes'] / 2**20:.0f} MiB"
            loss = "" if told["loss"] is None else f", loss {told['loss']:.4g}"
            held = f", on hold: {told['held']}" if told["held"] else ""
            rest = f"{told['phase']}{loss}, {memory}, {duration_text(told['elapsed_s'])}{held}"
            text = f"{told['stream']}: {100 * share:.0f} %, {rest}"
        if phase != self._phase or self._clock() >= self._due:
            self._phase = phase
            self._show(text, share)
