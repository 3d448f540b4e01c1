"""The units and the package: what they promise can be checked without installing them."""

from __future__ import annotations

import configparser
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from e2e.servers import require
from packaging.requirements import Requirement

import gon_edge
from gon_edge.commands.arguments import commands_in
from gon_edge.commands.main import build_parser
from gon_edge.config.file import load_config

ROOT = Path(__file__).resolve().parents[1]
UNITS = ROOT / "deploy" / "systemd"
SERVICES = [*sorted(UNITS.glob("*.service")), ROOT / "deploy" / "fleet" / "gon-edge-fleet@.service"]

services = pytest.mark.parametrize("unit", SERVICES, ids=lambda unit: unit.name)


def settings(unit: Path) -> dict[str, list[str]]:
    """Every setting of a unit with its values, sections apart from each other ignored."""
    found: dict[str, list[str]] = {}
    for line in unit.read_text().splitlines():
        if (match := re.fullmatch(r"(\w+)=(.*)", line)) is not None:
            found.setdefault(match[1], []).append(match[2])
    return found


@services
def test_units_hold_no_mistake_that_systemd_would_find(unit, tmp_path):
    program = require("systemd-analyze")
    copy = tmp_path / unit.name
    copy.write_text(re.sub(r"/usr/bin/gon-edge\b", "/bin/true", unit.read_text()))
    for timer in UNITS.glob("*.timer"):
        (tmp_path / timer.name).write_text(timer.read_text())
    checked = subprocess.run([program, "verify", "--man=no", str(copy)], capture_output=True, text=True)
    ours = [line for line in checked.stderr.splitlines() if "gon-edge" in line]
    assert (checked.returncode, ours) == (0, [])


@services
def test_units_are_sandboxed_to_an_exposure_of_2_0_or_better(unit):
    program = require("systemd-analyze")
    command = [program, "security", "--offline=true", "--threshold=20", "--no-pager", str(unit)]
    judged = subprocess.run(command, capture_output=True, text=True)
    assert judged.returncode == 0, judged.stdout


def test_a_wrong_configuration_is_not_restarted_and_a_reload_is_a_signal():
    service = settings(UNITS / "gon-edge.service")
    assert service["RestartPreventExitStatus"] == ["78"]
    assert service["ExecReload"] == ["/bin/kill -HUP $MAINPID"]
    assert (service["Type"], service["OOMPolicy"]) == (["notify"], ["continue"])


def test_the_start_waits_for_no_network():
    # network-online.target held it back for two minutes where there was none.
    assert "network-online.target" not in " ".join(
        value
        for key, values in settings(UNITS / "gon-edge.service").items()
        if key != "Description"
        for value in values
    )


@services
def test_the_commands_in_units_are_understood(unit):
    (command,) = settings(unit)["ExecStart"]
    words = command.replace("%I", "pump").split()
    assert words[0] == "/usr/bin/gon-edge"
    assert callable(build_parser().parse_args(words[1:]).command)


def test_the_package_has_the_version_of_the_program():
    first = (ROOT / "deploy" / "debian" / "changelog").read_text().splitlines()[0]
    assert re.match(r"gon-edge \(([^)]+)\)", first)[1] == gon_edge.__version__


def test_what_the_package_brings_along_is_pinned_by_hash():
    lines = (ROOT / "deploy" / "debian" / "vendored.txt").read_text().splitlines()
    pinned = [line for line in lines if line and not line.startswith("#")]
    assert pinned
    assert all(re.fullmatch(r"[\w-]+==[\d.]+ --hash=sha256:[0-9a-f]{64}", line) for line in pinned)


