"""What the documents say is there, and what is there is in the documents."""

from __future__ import annotations

import configparser
import csv
import http.client
import importlib.util
import json
import os
import re
import runpy
import shlex
import string
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
import yaml
from prometheus_client import CollectorRegistry

from gon_edge import errors, events
from gon_edge.commands import main as cli
from gon_edge.config.file import load_config
from gon_edge.config.file import options as config_options
from gon_edge.config.schema import HttpConfig
from gon_edge.events import Alert, Cause
from gon_edge.fleet.series import Series
from gon_edge.links.control import ControlServer
from gon_edge.links.prometheus import Telemetry
from gon_edge.links.web.server import CONTENT_TYPES, WebServer
from gon_edge.state.folder import ModelFolder
from gon_edge.state.store import Store
from gon_edge.stream.held import alert_json
from gon_edge.training.fit import fit_model

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = (ROOT, *(ROOT / "docs" / folder for folder in ("", "evidence", "reference", "research")))
PAGES = [page for folder in FOLDERS for page in sorted(folder.glob("*.md"))]
TEXT = {page.relative_to(ROOT).as_posix(): page.read_text(encoding="utf-8") for page in PAGES}
README = TEXT["README.md"]

pages = pytest.mark.parametrize("page", TEXT)


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of a language."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [block for name, block in fenced if name == language]


def prose(text: str) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(text: str) -> set[str]:
    """What a link can point to within a page, by the rule of the sites that show Markdown."""
    kept = string.ascii_lowercase + string.digits + "-_ "
    titles = re.findall(r"^#+ (.*)$", prose(text), re.MULTILINE)
    return {"".join(c for c in title.lower() if c in kept).replace(" ", "-") for title in titles}


def command_lines(text: str) -> list[str]:
    """Lines of shell blocks that call gon-edge, with `source <(...)` taken off."""
    lines = [line for block in blocks(text, "sh") for line in block.splitlines()]
    found = [re.search(r"(?:^|<\()(gon-edge [^)#]*)", line) for line in lines]
    return [match[1].strip() for match in found if match]


def samples():
    """Every series of the program: name as on the page of series, and labels."""
    registry = CollectorRegistry()
    telemetry = Telemetry(registry, version="1")
    Series(registry, partitions=1)
    telemetry.row("s", 0.0)
    telemetry.certificate("http.cert_file", Path("there is none"))
    telemetry.causes("s", (Cause("f", 1.0, 2.0, 1.0),))
    telemetry.model("s", "1", 0.0)
    telemetry.retrain("s", "promoted", duration_s=1.0, peak_bytes=1)
    found: dict[str, set[str]] = {}
    for family in registry.collect():
        if not family.name.startswith("gon_edge_"):
            continue
        suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        found[family.name + suffix] = labels
    return found


def test_every_command_is_on_the_page_of_the_operator():
    documented = {shlex.split(line)[1] for line in command_lines(TEXT["docs/operating.md"])}
    assert {action.dest for action in commands()} == documented


def commands():
    """The choices of the parser's one set of commands."""
    (subparsers,) = (action for action in cli.build_parser()._actions if hasattr(action, "_choices_actions"))
    return subparsers._choices_actions


@pytest.mark.parametrize("line", [line for text in TEXT.values() for line in command_lines(text)])
def test_every_command_line_in_the_documents_is_understood(line):
    options = cli.build_parser().parse_args(shlex.split(line)[1:])
    assert callable(options.command)


def test_every_make_target_in_the_documents_exists():
    targets = set(re.findall(r"^([a-z0-9]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {target for text in TEXT.values() for target in re.findall(r"`?\bmake ([a-z0-9]+)(?=[`\s,]|$)", code(text))}
    assert {"run", "test", "check", "bench"} <= named <= targets


def code(text: str) -> str:
    """What a page shows as code: fenced blocks and spans."""
    return "\n".join([*blocks(text, "sh"), *re.findall(r"`([^`\n]+)`", prose(text))])


def test_every_module_a_shown_log_line_comes_from_exists():
    text = "".join(block for page in TEXT.values() for block in blocks(page, "text"))
    modules = set(re.findall(r"^(?:info|warning|error) (gon_edge[\w.]*):", text, re.MULTILINE))
    assert modules
    assert [module for module in modules if importlib.util.find_spec(module) is None] == []


