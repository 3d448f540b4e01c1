"""Keys of a document by dotted path."""

import pytest

from gon_edge.stream.paths import ABSENT, Path


@pytest.mark.parametrize(
    ("path", "document", "found", "left"),
    [
        ("t", {"t": 5, "a": 1}, 5, {"a": 1}),
        ("t", {"t": None}, None, {}),
        ("t", {"a": 1}, ABSENT, {"a": 1}),
        ("m.t", {"m": {"t": 5, "x": 1}}, 5, {"m": {"x": 1}}),
        ("m.t", {"m.t": 6, "m": {"t": 5}}, 6, {"m": {"t": 5}}),
        ("m.t", {"m": 5}, ABSENT, {"m": 5}),
        ("m.t", {"m": [{"t": 5}]}, ABSENT, {"m": [{"t": 5}]}),
        ("a.b.c", {"a": {"b": {"c": "x"}}}, "x", {"a": {"b": {}}}),
        ("t", [1], ABSENT, [1]),
        ("t", 5, ABSENT, 5),
    ],
)
def test_a_path_is_a_key_or_a_way_through_objects(path, document, found, left):
    assert Path(path).get(document) == found
    assert Path(path).take(document) == found
    assert document == left