def test_every_command_has_a_man_page_that_names_its_options(tmp_path):
    subprocess.run([sys.executable, ROOT / "tools" / "make_manpages.py", tmp_path], check=True, capture_output=True)
    for name, (command, _) in commands_in(build_parser()).items():
        page = (tmp_path / f"gon-edge-{name}.1").read_text().replace("\\-", "-")
        for action in command._actions:
            assert all(option in page for option in action.option_strings)
        assert not re.search(r"^'", page, re.MULTILINE)  # roff would take the line for a request


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """The package, built twice; the folder it unpacks to as well."""
    require("dh")
    require("dpkg-deb")
    folder = tmp_path_factory.mktemp("deb")
    source = folder / "source"
    left_out = shutil.ignore_patterns("__pycache__", ".*", "*.egg-info", "*.whl", "tests", "build", "dist")
    shutil.copytree(ROOT, source, ignore=left_out)
    environ = {**os.environ, "PYTHON": sys.executable}
    builds = []
    for name, umask in (("first", "077"), ("a/second", "022")):
        # Another folder, umask, terminal and other times of files: none of them may matter.
        shutil.copytree(source, folder / name, copy_function=shutil.copyfile)
        command = (
            f"umask {umask}; COLUMNS={len(name) * 10} bash '{folder}/{name}/tools/build_deb.sh' '{folder}/{name}/out'"
        )
        said = subprocess.PIPE, subprocess.STDOUT
        builds.append(subprocess.Popen(["bash", "-c", command], env=environ, stdout=said[0], stderr=said[1], text=True))
    for build in builds:  # side by side: half of their time they wait
        words = build.communicate()[0]
        assert build.returncode == 0, words
    built = [*folder.glob("first/out/*.deb"), *folder.glob("a/second/out/*.deb")]
    subprocess.run(["dpkg-deb", "-R", built[0], folder / "tree"], check=True)
    return built, folder / "tree"


@pytest.mark.e2e
@pytest.mark.slow  # two builds of the package
def test_two_builds_are_the_same_file(package):
    built, _ = package
    assert len(built) == 2
    assert len({hashlib.sha256(deb.read_bytes()).hexdigest() for deb in built}) == 1


@pytest.mark.e2e
@pytest.mark.slow  # two builds of the package
def test_the_package_holds_what_a_service_needs(package):
    _, tree = package
    files = {path.relative_to(tree).as_posix() for path in tree.rglob("*") if path.is_file()}
    assert {
        "usr/bin/gon-edge",
        "etc/gon-edge/gon-edge.yaml",
        "lib/systemd/system/gon-edge.service",
        "lib/systemd/system/gon-edge-retrain@.service",
        "lib/systemd/system/gon-edge-retrain@.timer",
        "usr/lib/sysusers.d/gon-edge.conf",
        "usr/share/bash-completion/completions/gon-edge",
        "usr/share/zsh/vendor-completions/_gon-edge",
        "usr/share/fish/vendor_completions.d/gon-edge.fish",
        "usr/share/gon-edge/python/gon_edge/links/web/static/index.html",
        "usr/share/man/man1/gon-edge-run.1.gz",
    } <= files
    models = {path.name for path in (ROOT / "models").glob("*.npz")}
    assert {Path(file).name for file in files if file.startswith("usr/share/gon-edge/models/")} >= models
    assert not [file for file in files if "research" in file or file.endswith(".pyc")]
    assert (tree / "DEBIAN" / "conffiles").read_text().split() == ["/etc/gon-edge/gon-edge.yaml"]


@pytest.mark.e2e
@pytest.mark.slow  # two builds of the package
def test_the_installed_configuration_is_valid_and_takes_its_name_from_the_machine(package, monkeypatch):
    _, tree = package
    monkeypatch.setattr("socket.gethostname", lambda: "cellar")
    config = load_config(tree / "etc" / "gon-edge" / "gon-edge.yaml")
    assert (config.node, str(config.state_dir)) == ("cellar", "/var/lib/gon-edge")


@pytest.mark.e2e
@pytest.mark.slow  # two builds of the package
def test_the_launcher_takes_no_code_from_its_surroundings(package, tmp_path):
    _, tree = package
    launcher = tmp_path / "gon-edge"
    text = (tree / "usr" / "bin" / "gon-edge").read_text()
    assert re.match(r"#! ?/usr/bin/python3 -IXfaulthandler\n", text)
    private = tree / "usr" / "share" / "gon-edge" / "python"
    launcher.write_text(text.replace("/usr/share/gon-edge/python", str(private)))
    (tmp_path / "json.py").write_text("raise SystemExit('code from the working directory')")
    environ = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-IXfaulthandler", str(launcher), "version", "--json"]
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True)
    assert json.loads(done.stdout)["version"] == gon_edge.__version__, done.stderr


