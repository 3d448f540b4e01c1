"""Timestamps as devices write them."""

import math
from zoneinfo import ZoneInfo

import pytest

from gon_edge.stream.times import unix_seconds


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
        (20200309101433, 1583748873.0),  # not the year 2610 in milliseconds
        ("20200309101433", 1583748873.0),
        ("20200309T101433", 1583748873.0),
        (20201399000000, 20201399000.0),  # no such month: milliseconds
        ("09.03.2020 10:14:33", 1583748873.0),
        ("9.3.2020, 10:14", 1583748840.0),
        ("09.03.2020 10:14:33.25", 1583748873.25),
        ("2020/03/09 10:14:33", 1583748873.0),
        ("2020.03.09 10:14:33", 1583748873.0),
        ("03/09/2020 10:14:33 AM", 1583748873.0),
        ("03/09/2020 10:14:33 p.m.", 1583792073.0),
        ("2020-03-09 12:14:33 am", 1583712873.0),
        ("2020-03-09 12:14 PM", 1583756040.0),
        ("2020-03-09 10:14:33 UTC", 1583748873.0),
        ("2020-03-09 11:14:33 +0100", 1583748873.0),
        ("2020-03-09 10:14:33 +0000 UTC", 1583748873.0),
        ("200309111433W", 1583748873.0),
        ("200709121433S", 1594289673.0),
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
        "03/09/2020 10:14:33",  # March or September?
        "2020-03-09 13:14 PM",
        "2020-03-09 0:14 AM",
        "32.03.2020 10:14:33",
        "201309111433W",
        "200309111433X",
        "09.03.20 10:14",
    ],
)
def test_a_wrong_timestamp_is_an_error(raw):
    with pytest.raises(ValueError, match=r"\S"):
        unix_seconds(raw)


@pytest.mark.parametrize(
    ("raw", "seconds"),
    [
        ("2026-07-01 12:00:00", 1782900000.0),
        ("2026-12-01 12:00:00", 1796122800.0),
        (20260701120000, 1782900000.0),
        ("01.07.2026 12:00 pm", 1782900000.0),
        ("2026-07-01 10:00:00Z", 1782900000.0),
        ("2026-07-01 10:00:00 +0000", 1782900000.0),
        ("2026-10-25 02:30:00", 1792888200.0),  # comes twice; the first counts
        (1782900000, 1782900000.0),
    ],
)
def test_what_names_no_zone_is_in_the_zone_that_is_given(raw, seconds):
    assert unix_seconds(raw, ZoneInfo("Europe/Berlin")) == seconds


def test_dsmr_keeps_its_zone():
    assert unix_seconds("200309111433W", ZoneInfo("America/New_York")) == 1583748873.0


def test_a_slash_without_am_or_pm_says_what_to_write():
    with pytest.raises(ValueError, match="write the year first"):
        unix_seconds("03/09/2020 10:14:33")
