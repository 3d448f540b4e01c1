"""A line of InfluxDB's line protocol taken apart; what readings come of it is in test_payload."""

from __future__ import annotations

import pytest

from gon_edge.stream.lineprotocol import Line, parse_line


def test_a_line_is_prefix_host_fields_and_clock():
    line = parse_line("cpu,host=nas,cpu=cpu0 usage=3.5,up=t,n=4i 1767607473000000000")
    assert line == Line("cpu.cpu0", "nas", {"usage": 3.5, "up": 1.0, "n": 4.0}, "1767607473000000000")


def test_escapes_are_taken_off_and_quoted_text_stays_text():
    line = parse_line(r'my\ disk,path=a\,b free\=now=1,note="21"')
    assert line.prefix == "my disk.a,b"
    assert line.fields == {"free=now": 1.0, "note": '"21"'}
    assert line.clock is None


@pytest.mark.parametrize(
    ("text", "why"),
    [("no fields", "not key=value"), ("cpu", "not line protocol"), ("cpu,tag a=1", "tag"), ("cpu a=x", "field")],
)
def test_what_is_no_line_protocol_says_where(text: str, why: str):
    with pytest.raises(ValueError, match=why):
        parse_line(text)
