"""tests/ mirrors gon_edge/: what tests gon_edge/ROOM/NAME.py is found in tests/ROOM/test_NAME.py.

Besides the mirror there are tests/property (any input), tests/e2e (real servers), and files beside this one on what no
single module answers for: documents, deployment, imports, attacks, shipped models.
"""

from __future__ import annotations

from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
PACKAGE = TESTS.parent / "gon_edge"
NOT_ROOMS = {"property", "e2e"}

# Modules without a mirror: the file that tests them, and why it is not the mirror.
ELSEWHERE = {
    "__main__": ("commands/test_main.py", "starts it as a process"),
    "commands/arguments": ("commands/test_main.py", "options are tested with the commands that take them"),
    "commands/doctor/finding": ("commands/doctor/test_files.py", "a finding is what the checks say"),
    "commands/messages": ("commands/test_trial.py", "runs try as a shell does; listen is in e2e/test_listen.py"),
    "commands/scorefile": ("commands/test_data.py", "runs score as a shell does"),
    "config/secret": ("config/test_schema.py", "is read as an option that names a file"),
    "demo/command": ("e2e/test_demo.py", "runs it in a terminal"),
    "errors": ("test_docs.py", "compares exit codes with the reference, the help and the man page"),
    "events": ("stream/test_pipeline.py", "data without logic, which passes through here"),
    "fleet/command": ("e2e/test_fleet.py", "runs fleet up, status and view as a shell does"),
    "fleet/forward": ("fleet/test_worker.py", "hears at a real broker what it sends on"),
    "fleet/front": ("fleet/test_desk.py", "hears at a real broker what people say"),
    "fleet/outlet": ("fleet/test_worker.py", "is what a worker tells by"),
    "fleet/site": ("e2e/test_fleet.py", "is the fleet it runs"),
    "fleet/up": ("e2e/test_fleet.py", "runs fleet up as a shell does"),
    "fleet/series": ("fleet/test_partition.py", "data without logic, which partitions count in"),
    "stream/outcome": ("stream/test_stream.py", "data without logic, which streams give"),
    "links/mqtt/delivery": ("links/mqtt/test_limits.py", "delivers to a real mosquitto with limits"),
    "links/mqtt/lost": ("links/mqtt/test_connection.py", "words for what connections end by"),
    "links/mqtt/tls": ("links/mqtt/test_client.py", "is tested with a broker that has certificates"),
    "links/web/lobby": ("test_security.py", "is attacked by clients that never finish"),
    "links/snapshot": ("links/web/test_api.py", "data without logic, which is shown there"),
    "process/visible": ("commands/test_visible.py", "is held against what every command prints"),
    "research/gradcon": ("research/test_ganomaly.py", "is measured together with GANomaly"),
    "research/judge": ("research/test_images.py", "judges pictures"),
    "research/pictures": ("research/test_gon_digits.py", "draws what was trained there"),
    "research/reference_gon": ("research/test_protocol.py", "is measured by that protocol"),
    "research/rivals": ("research/test_gon_digits.py", "rivals of the picture GON"),
}

# Files of tests without a module: what they are about instead.
OTHERS = {
    "commands/test_completion.py": "tools/make_completion.py",
    "commands/test_visible.py": "gon_edge/commands/text.py",  # what each command makes of hostile names
    "commands/test_retrain.py": "gon_edge/commands/models.py",  # its half about training
    "links/mqtt/test_limits.py": "gon_edge/links/mqtt/delivery.py",
    "research/test_fetch_datasets.py": "tools/fetch_datasets.py",
    "research/test_results.py": "tools/results.py",
    "state/test_faults.py": "gon_edge/state/store.py",  # when the disk refuses
    "training/test_faults.py": "gon_edge/training/trainer.py",  # likewise
    "state/test_owners.py": "gon_edge/process/files.py",  # of what root makes in a state directory
    "tables/test_exports.py": "docs/files.md",
}


def modules() -> list[str]:
    """Every module as ROOM/NAME; a room's __init__ only names what it offers, and every peer passes the same checks."""
    found = (path.relative_to(PACKAGE).with_suffix("").as_posix() for path in PACKAGE.rglob("*.py"))
    return sorted(name for name in found if not name.endswith("__init__") and "research/peers/" not in name)


def mirror(module: str) -> Path:
    room, _, name = module.rpartition("/")
    return TESTS / room / f"test_{name}.py"


@pytest.mark.parametrize("module", modules())
def test_every_module_has_a_mirror_or_a_line_that_says_where_its_tests_are(module: str) -> None:
    assert mirror(module).exists() != (module in ELSEWHERE)


def test_every_line_is_about_a_module_and_names_tests_that_exist() -> None:
    assert set(ELSEWHERE) <= set(modules())
    assert [file for file, _ in ELSEWHERE.values() if not (TESTS / file).exists()] == []
    assert [page for page in OTHERS.values() if not (TESTS.parent / page).exists()] == []


def test_every_file_of_tests_in_a_room_is_the_mirror_of_a_module_or_of_a_whole_room() -> None:
    files = {path for path in TESTS.rglob("test_*.py") if path.parent != TESTS and path.parent.name not in NOT_ROOMS}
    files -= {mirror(module) for module in modules()}
    rooms = {path.parent for path in PACKAGE.rglob("__init__.py")}
    strangers = {
        file.relative_to(TESTS).as_posix()
        for file in files
        if PACKAGE / file.parent.relative_to(TESTS) / file.stem.removeprefix("test_") not in rooms
    }
    assert strangers == set(OTHERS)
