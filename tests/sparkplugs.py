"""Messages of Sparkplug B, written by the protobuf library after the schema of the specification's appendix."""

from __future__ import annotations

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_FIELD = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "uint32": _FIELD.TYPE_UINT32,
    "uint64": _FIELD.TYPE_UINT64,
    "float": _FIELD.TYPE_FLOAT,
    "double": _FIELD.TYPE_DOUBLE,
    "bool": _FIELD.TYPE_BOOL,
    "string": _FIELD.TYPE_STRING,
    "bytes": _FIELD.TYPE_BYTES,
}
# number, name, type; ``*`` is repeated, a capital begins a message.
_SCHEMA = {
    "Payload": "1 timestamp uint64, 2 metrics *Metric, 3 seq uint64, 4 uuid string, 5 body bytes",
    "Template": "1 version string, 2 metrics *Metric, 4 template_ref string, 5 is_definition bool",
    "DataSet": "1 num_of_columns uint64, 2 columns *string, 3 types *uint32",
    "PropertyValue": "1 type uint32, 3 int_value uint32",
    "PropertySet": "1 keys *string, 2 values *PropertyValue",
    "Metric": "1 name string, 2 alias uint64, 3 timestamp uint64, 4 datatype uint32, 5 is_historical bool, "
    "6 is_transient bool, 7 is_null bool, 9 properties PropertySet, 10 int_value uint32, 11 long_value uint64, "
    "12 float_value float, 13 double_value double, 14 boolean_value bool, 15 string_value string, "
    "16 bytes_value bytes, 17 dataset_value DataSet, 18 template_value Template",
}

INT8, INT16, INT32, INT64, UINT8, UINT64, FLOAT, DOUBLE, BOOLEAN, STRING, DATETIME, TEMPLATE = (
    *range(1, 6),
    *range(8, 14),
    19,
)
"""Datatypes, by their index in the specification."""


def _classes() -> dict[str, type]:
    file = descriptor_pb2.FileDescriptorProto(name="sparkplug_b.proto", package="p", syntax="proto2")
    for name, fields in _SCHEMA.items():
        message = file.message_type.add(name=name)
        for field in fields.split(", "):
            number, key, kind = field.split()
            described = message.field.add(name=key, number=int(number), label=_FIELD.LABEL_OPTIONAL)
            if kind[0] == "*":
                described.label = _FIELD.LABEL_REPEATED
            kind = kind.lstrip("*")
            if kind in _SCALARS:
                described.type = _SCALARS[kind]
            else:
                described.type, described.type_name = _FIELD.TYPE_MESSAGE, f".p.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"p.{name}")) for name in _SCHEMA}


_CLASSES = _classes()
Payload, Template, Metric = _CLASSES["Payload"], _CLASSES["Template"], _CLASSES["Metric"]


def payload(*metrics: dict, at: float | None = None, **fields: object) -> bytes:
    """A payload of metrics, each by the names of its fields; ``at`` is in Unix seconds."""
    message = Payload(metrics=[Metric(**metric) for metric in metrics], **fields)
    if at is not None:
        message.timestamp = round(at * 1000)
    return message.SerializeToString()