@pytest.mark.parametrize(
    "block", [b for text in TEXT.values() for b in blocks(text, "yaml") if "scrape_configs" not in b]
)
def test_every_configuration_in_the_documents_is_valid(block, tmp_path):
    whole = yaml.safe_load((ROOT / "configs" / "minimal.yaml").read_text())
    shown = yaml.safe_load(block)
    file = tmp_path / "gon-edge.yaml"
    file.write_text(json.dumps({**whole, **shown}))
    assert load_config(file).subscriptions


def test_the_readme_shows_the_minimal_configuration_as_it_is():
    assert (ROOT / "configs" / "minimal.yaml").read_text() in README


def test_the_readme_fits_on_three_screens():
    assert len(README.splitlines()) <= 150


def test_the_example_event_has_the_fields_of_an_event():
    (shown,) = (json.loads(block) for block in blocks(TEXT["docs/alerts.md"], "json"))
    cause = Cause("f", 1.0, 2.0, 1.0)
    event = alert_json(Alert("i", "new", "anomaly", "s", 0.0, 0.0, 2.0, 1.0, "warning", (cause,), "1"))
    assert list(shown) == list(event)
    assert all(list(feature) == list(event["top_features"][0]) for feature in shown["top_features"])
    assert shown["score"] > shown["threshold"]
    assert sum(feature["contribution"] for feature in shown["top_features"]) <= 1.0


def test_every_series_is_documented_with_its_labels():
    rows = re.findall(r"^\| `(gon_edge_\w+)` \| \w+ \| (.*?) ?\|", TEXT["docs/reference/metrics.md"], re.MULTILINE)
    documented = {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in rows}
    assert len(rows) == len(documented)
    assert documented == samples()


@pytest.mark.parametrize(
    "values",
    [
        events.MESSAGE_RESULTS,
        events.STREAM_STATES,
        events.UNSCORED_REASONS,
        events.TRAINING_OUTCOMES,
        events.RECONNECT_REASONS,
        events.ALERT_KINDS,
        events.REASONS,
        events.MASK_REASONS,
    ],
)
def test_every_value_of_a_closed_label_is_documented(values):
    assert [value for value in values if f"`{value}`" not in TEXT["docs/reference/metrics.md"]] == []


@pages
def test_no_page_names_a_series_that_does_not_exist(page):
    known = set(samples())
    known |= {f"{name}_{part}" for name in known for part in ("bucket", "sum", "count")}
    assert set(re.findall(r"gon_edge_\w+", TEXT[page])) <= known


@pages
def test_every_link_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(TEXT[page])):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = unquote(target).partition("#")
        file = ((ROOT / page).parent / path).resolve() if path else ROOT / page
        assert file.exists(), target
        assert ROOT in file.parents, target
        assert not anchor or anchor in anchors(file.read_text(encoding="utf-8")), target


def test_every_picture_is_shown_and_small():
    shown = {Path(target).name for text in TEXT.values() for target in re.findall(r"!\[[^]]*\]\(([^)]+)\)", text)}
    pictures = sorted((ROOT / "docs").rglob("*.png"))
    assert {picture.name for picture in pictures} == shown
    assert all(picture.stat().st_size < 200_000 for picture in pictures)


