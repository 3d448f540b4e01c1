"""What a log line looks like, for people, shippers and the journal."""

from __future__ import annotations

import io
import json
import logging
import os
from pathlib import Path

import pytest

from gon_edge.process.logs import set_up_logging


def test_log_lines_are_text_or_json() -> None:
    text = io.StringIO()
    set_up_logging("info", "text", stream=text, environ={})
    logging.getLogger("gon_edge.links.mqtt").warning("lost %s", "it")
    logging.getLogger("gon_edge.links.mqtt").debug("not shown")
    assert text.getvalue() == "warning gon_edge.links.mqtt: lost it\n"
    text = io.StringIO()
    set_up_logging("debug", "json", stream=text, environ={})
    try:
        raise ValueError("x")
    except ValueError:
        logging.getLogger("a").exception('quoted "text"\nover lines')
    entry = json.loads(text.getvalue())
    assert (entry["level"], entry["logger"], entry["message"]) == ("error", "a", 'quoted "text"\nover lines')
    assert "ValueError: x" in entry["exception"]
    assert text.getvalue().count("\n") == 1


@pytest.mark.parametrize("form", ["text", "json"])
def test_no_log_line_steers_a_terminal_or_begins_another(form: str) -> None:
    text = io.StringIO()
    set_up_logging("info", form, stream=text, environ={})  # type: ignore[arg-type]
    logging.getLogger("a").error("the broker says: no\x1b[2J\x9b31m\u202e\u2028<0>forged\x0b<0>forged")
    assert text.getvalue().endswith("\n")
    assert text.getvalue()[:-1].isprintable()  # of one line, then
    assert "forged" in text.getvalue()


def test_the_journal_gets_priorities_and_a_file_does_not(tmp_path: Path) -> None:
    for journal in (True, False):
        with (tmp_path / "log").open("w+") as log:
            status = os.fstat(log.fileno())
            place = f"{status.st_dev}:{status.st_ino}" if journal else "1:2"
            set_up_logging("info", "text", stream=log, environ={"JOURNAL_STREAM": place})
            logging.getLogger("a").error("one\ntwo")
            log.seek(0)
            assert log.read() == ("<3>error a: one\n<3>two\n" if journal else "error a: one\ntwo\n")
