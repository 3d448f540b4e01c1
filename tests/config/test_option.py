"""How options are declared: keys without units, and the paths of what is below a section."""

# ruff: noqa: RUF009  option() and section() only wrap dataclasses.field()

from dataclasses import dataclass

from gon_edge.config import values
from gon_edge.config.option import keys, option, paths, section


@dataclass(frozen=True)
class Inner:
    every_s: float = option(values.duration(0), 1.0)
    most_bytes: int = option(values.size(1), 10, key="size")


@dataclass(frozen=True)
class Outer:
    name: str = option(values.text)
    inner: Inner = section(Inner)
    path: str = ""


def test_the_key_of_an_option_is_its_name_without_the_unit_or_the_one_it_gives():
    assert {key: field.name for key, field in keys(Inner).items()} == {"every": "every_s", "size": "most_bytes"}


def test_the_path_of_the_file_is_no_option():
    assert list(keys(Outer)) == ["name", "inner"]


def test_paths_go_down_into_sections():
    assert list(paths(Outer)) == ["name", "inner", "inner.every", "inner.size"]


def test_a_section_that_is_left_out_has_its_defaults():
    assert Outer("x").inner == Inner(1.0, 10)