def test_the_architecture_lists_every_module_as_its_docstring_has_it():
    command = [sys.executable, str(ROOT / "tools" / "make_architecture.py"), "--check"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (result.stdout, result.returncode) == ("", 0)


def test_the_architecture_shows_the_layers_that_are_checked():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    layers = setup["importlinter:contract:layers"]["layers"].strip().replace("gon_edge.", "")
    assert f"{layers}\n" in blocks(TEXT["ARCHITECTURE.md"], "")


def test_every_exit_code_is_in_the_reference_the_help_and_the_man_page():
    raised = {value.exit_code for value in vars(errors).values() if hasattr(value, "exit_code")} | {0, 2, 3, 130}
    listed = re.findall(r"^\| (\d+) \|", TEXT["docs/reference/exit-codes.md"], re.MULTILINE)
    assert raised == errors.EXIT_CODES.keys() == set(map(int, listed))
    assert all(f"{code} {text}" in cli.build_parser().epilog for code, text in errors.EXIT_CODES.items())
    manual = runpy.run_path(str(ROOT / "tools" / "make_manpages.py"))["page"](cli.build_parser(), "gon-edge", "", "")
    shown = manual.partition(".SH EXIT STATUS")[2].partition(".SH ")[0]
    assert re.findall(r"^\.TP\n(\d+)$", shown, re.MULTILINE) == list(map(str, errors.EXIT_CODES))


def test_every_path_of_the_reference_answers_as_it_says(tmp_path, reference):
    listed = re.findall(r"^\| `(/\S*)` \| `([^`]+)` \| (yes)? +\|", TEXT["docs/reference/http.md"], re.MULTILINE)
    assert {path for path, _, _ in listed} == CONTENT_TYPES.keys()
    (tmp_path / "token").write_text("a secret of at least sixteen characters")
    (tmp_path / "token").chmod(0o600)
    guarded = HttpConfig("127.0.0.1:0", token_file=tmp_path / "token")
    server = WebServer(guarded, snapshot=reference["_sample"], registry=CollectorRegistry())
    server.start()
    try:
        for path, content_type, is_open in listed:
            answers = []
            for headers in ({}, {"Authorization": f"Bearer {(tmp_path / 'token').read_text()}"}):
                connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
                # As the sample has it; the table says which paths need it, and the others ignore it.
                connection.request("GET", f"{path}?stream=s&feature=f", headers=headers)
                answers.append(connection.getresponse())
                connection.close()
            stranger, guest = answers
            assert stranger.status != 401 if is_open else stranger.status == 401, path
            assert guest.status in (200, 503), path  # 503: the sample's loop has not come round since 1970
            assert guest.getheader("Content-Type") == content_type
    finally:
        server.stop()


@pytest.fixture(scope="module")
def reference() -> dict[str, Any]:
    """The script that writes docs/reference."""
    return runpy.run_path(str(ROOT / "tools" / "make_reference.py"))


def test_the_reference_is_what_the_program_says_today(reference):
    written = {page.name: page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "reference").iterdir()}
    outdated = [name for name, page in reference["PAGES"].items() if written.get(name) != page()]
    assert not outdated, "write them anew: python tools/make_reference.py"
    assert written.keys() == reference["PAGES"].keys()


def test_the_reference_has_every_option_and_every_command():
    options = re.findall(r"^##+ (\S+)$", TEXT["docs/reference/configuration.md"], re.MULTILINE)
    assert {path for path, _ in config_options(load_config(ROOT / "configs" / "gon-edge.yaml"))} <= set(options)
    commanded = re.findall(r"^## gon-edge (\S+)$", TEXT["docs/reference/commands.md"], re.MULTILINE)
    assert commanded == [action.dest for action in commands()]


def test_a_topic_without_a_description_is_refused(reference):
    with pytest.raises(SystemExit, match="heartbeat"):
        reference["_same"]("topics", ["alert", "heartbeat"], {"alert": ""})


def test_every_file_of_a_state_directory_is_in_the_reference(reference, tmp_path):
    model = fit_model(np.random.default_rng(0).normal(size=(200, 2)), rng=np.random.default_rng(0))
    ModelFolder(tmp_path).install("pump", model.with_lineage(version="1"))
    control = ControlServer(tmp_path)
    with Store.open(tmp_path) as store:
        store.put_state("silences", [])
        store.flush(0.0)
        control.start()
        found = [file.relative_to(tmp_path).as_posix() for file in tmp_path.rglob("*") if not file.is_dir()]
        control.stop()
    assert {"state.db", "control.sock", "models/pump/model.npz"} <= set(found)
    known = reference["STATE_FILES"]
    assert [file for file in found if not any(fnmatch(file, pattern) for pattern in known)] == []


def navigation() -> list[str]:
    """Pages of the site, in its order."""

    class Loader(yaml.SafeLoader):
        """Leaves out the tag by which the site names a function."""

    Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)
    with (ROOT / "tools" / "mkdocs.yml").open(encoding="utf-8") as file:
        tree = yaml.load(file, Loader)["nav"]
    return list(leaves(tree))


