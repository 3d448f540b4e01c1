"""Commands by which a person answers: which alerts there were, what they were, and what is normal now.

They go through the running daemon where there is one; only the list is read from its files.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import asdict
from typing import Any

from gon_edge.commands.arguments import AddCommand, add_config, config_of, count, moment, write_json
from gon_edge.commands.models import train

_ANSWERS = ("true", "expected", "wrong")  # `events.ALERT_ANSWERS`, which a parser must not load numpy for
_SHOWN = 20  # alerts of a list.  Not critical: a screen


def _add_alerts(add: AddCommand) -> None:
    sub = add(
        "alerts",
        _alerts,
        "list alerts, and what people have said of them",
        "List the newest alerts with their names, causes and answers, and the answers that are about no alert.  Reads "
        "the state directory; the daemon may run.",
        "gon-edge alerts pump --config /etc/gon-edge/gon-edge.yaml",
    )
    sub.add_argument("stream", nargs="?", metavar="STREAM", help="only this stream's (default: all)")
    sub.add_argument("-n", type=count, default=_SHOWN, metavar="N", help="how many alerts (default: %(default)s)")
    add_config(sub)
    sub.add_argument("--json", action="store_true", help="as JSON")


def _alerts(options: argparse.Namespace) -> int:
    from gon_edge.commands.text import alerts_text
    from gon_edge.errors import UnreachableError
    from gon_edge.links.control import is_of_fleet
    from gon_edge.state.store import Store
    from gon_edge.training.answers import answers

    state_dir = config_of(options).state_dir
    if is_of_fleet(state_dir):
        raise UnreachableError(f"{state_dir} is of workers of a fleet, whose alerts gon-edge fleet status shows")
    with Store.open(state_dir, read_only=True) as store:
        found = store.alerts(options.n, stream=options.stream)
        streams = [options.stream] if options.stream is not None else sorted(store.streams())
        given = [asdict(one) for stream in streams for one in answers(store, stream)]
    if options.json:
        write_json({"alerts": found, "answers": given})
    else:
        sys.stdout.write(alerts_text(found, given))
    return 0


def _add_feedback(add: AddCommand) -> None:
    sub = add(
        "feedback",
        _feedback,
        "say of an alert that it was true, expected or wrong",
        "Answer an alert.  true: its rows are a fault and are never learned.  wrong: nothing was wrong; its rows are "
        "normal, and a training that starts at once learns them.  expected: the same, but it was right to tell.  The "
        "new model's threshold heeds the answer, and is shown beside the one before.  The newest answer to an alert "
        "counts, so that a slip can be put right.  Exit status as for retrain.",
        "gon-edge feedback pump-anomaly-20260105T101433Z wrong --note 'filter was cleaned'",
    )
    sub.add_argument("alert", metavar="ALERT", help="its name (see gon-edge alerts), or a stream for its newest one")
    sub.add_argument("answer", metavar="ANSWER", choices=_ANSWERS, help="true, expected or wrong")
    _add_common(sub)


def _feedback(options: argparse.Namespace) -> int:
    return _answer(options, {"do": "feedback", "alert": options.alert, "answer": options.answer})


def _add_missed(add: AddCommand) -> None:
    sub = add(
        "missed",
        _missed,
        "say that a stream had a fault that raised no alert",
        "Say that a stream had a fault at some time, though there was no alert.  A window of rows around that time is "
        "never learned, and a training starts at once: its threshold lies below the fault, if that is above what calm "
        "rows score.  gon-edge alerts shows the answer's name, and feedback NAME wrong takes it back.  Exit status as "
        "for retrain.",
        "gon-edge missed pump --at 2026-01-05T10:00",
    )
    sub.add_argument("stream", metavar="STREAM", help="the stream")
    sub.add_argument(
        "--at",
        type=moment,
        required=True,
        metavar="TIME",
        help="when: a time such as 2026-01-05T10:00 (UTC) or Unix seconds, or as 2h before the newest row",
    )
    _add_common(sub)


def _missed(options: argparse.Namespace) -> int:
    return _answer(options, {"do": "missed", "stream": options.stream, "at": options.at})


def _add_accept(add: AddCommand) -> None:
    sub = add(
        "accept",
        _accept,
        "say that what a stream does now is normal",
        "Say that a stream's rows since some time are normal, though they raised an alert: they are learned after all, "
        "without being screened for odd ones, in a training that starts at once.  The span may be short.  The alert "
        "ends when the new model is in use and finds the rows normal.  Without this an alert stays, and what raised it "
        "is never learned.  Rows that were answered as a fault stay left out.  Exit status as for retrain.",
        "gon-edge accept pump --since 2h",
    )
    sub.add_argument("stream", metavar="STREAM", help="the stream")
    sub.add_argument(
        "--since",
        type=moment,
        required=True,
        metavar="TIME",
        help="from when on: as 2h before the newest row, or a time such as 2026-01-05T10:00 (UTC) or Unix seconds",
    )
    sub.add_argument("--until", type=moment, metavar="TIME", help="up to when (default: the newest row)")
    sub.add_argument(
        "--only",
        action="store_true",
        help="learn these rows alone: what was before will not come back, such as a sensor that is gone for good",
    )
    _add_common(sub)


def _accept(options: argparse.Namespace) -> int:
    names: dict[str, Any] = {"stream": options.stream, "since": options.since, "until": options.until}
    return _answer(options, {"do": "accept", **names, "only": options.only})


def _add_common(sub: argparse.ArgumentParser) -> None:
    """What every answer takes."""
    sub.add_argument("--note", default="", metavar="TEXT", help="for those who wonder (default: none)")
    add_config(sub)
    sub.add_argument("--json", action="store_true", help="print what came of it as JSON")


def _answer(options: argparse.Namespace, asked: dict[str, Any]) -> int:
    """Ask for what an answer starts, with its note and who gave it."""
    return train(options, {**asked, "note": options.note, "by": _user()})


def _user() -> str:
    """Who types; who became root for it is still the one who answers."""
    import getpass

    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):  # a user without a name
        return str(os.getuid())


COMMANDS = {"alerts": _add_alerts, "feedback": _add_feedback, "missed": _add_missed, "accept": _add_accept}
