"""Which keys of a document are guessed to name its streams, features and values; that they read it: test_families."""

import pytest

from gon_edge.stream.shapes import device_of, keys_of

METRIC = {"name": "cpu", "tags": {"host": "nas"}, "fields": {"idle": 1.0}, "timestamp": 1}


@pytest.mark.parametrize(
    ("document", "keys"),
    [
        ([{"name": "a", "value": 1}, {"name": "b", "value": "x"}], {"name_key": "name", "value_key": "value"}),
        ({"data": [{"tag": "a", "v": 1}], "n": 3}, {"items": "data", "name_key": "tag", "value_key": "v"}),
        ([{"id": 1, "t": 20}, {"id": 2, "t": 21}], {"stream": {"key": "id"}}),
        ({"devices": [{"mac": "a", "t": 1}, {"mac": "b", "t": 2}]}, {"items": "devices", "stream": {"key": "mac"}}),
        (
            {"D 1": [{"values": {"a": 1}}], "D 2": [{"ts": 5, "values": {}}]},
            {"items": "{stream}", "value_key": "values"},
        ),
        (METRIC, {"name_key": ["name", "tags"], "value_key": "fields", "stream": {"key": "tags.host"}}),
        ({**METRIC, "tags": {}}, {"name_key": ["name", "tags"], "value_key": "fields"}),
        (
            {"metrics": [METRIC]},
            {"items": "metrics", "name_key": ["name", "tags"], "value_key": "fields", "stream": {"key": "tags.host"}},
        ),
        ({"model": "Garden", "id": 7, "t": 1}, {"stream": {"key": ["model", "id"]}}),
    ],
)
def test_a_known_shape_has_its_keys(document, keys):
    assert keys_of(document) == keys


@pytest.mark.parametrize(
    "document",
    [
        {"a": 1, "b": {"c": 2}},
        [{"t": 1, "a": 1}, {"t": 2, "a": 2}],
        [{"name": "a", "value": 1}, {"name": "a", "value": 2}],
        [{"id": "a", "t": 1}],
        [{"n": "a", "v": 1}],
        {"x": [1, 2], "y": [3]},
        {"x": [{"a": 1}], "y": [{"b": 1}]},
        [],
        {},
        {"a": []},
        5,
        None,
    ],
)
def test_what_needs_no_keys_or_fits_no_shape_has_none(document):
    assert keys_of(document) == {}


@pytest.mark.parametrize(
    ("items", "device"),
    [
        ([{"station": "a", "t": 1}, {"station": "b", "t": 2}], "station"),
        ([{"station": "a", "t": 1}, {"station": "a", "t": 2}], None),
        ([{"id": 1, "t": 1}, {"id": 2, "t": 2}], None),  # may be the number of the message
        ([{"id": "a", "t": 1}, {"id": "b", "h": 2}], None),
        ([{"id": "a", "t": 1}], None),
        ([5, {"id": "a", "t": 1}, {"id": "b", "t": 1}], None),
        ([1, 2], None),
    ],
)
def test_devices_are_told_apart_by_a_text_that_each_has(items, device):
    assert device_of(items) == device
