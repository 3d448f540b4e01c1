"""Lines, charts and sparklines, as they appear in a terminal."""

from __future__ import annotations

from drawn import drawn

from gon_edge.commands.draw import chart, line, range_line, sparkline


def test_the_chart_keeps_the_threshold_in_sight() -> None:
    def draw(*values: float) -> list[str]:
        return str(chart(values, 2.0, width=6, height=4)).split("\n")

    calm = draw(0.1, 0.2, 0.1)
    assert [line.count("┄") for line in calm] == [0, 6, 0, 0]
    fault = draw(0.1, 50.0, 50.0, 50.0)
    assert sum(line.count("┄") for line in fault) == 6  # across the columns that are above it, too
    assert all(len(line) == 6 for line in calm + fault)


def test_a_chart_takes_a_gap_and_is_red_where_it_is_above_the_threshold() -> None:
    assert str(chart([9.0, None], 2.0, width=3, height=2)) == " █ \n┄┄┄"
    styles = {str(span.style) for span in chart([0.1, 9.0], 2.0, width=2, height=4).spans}
    assert {"green", "red", "yellow on red"} <= styles


def test_a_sparkline_is_as_wide_as_told_and_red_above_the_threshold() -> None:
    shown = sparkline([0.0, None, 1.0, 9.0], 2.0, width=5)
    assert str(shown) == "  ▁▁█"
    assert [str(span.style) for span in shown.spans if span.style][-1] == "red"
    assert str(sparkline([1.0], 2.0, width=0)) == ""


def test_a_line_shows_foreign_text_as_it_is_and_ends_with_the_terminal() -> None:
    assert (
        drawn(line(("[red]x[/red] :smile: \x1b[2J\n", "bold"), ("end", ""))) == "[red]x[/red] :smile: \\x1b[2J\\nend\n"
    )
    assert drawn(line(("temperature", "")), width=6) == "tempe…\n"
    assert drawn(line(("泵泵泵", "")), width=5) == "泵泵…\n"


def test_readings_fill_their_own_range_and_a_still_one_lies_at_the_bottom():
    assert str(range_line([101.0, 102.0, 103.0], width=5)) == "  ▁▅█"
    assert str(range_line([7.0] * 4, width=4)) == "▁▁▁▁"
    assert str(range_line([None, None], width=2)) == "  "
    assert str(range_line([1.0, 2.0], width=0)) == ""
    assert str(range_line([], width=3)) == "   "


def test_a_long_hour_is_averaged_into_the_width_there_is():
    assert str(range_line([0.0] * 60 + [8.0] * 60, width=4)) == "▁▁██"
