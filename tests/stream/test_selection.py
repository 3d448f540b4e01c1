"""Which features are used, and what is said of the others."""

from gon_edge.config.schema import StreamConfig
from gon_edge.stream.ledger import Ledger
from gon_edge.stream.selection import Selection


def test_exclude_wins_over_include_and_what_is_left_out_is_counted():
    ledger = Ledger()
    selection = Selection(StreamConfig(include=("fl*", "pressure"), exclude=("pressure",)), ledger)
    assert selection.used({"flow": 1.0, "flux": 2.0, "pressure": 3.0, "serial": 4.0}) == {"flow": 1.0, "flux": 2.0}
    assert sorted((entry.key, entry.reason) for entry in ledger.entries) == [
        ("pressure", "excluded"),
        ("serial", "excluded"),
    ]


def test_without_patterns_nothing_is_copied():
    values = {"a": 1.0}
    assert Selection(StreamConfig(), Ledger()).of(values) is values


def test_more_names_than_are_remembered_are_told_apart_all_the_same():
    selection = Selection(StreamConfig(exclude=("x*",)), Ledger())
    for i in range(12_000):
        assert selection.of({f"x{i}": 1.0, f"y{i}": 2.0}) == {f"y{i}": 2.0}
