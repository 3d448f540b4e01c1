"""Timestamps as devices write them; how numbers are read is in test_payload, for each format."""

import math

import pytest

from gon_edge.stream.scalars import unix_seconds


@pytest.mark.parametrize(
    ("raw", "seconds"),
    [
        (1583748873, 1583748873.0),
        (1583748873.25, 1583748873.25),
        (1583748873250.0, 1583748873.25),
        (1583748873250000, 1583748873.25),
        (1583748873250000000, 1583748873.25),
        ("1583748873", 1583748873.0),
        (0, 0.0),
        (42.5, 42.5),  # a Pi that has no clock yet
        ("2020-03-09 10:14:33", 1583748873.0),
        ("2020-03-09T10:14:33", 1583748873.0),
        ("2020-03-09T10:14:33Z", 1583748873.0),
        ("2020-03-09t10:14:33.250z", 1583748873.25),
        ("2020-03-09T12:14:33+02:00", 1583748873.0),
        ("2020-03-09 12:14:33,250000000+0200", 1583748873.25),
        (" 2020-03-09 ", 1583712000.0),
    ],
)
def test_a_timestamp_is_read_as_devices_write_it(raw, seconds):
    assert unix_seconds(raw) == pytest.approx(seconds, abs=1e-6)


@pytest.mark.parametrize(
    "raw",
    [
        -1,
        math.nan,
        math.inf,
        1e30,
        True,
        None,
        [],
        {},
        "",
        "soon",
        "2020-13-01",
        "2020-03-09T25:00:00",
        "9" * 500,
        "nan",
    ],
)
def test_a_wrong_timestamp_is_an_error(raw):
    with pytest.raises(ValueError, match=r"\S"):
        unix_seconds(raw)
