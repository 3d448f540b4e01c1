"""Line protocol to readings: lines of one stream and one time become one."""

import pytest
from decoding import decoder, reason

from gon_edge.errors import PayloadError

CPU = b"cpu,cpu=cpu0,host=pi usage_idle=98.5,usage_user=1i 1583748873000000000"


def influx(payload, topic="telegraf/#", **options):
    return decoder(topic, "influx", **options).decode("telegraf/x", payload)


def test_a_line_as_telegraf_writes_it():
    (reading,) = influx(CPU).readings
    assert (reading.stream, reading.timestamp) == ("pi", 1583748873.0)
    assert reading.values == {"cpu.cpu0.usage_idle": 98.5, "cpu.cpu0.usage_user": 1.0}


def test_lines_of_one_stream_and_time_become_one_reading():
    lines = [CPU, CPU.replace(b"cpu0", b"cpu1"), CPU.replace(b"873000", b"874000"), CPU.replace(b"pi", b"nas")]
    readings = influx(b"\n".join(lines)).readings
    assert [(r.stream, r.timestamp, len(r.values)) for r in readings] == [
        ("pi", 1583748873.0, 4),
        ("pi", 1583748874.0, 2),
        ("nas", 1583748873.0, 2),
    ]


@pytest.mark.parametrize(
    ("line", "values", "masked"),
    [
        (b"m a=1,b=2i,c=3u,d=-4.5e1,e=.5", {"m.a": 1, "m.b": 2, "m.c": 3, "m.d": -45, "m.e": 0.5}, {}),
        (b"m a=t,b=T,c=true,d=True,e=TRUE", dict.fromkeys(["m.a", "m.b", "m.c", "m.d", "m.e"], 1.0), {}),
        (b"m a=f,b=F,c=false,d=False,e=FALSE", dict.fromkeys(["m.a", "m.b", "m.c", "m.d", "m.e"], 0.0), {}),
        (b'm a="x, y=z \\"q\\" w",b=1', {"m.b": 1.0}, {"m.a": "text"}),
        (b'm a="21.5"', {}, {"m.a": "text"}),  # the protocol has types: what is quoted is text
        (b'm a=""', {}, {"m.a": "text"}),
        (b"m a=nan,b=1", {"m.b": 1.0}, {"m.a": "nan"}),
        (b"m a=1e999", {}, {"m.a": "infinite"}),
        (b"my\\ m\\,x,room=living\\ room,k\\=y=a\\=b f\\ g=1", {"my m,x.a=b.living room.f g": 1.0}, {}),
        (b"m,z=1,a=2 f=1", {"m.2.1.f": 1.0}, {}),
        (b"m  a=1   \r", {"m.a": 1.0}, {}),
        (b"m=x a=1", {"m=x.a": 1.0}, {}),
    ],
)
def test_the_line_protocol_is_read_as_specified(line, values, masked):
    (reading,) = influx(line, stream="pump").readings
    assert reading.values == values
    assert reading.masked == masked


@pytest.mark.parametrize(
    "line",
    [
        b"m",
        b"m a",
        b"m a=",
        b"m a=1,",
        b"m a=1,b",
        b"m =1",
        b",t=1 a=1",
        b"m,t a=1",
        b'm a="x',
        b"m a=1 2 3",
        b"m a=1_0i",
        b"m a=1 soon",
        b"m a=5x",
        b"m a=1\\",
        b"m,t=a=b a=1",
        b"m a=1ii",
        b'm a="x"y',
    ],
)
def test_a_line_that_is_no_line_protocol_is_rejected(line):
    assert reason(decoder("telegraf/#", "influx", stream="pump"), "telegraf/x", line) == "bad_line"


def test_a_bad_line_rejects_only_itself():
    decoded = influx(b"# comment\n\n" + CPU + b"\nbroken\nm a=1\nm,host=a/b a=1\nm,host=h a=1 -5\n")
    assert len(decoded.readings) == 1
    assert decoded.rejected == {"bad_line": 1, "no_stream": 1, "bad_stream": 1, "bad_timestamp": 1}


def test_only_comments_are_empty():
    assert reason(decoder("telegraf/#", "influx"), "telegraf/x", b"# nothing\n") == "empty"


def test_the_stream_of_a_line_is_the_topics_then_the_hosts_then_the_options():
    def stream(topic, line, **options):
        return decoder(topic, "influx", **options).decode("telegraf/x", line).readings[0].stream

    assert stream("telegraf/{stream}", CPU, stream=None) == "x"
    assert stream("telegraf/+", CPU, stream="plant") == "pi"
    assert stream("telegraf/+", b"m a=1", stream="plant") == "plant"


def test_a_line_written_before_the_clock_was_set_is_in_1970():
    # Guessing the unit from the size would read 30 s after boot, in nanoseconds, as seconds of the year 2920.
    assert influx(b"m,host=pi a=1 30000000000").readings[0].timestamp == 30.0


def test_a_hostile_line_takes_linear_time():
    for hostile in (b"m a=" + b'"\\' * 60_000, b"m " + b"a=1," * 40_000, b"\\" * 120_000, b"m a=" + b'""' * 60_000):
        with pytest.raises(PayloadError):
            influx(hostile, stream="pump")


def test_fields_that_two_lines_give_for_one_moment_are_named_and_the_last_one_counts():
    decoded = influx(CPU + b"\n" + CPU.replace(b"98.5", b"97.5"))
    (reading,) = decoded.readings
    assert reading.values["cpu.cpu0.usage_idle"] == 97.5
    assert [(part.key, part.reason, part.example) for part in reading.dropped] == [
        ("cpu.cpu0.usage_idle", "repeated", "98.5"),
        ("cpu.cpu0.usage_user", "repeated", "1.0"),
    ]
    assert decoded.masked == {"repeated": 2}


@pytest.mark.parametrize(
    ("clock", "precision", "seconds"),
    [
        (b"1764494154", "auto", 1764494154.0),
        (b"1764494154250", "auto", 1764494154.25),
        (b"1764494154250000", "auto", 1764494154.25),
        (b"1764494154250000000", "auto", 1764494154.25),
        (b"1764494154", "s", 1764494154.0),
        (b"1764494154250", "ms", 1764494154.25),
        (b"1764494154250000", "us", 1764494154.25),
        (b"1764494154", "ns", 1.764494154),
        (b"1800000000000", "ns", 1800.0),  # half an hour after a start without a clock
    ],
)
def test_the_unit_of_a_timestamp_is_told_by_its_size_or_by_the_option_precision(clock, precision, seconds):
    (reading,) = influx(b"m,host=pi a=1 " + clock, precision=precision).readings
    assert reading.timestamp == pytest.approx(seconds, abs=1e-6)


def test_words_of_a_field_are_numbers_by_the_option_map():
    (reading,) = influx(b'boiler,host=pi mode="heat",text="x"', map={"heat": 2}).readings
    assert (reading.values, reading.masked) == ({"boiler.mode": 2.0}, {"boiler.text": "text"})
