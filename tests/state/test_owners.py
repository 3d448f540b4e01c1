"""Whose files are in the state directory when root has given a command: the service's, which must go on with them."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import tempfile
import traceback
from pathlib import Path

import numpy as np
import pytest

from gon_edge.commands.doctor import examine
from gon_edge.commands.main import main
from gon_edge.events import Row
from gon_edge.model.file import save_model
from gon_edge.process.files import adopt, give, make_folder
from gon_edge.state.folder import ModelFolder
from gon_edge.state.store import Store
from gon_edge.training.fit import fit_model

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root makes files of another user; type: root")

FEATURES = ("flow", "amps")


@pytest.fixture
def nobody():
    return pwd.getpwnam("nobody")


@pytest.fixture
def config(nobody, monkeypatch):
    """A configuration whose state directory belongs to nobody, in a folder that everybody may enter."""
    monkeypatch.setattr(examine, "unit_properties", dict)
    place = Path(tempfile.mkdtemp(prefix="gon-edge-owners-", dir="/tmp"))
    place.chmod(0o755)
    state = place / "state"
    state.mkdir()
    os.chown(state, nobody.pw_uid, nobody.pw_gid)
    told = {
        "mqtt": {"url": "mqtt://localhost:1"}, "subscriptions": [{"topic": "telemetry/{stream}"}],
        "state_dir": str(state), "http": {"listen": "off"},
        "retrain": {"memory_budget": "512MiB", "nice": 0},
    }  # fmt: skip
    (place / "config.yaml").write_text(json.dumps(told))
    yield place / "config.yaml"
    shutil.rmtree(place)


def foreign(folder, user):
    return [str(path) for path in (folder, *folder.rglob("*")) if path.lstat().st_uid != user.pw_uid]


def a_model():
    rows = np.random.default_rng(0).normal(size=(300, 2))
    return fit_model(rows, features=list(FEATURES), rng=np.random.default_rng(1)).with_lineage(version="1")


def test_what_root_imports_silences_answers_and_trains_belongs_to_the_owner_of_the_state_directory(
    config, nobody, capsys
):
    # The service could not replace a model that root had imported: each of its trainings failed, for ever.
    state = config.parent / "state"
    save_model(a_model(), config.parent / "model.npz")
    rows = np.random.default_rng(2).normal(size=(900, 2)).astype(np.float32)
    with Store.open(state) as store:
        for i, values in enumerate(rows):
            store.add_row(Row("pump", 1.7e9 + i, FEATURES, values, np.zeros(2, bool), False), False, 0.0)
        assert store.flush(1.0)
        assert foreign(state, nobody) == []  # the WAL too, while it is there
    given = ["--config", str(config)]
    assert main(["models", "import", "pump", str(config.parent / "model.npz"), *given]) == 0
    assert main(["silence", "add", "pump", "--for", "1h", *given]) == 0
    assert main(["accept", "pump", "--since", "5m", *given]) in (0, 3)
    capsys.readouterr()
    assert foreign(state, nobody) == []
    assert as_user(nobody, lambda: goes_on(state)) == 0


def goes_on(state):
    """What the service does after it: a silence kept, a model trained and put in use."""
    with Store.open(state) as store:
        store.put_state("silences", [])
        assert store.flush(1.0)
        assert store.last_error is None
    for name in ("training.lock", "models/pump/job.json"):
        with (state / name).open("ab"):
            pass
    ModelFolder(state).install("pump", a_model().with_lineage(version="99"))


def as_user(user, act):
    """Exit status of a process of that user that does it."""
    if not (pid := os.fork()):
        status = 1
        try:
            os.setgroups([])
            os.setresgid(user.pw_gid, user.pw_gid, user.pw_gid)
            os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)
            act()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_the_doctor_finds_what_is_root_s_and_mends_it_with_fix(config, nobody, capsys):
    state = config.parent / "state"
    (state / "models" / "pump").mkdir(parents=True)
    (state / "models" / "pump" / "model.npz").write_bytes(b"x")
    (state / "state.db").touch()
    (state / "holiday.jpg").touch()
    (state / "training.lock").symlink_to("/etc/hostname")

    def owners(*words):
        main(["doctor", "--json", *words, "--config", str(config)])
        return [f for f in json.loads(capsys.readouterr().out)["findings"] if f["check"] == "owners"]

    (found,) = owners()
    assert found["state"] == "fault"
    assert "of another user than nobody" in found["text"]
    assert "doctor --fix" in found["advice"]
    assert (state / "state.db").stat().st_uid == 0  # nothing is changed without being asked
    mended, left = owners("--fix")
    assert "given to nobody" in mended["text"]
    assert "holiday.jpg" in left["text"]  # is none of ours
    assert sorted(foreign(state, nobody)) == [str(state / "holiday.jpg"), str(state / "training.lock")]
    assert Path("/etc/hostname").stat().st_uid == 0
    (state / "holiday.jpg").unlink()
    assert owners() == []


def test_fix_gives_away_no_folder_that_is_no_state_directory(config, nobody, capsys):
    state = config.parent / "state"
    os.chown(state, 0, 0)
    (state / "passwd").touch()
    main(["doctor", "--fix", "--json", "--config", str(config)])
    assert (state.stat().st_uid, (state / "passwd").stat().st_uid) == (0, 0)


def test_a_link_that_another_user_has_put_there_gives_no_file_of_root_away(tmp_path, nobody):
    os.chown(tmp_path, nobody.pw_uid, nobody.pw_gid)
    secret = tmp_path.parent / f"{tmp_path.name}-secret"
    secret.touch()
    (tmp_path / "soft").symlink_to(secret)
    (tmp_path / "hard").hardlink_to(secret)
    for path in (tmp_path / "soft", tmp_path / "hard"):
        adopt(path)
        assert not give(path, nobody.pw_uid, nobody.pw_gid)
    assert secret.stat().st_uid == 0


def test_what_another_user_owns_is_not_taken_away_by_root_s_folder(tmp_path, nobody):
    (tmp_path / "theirs").touch()
    os.chown(tmp_path / "theirs", nobody.pw_uid, nobody.pw_gid)
    adopt(tmp_path / "theirs")
    assert (tmp_path / "theirs").stat().st_uid == nobody.pw_uid


def test_folders_made_on_the_way_belong_to_the_owner_of_the_first_that_was_there(tmp_path, nobody):
    os.chown(tmp_path, nobody.pw_uid, nobody.pw_gid)
    make_folder(tmp_path / "a" / "b")
    assert foreign(tmp_path, nobody) == []