def compose(folder: str = "") -> dict[str, dict[str, object]]:
    text = (ROOT / "deploy" / folder / "compose.yaml").read_text()
    services: dict[str, dict[str, object]] = yaml.safe_load(text)["services"]
    return services


@pytest.mark.parametrize(("folder", "name"), [(folder, name) for folder in ("", "fleet") for name in compose(folder)])
def test_containers_are_read_only_without_rights_and_with_a_limit(folder, name):
    service = compose(folder)[name]
    assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "mem_limit" in service
    assert service["image"] == "gon-edge" or re.search(r":v?\d+\.\d+\.\d+(-alpine)?$", str(service["image"]))


def test_containers_mount_files_that_are_there():
    mounts = [mount.split(":") for service in compose().values() for mount in service["volumes"]]
    files = [(ROOT / "deploy" / source, mode) for source, _, *mode in mounts if source.startswith(".")]
    assert len(files) > 5
    assert all(path.exists() and mode == ["ro"] for path, mode in files)
    assert load_config(ROOT / "deploy" / "compose" / "gon-edge.yaml").http.host == "127.0.0.1"


def test_the_bill_of_materials_names_everything_that_is_pinned_and_is_the_same_twice(tmp_path):
    for name in ("one", "two"):
        command = [sys.executable, ROOT / "tools" / "make_sbom.py", tmp_path / name]
        subprocess.run(command, check=True, capture_output=True)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    bill = json.loads((tmp_path / "one").read_text())
    listed = {(component["name"], component.get("version")) for component in bill["components"]}
    for file in ("debian/vendored.txt", "container/requirements.txt", "requirements.txt"):
        pinned = set(re.findall(r"^([\w-]+)==([\d.]+)", (ROOT / "deploy" / file).read_text(), re.MULTILINE))
        assert {(name, version) for name, version in pinned if name not in ("pip", "setuptools")} <= listed
    assert {"python3", "python3-numpy"} <= {name for name, _ in listed}
    assert all(component["licenses"] for component in bill["components"])


def test_the_maker_of_the_bill_of_materials_explains_itself(tmp_path):
    # It wrote the bill into a file called --help.
    command = [sys.executable, ROOT / "tools" / "make_sbom.py", "--help"]
    shown = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    assert "bill of materials" in shown.stdout
    assert list(tmp_path.iterdir()) == []


def test_the_documentation_lists_the_licence_of_everything_a_user_may_install():
    wanted = configparser.ConfigParser()
    wanted.read(ROOT / "setup.cfg")
    extras = wanted["options.extras_require"]
    needed = wanted["options"]["install_requires"] + "".join(
        extras[name] for name in ("cbor", "msgpack", "demo", "fleet", "plot", "systemd")
    )
    page = (ROOT / "docs" / "security.md").read_text()
    listed = dict(re.findall(r"^\| ([\w-]+) \| ([^|]+) \|", page, re.MULTILINE))
    assert set(re.findall(r"^([\w-]+)", needed, re.MULTILINE)) <= listed.keys()
    spec = importlib.util.spec_from_file_location("make_sbom", ROOT / "tools" / "make_sbom.py")
    make_sbom = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_sbom)
    libraries = {name: licence for name, licence in make_sbom.LICENSES.items() if not name.startswith("python3")}
    assert libraries.items() <= listed.items()


def test_the_image_has_the_packages_that_pip_would_install():
    wanted = configparser.ConfigParser()
    wanted.read(ROOT / "setup.cfg")
    extras = wanted["options.extras_require"]
    needed = wanted["options"]["install_requires"] + extras["cbor"] + extras["msgpack"]
    names = set(re.findall(r"^([\w-]+)", needed, re.MULTILINE))
    pinned = (ROOT / "deploy" / "container" / "requirements.txt").read_text()
    # Of a fleet the client alone: the servers have images of their own.
    assert set(re.findall(r"^([\w-]+)==", pinned, re.MULTILINE)) == names | {"pip", "nats-py"}


