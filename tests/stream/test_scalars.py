"""Values as devices write them: numbers of any country, units, words."""

import pytest

from gon_edge.events import MASK_REASONS
from gon_edge.stream.scalars import PLAIN, STATES, Scalars


@pytest.mark.parametrize(
    ("text", "auto", "point", "comma"),
    [
        ("21.5", 21.5, 21.5, 21.5),
        ("21,5", 21.5, "text", 21.5),
        ("-0,25", -0.25, "text", -0.25),
        ("1,5e3", 1500.0, "text", 1500.0),
        ("1,234", "ambiguous", 1234.0, 1.234),
        ("1.234", 1.234, 1.234, 1234.0),
        ("1.234,5", 1234.5, "text", 1234.5),
        ("1,234.5", 1234.5, 1234.5, 1234.5),
        ("1,234,567", 1234567.0, 1234567.0, 1234567.0),
        ("1.234.567", "text", "text", 1234567.0),
        ("1.234.567,89", 1234567.89, "text", 1234567.89),
        ("12,34,56", "text", "text", "text"),
        ("192.168.0.100", "text", "text", "text"),
        ("192.168.100.200", "text", "text", 192168100200.0),  # by the option its points can only be groups
        ("1.2.3", "text", "text", "text"),
        ("1.5e3", 1500.0, 1500.0, 1500.0),
        ("1e3", 1000.0, 1000.0, 1000.0),
        (".5", 0.5, 0.5, 0.5),
    ],
)
def test_the_decimal_sign_is_told_by_the_text_or_by_the_option(text, auto, point, comma):
    assert PLAIN.number("a", text) == auto
    assert Scalars("point").number("a", text) == point
    assert Scalars("comma").number("a", text) == comma


@pytest.mark.parametrize(
    "text",
    [
        "21.5 \u00b0C",
        "21.5\u00b0C",
        "21.5 C",
        "21.5\u00a0%",
        "21.5%",
        "21,5 kWh",
        "21.5*kWh",
        "21.5 m\u00b3/h",
        "21.5 RPM",
        "+21.5 V",
    ],
)
def test_a_known_unit_is_left_out(text):
    assert PLAIN.number("a", text) == 21.5


@pytest.mark.parametrize(
    "text",
    [
        "5 apples",
        "0x1F",
        "12ab",
        "1st",
        "3 of 4",
        "12:30",
        "2026-11-30",
        "1 2",
        "--1",
        "\u00b0C",
        "1_000",
        "1,",
        "1.,2",
    ],
)
def test_a_number_with_anything_else_is_text(text):
    assert PLAIN.number("a", text) == "text"


@pytest.mark.parametrize("text", ["21.5\0", "21.5\r\n", "\t21.5 ", "\ufeff21.5", "21.5\0\0"])
def test_what_surrounds_a_number_is_left_out(text):
    assert PLAIN.number("a", text) == 21.5


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (None, "null"),
        ("nan", "nan"),
        ("inf", "infinite"),
        ("-Infinity", "infinite"),
        ("1e39", "infinite"),
        ("", "text"),
    ],
)
def test_what_is_no_number_has_a_reason(raw, why):
    assert PLAIN.number("a", raw) == why
    assert why in MASK_REASONS


def test_states_are_one_or_zero_in_any_case():
    for word, value in STATES.items():
        assert PLAIN.number("a", word.upper()) == PLAIN.number("a", f" {word.title()}\n") == value
    assert (PLAIN.number("a", True), PLAIN.number("a", False)) == (1.0, 0.0)


def test_words_of_the_option_go_before_everything_else():
    scalars = Scalars(words={"*": {"heat": 1.0, "Idle": 0.0, "": -1.0, "off": 7.0, "true": 5.0, "12": 13.0}})
    found = [scalars.number("mode", raw) for raw in ("HEAT", "idle ", "", "OFF", True, "12", "on")]
    assert found == [1.0, 0.0, -1.0, 7.0, 5.0, 13.0, 1.0]


def test_words_count_for_the_features_of_their_pattern():
    scalars = Scalars(words={"*.mode": {"on": 3.0, "eco": 2.0}, "hall.*": {"eco": 9.0, "dry": 4.0}})
    assert [scalars.number(name, "eco") for name in ("hall.mode", "hall.fan", "attic.fan")] == [2.0, 9.0, "text"]
    assert [scalars.number("hall.mode", raw) for raw in ("on", "dry")] == [3.0, 4.0]
    assert scalars.number("attic.fan", "on") == 1.0