def leaves(tree: Any):
    """The strings of nested lists and mappings."""
    if isinstance(tree, str):
        yield tree
    else:
        for branch in tree.values() if isinstance(tree, dict) else tree:
            yield from leaves(branch)


def test_every_page_is_in_the_navigation_once():
    present = {page.removeprefix("docs/") for page in TEXT if page.startswith("docs/")}
    assert sorted(navigation()) == sorted(present)


def test_every_page_is_reached_from_the_first_one_and_that_from_the_readme():
    linked = set(re.findall(r"\]\(([^)#\s]+)", TEXT["docs/index.md"]))
    assert [page for page in navigation() if page not in linked | {"index.md"} and "research/" not in page] == []
    assert "docs/index.md" in README


def test_the_site_builds_without_a_broken_link(tmp_path):
    if not os.environ.get("CI"):
        pytest.importorskip("mkdocs")
    command = [sys.executable, "-m", "mkdocs", "build", "-f", str(ROOT / "tools" / "mkdocs.yml"), "-d", str(tmp_path)]
    environ = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, env=environ)
    assert done.returncode == 0, done.stderr
    assert {"index.html", "tutorial.html", "reference", "source"} <= {path.name for path in tmp_path.iterdir()}
    text = "".join(page.read_text(encoding="utf-8") for page in tmp_path.glob("*.html"))
    assert not re.search(r"<(?:script|link|img)[^>]*(?:src|href)=\"https?:", text), "reading it needs no network"


def test_every_promise_is_shown_by_a_test_that_exists():
    rows = [row for row in re.findall(r"^\|(.*)\|$", TEXT["docs/guarantees.md"], re.MULTILINE) if " | " in row]
    promises = [row for row in rows if row.strip() != "Promise | Shown by"]
    pattern = r" [^|]+\. \| `(tests/[\w/]+\.py)::(test_\w+)` "
    assert [row for row in promises if not re.fullmatch(pattern, row)] == []
    named = re.findall(pattern, "\n".join(promises))
    assert len(named) == len(promises) > 40
    there = {file: re.findall(r"^def (test_\w+)\(", (ROOT / file).read_text(), re.MULTILINE) for file, _ in named}
    assert [test for file, test in named if test not in there[file]] == []


def test_the_tables_of_results_are_those_of_the_one_file():
    command = [sys.executable, str(ROOT / "tools" / "results.py"), "--check"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (result.stdout, result.returncode) == ("", 0)


@pytest.mark.parametrize(
    "page", ["README.md", *(f"docs/{name}.md" for name in ("explanation", "index", "library", "limits", "tutorial"))]
)
def test_figures_of_detection_on_a_page_come_from_the_one_file(page: str):
    """The page on detection itself has a log of what was tried, with figures of each trial."""
    with (ROOT / "docs" / "results.csv").open(encoding="utf-8") as file:
        known = {f"{float(value):.3f}" for row in csv.DictReader(file) for value in row.values() if _is_number(value)}
    decisions = re.search(
        "<!-- results: decisions -->(.*?)<!--", (ROOT / "docs" / "detection.md").read_text(encoding="utf-8"), re.DOTALL
    )
    assert decisions is not None
    known |= {f"0{figure}" for figure in re.findall(r"\.\d{3}\b", decisions[1])}
    quoted = re.findall(r"(?<![\d.])0?\.\d{3}\b", (ROOT / page).read_text(encoding="utf-8"))
    assert {f"0{figure}" if figure[0] == "." else figure for figure in quoted} <= known


def test_the_page_of_claims_gives_the_figures_that_gon_edge_has_in_the_one_file():
    with (ROOT / "docs" / "results.csv").open(encoding="utf-8") as file:
        ours = next(row for row in csv.DictReader(file) if row["method"] == "gon-edge")
    said = re.search(r"average\s+precision (\.\d+) .*?F1 (\.\d+) ", TEXT["docs/research/claims.md"], re.DOTALL)
    assert said is not None
    assert [f"0{figure}" for figure in said.groups()] == [f"{float(ours[key]):.3f}" for key in ("ap", "f1")]


def _is_number(text: str) -> bool:
    return re.fullmatch(r"\d+(\.\d+)?", text) is not None