def test_the_image_runs_without_the_experiments(tmp_path):
    spec = importlib.util.spec_from_file_location("assemble", ROOT / "deploy" / "container" / "assemble.py")
    assemble = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(assemble)
    shutil.copytree(ROOT / "gon_edge", tmp_path / "gon_edge", ignore=assemble.LEFT_OUT)
    assert not (tmp_path / "gon_edge" / "research").exists()
    environ = {**os.environ, "PYTHONPATH": str(tmp_path)}
    for words in (["demo", "--help"], ["completion", "fish"], ["top", "--help"]):
        subprocess.run(
            [sys.executable, "-m", "gon_edge", *words], cwd=tmp_path, env=environ, check=True, stdout=subprocess.DEVNULL
        )


def pinned_files(file):
    text = (ROOT / "deploy" / file).read_text().replace("\\\n", " ")
    found = re.findall(r"^([\w-]+)==(\S+)(.*)$", text, re.MULTILINE)
    return {name: (version, set(re.findall(r"--hash=sha256:([0-9a-f]{64})", rest))) for name, version, rest in found}


def test_install_sh_installs_what_is_pinned_by_hash_and_within_the_bounds_of_the_package():
    wanted = configparser.ConfigParser()
    wanted.read(ROOT / "setup.cfg")
    pinned, image = pinned_files("requirements.txt"), pinned_files("container/requirements.txt")
    for requirement in map(Requirement, wanted["options"]["install_requires"].split("\n")[1:]):
        if not requirement.name:
            continue
        version, hashes = pinned[requirement.name]
        assert requirement.specifier.contains(version), requirement
        assert any(bound.operator == "<" for bound in requirement.specifier), requirement
        # The same version as in the image, and its wheels for arm64 and x86-64 among those that may be installed.
        assert image[requirement.name][0] == version
        assert image[requirement.name][1] <= hashes
    assert all(hashes for _, hashes in pinned.values())
    script = (ROOT / "deploy" / "install.sh").read_text()
    installs = re.findall(r"^ *pip install .*(?:\\\n.*)*", script, re.MULTILINE)
    assert len(installs) == 2
    assert all("--require-hashes" in one or "--no-index" in one for one in installs)
    assert all("--no-deps" in one for one in installs)


@pytest.mark.slow  # loads 20 MB from the index
def test_what_install_sh_pins_installs_and_runs_here(tmp_path):
    script = (ROOT / "deploy" / "install.sh").read_text()
    begin, end = script.index('[ -x "$prefix/bin/python" ]'), script.index("ln -sf")
    lines = (
        f"set -eu\nprefix={tmp_path}/venv here={ROOT}/deploy source={tmp_path}/source python={sys.executable} wheels=\n"
    )
    lines += 'fail() { echo "$*" >&2; exit 1; }\n' + script[begin:end]
    shutil.copytree(
        ROOT, tmp_path / "source", ignore=shutil.ignore_patterns(".git", "tests", "docs", "build", "*.egg-info", ".*")
    )
    done = subprocess.run(["sh", "-c", lines], capture_output=True, text=True, check=False)
    if "No matching distribution" in done.stderr or "Could not find" in done.stderr:
        pytest.skip("no package index answers here; type: pip download numpy")
    assert done.returncode == 0, done.stderr
    shown = subprocess.run(
        [tmp_path / "venv" / "bin" / "gon-edge", "version", "--json"], capture_output=True, text=True
    )
    assert json.loads(shown.stdout)["libraries"]["numpy"] == pinned_files("requirements.txt")["numpy"][0]


def test_install_sh_explains_itself_and_refuses_what_it_does_not_know():
    script = ROOT / "deploy" / "install.sh"
    shown = subprocess.run([script, "--help"], capture_output=True, text=True)
    assert (shown.returncode, "--uninstall [--purge]" in shown.stdout) == (0, True)
    refused = subprocess.run([script, "--unknown"], capture_output=True, text=True)
    assert (refused.returncode, "--uninstall" in refused.stderr) == (2, True)
