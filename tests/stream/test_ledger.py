"""What became of no value is counted for ever and named in bounded memory."""

from __future__ import annotations

from gon_edge.events import IGNORED_REASONS, LOST_REASONS, MASK_REASONS, REASONS, Dropped
from gon_edge.stream.ledger import IN_WORDS, MOST_KEYS, OTHERS, Ledger


def test_every_reason_has_words_for_a_person():
    assert {*REASONS, *MASK_REASONS, *LOST_REASONS, *IGNORED_REASONS} <= IN_WORDS.keys()


def test_the_newest_keys_are_named_and_the_others_are_still_counted():
    ledger = Ledger()
    for i in range(1000):
        ledger.add(f"key-{i}", "text", "x")
        ledger.add("door", "text", "open")
    named = {entry.key: entry.count for entry in ledger.entries}
    assert len(named) == MOST_KEYS + 1
    assert named["door"] == 1000
    assert named[OTHERS] == 1001 - MOST_KEYS
    assert sum(named.values()) == ledger.totals["text"] == 2000


def test_news_are_told_once():
    ledger = Ledger()
    ledger.add("a", "null")
    assert ledger.news() == ({"null": 1}, (Dropped("a", "null", ""),))
    ledger.add("a", "null")
    assert ledger.news() == ({"null": 1}, ())
    assert ledger.news() == ({}, ())


def test_of_a_late_reading_the_offset_is_the_example():
    ledger = Ledger()
    ledger.add_late(("a", "b"), "ahead", 5000.0, 3600.4)
    ledger.add_late(("c",), "behind", 100.0, -0.25)
    ledger.add_late(("d",), "still", 1_700_000_000.0, 0.0)
    assert [(entry.key, entry.example) for entry in ledger.entries] == [
        ("d", "2023-11-14 22:13:20"),
        ("c", "-0.250 s"),
        ("b", "+3600 s"),
        ("a", "+3600 s"),
    ]
