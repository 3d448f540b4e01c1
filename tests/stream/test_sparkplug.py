"""The payload of Sparkplug B: metrics as the protobuf library wrote them, compressed or not."""

import gzip
import zlib

import pytest
from sparkplugs import Template, payload

from gon_edge.stream.sparkplug import Metric, read_payload

LIMIT = 1 << 18


def test_a_payload_is_its_time_and_its_metrics():
    message = payload(
        {"name": "a", "alias": 7, "timestamp": 2500, "datatype": 9, "float_value": 1.5},
        {"alias": 8, "boolean_value": True},
        {"name": "s", "string_value": "idle"},
        {"name": "n", "is_null": True},
        at=3.0,
        seq=1,
    )
    assert read_payload(message, LIMIT) == (
        3.0,
        [Metric("a", 7, 2.5, 9, 1.5), Metric(alias=8, value=True), Metric("s", value="idle"), Metric("n")],
    )
    assert read_payload(b"", LIMIT) == (None, [])


@pytest.mark.parametrize("compress", [zlib.compress, gzip.compress])
def test_a_compressed_payload_is_read_and_bounded(compress):
    inner = payload({"name": "a", "int_value": 1}, at=3.0)
    whole = read_payload(payload(uuid="SPBV1.0_COMPRESSED", body=compress(inner)), LIMIT)
    assert whole == (3.0, [Metric("a", value=1)])
    with pytest.raises(OverflowError):
        read_payload(payload(uuid="SPBV1.0_COMPRESSED", body=compress(bytes(LIMIT + 1))), LIMIT)


@pytest.mark.parametrize(
    "body", [payload(), b"plain", zlib.compress(payload(uuid="SPBV1.0_COMPRESSED", body=zlib.compress(payload())))]
)
def test_a_body_that_is_not_compressed_once_is_refused(body):
    with pytest.raises(ValueError, match="neither gzip nor zlib"):
        read_payload(payload(uuid="SPBV1.0_COMPRESSED", body=body), LIMIT)


def test_templates_in_templates_without_end_are_refused():
    template = Template()
    for _ in range(6):
        template = Template(metrics=[{"name": "m", "template_value": template}])
    with pytest.raises(ValueError, match="nested deeper"):
        read_payload(payload({"name": "t", "template_value": template}), LIMIT)
