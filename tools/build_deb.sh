#!/usr/bin/env bash
# Build the Debian package:  tools/build_deb.sh OUT [WHEELS]
#
# OUT receives gon-edge_VERSION_all.deb.  What it brings along (deploy/debian/vendored.txt) comes from WHEELS where that
# is given, else from PyPI, and must have the hash written there.  Everything is built in a scratch folder, with times
# and modes set, so that two builds of one commit are the same file.  PYTHON is an interpreter that has pip.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
out=${1:?"usage: tools/build_deb.sh OUT [WHEELS]"}
wheels=${2:-}
python=${PYTHON:-python3}

for program in dpkg-buildpackage dh dh_python3; do
    command -v "$program" >/dev/null || {
        echo "$program is missing; type: sudo apt install dpkg-dev debhelper dh-python" >&2
        exit 1
    }
done

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
stage=$scratch/gon-edge
mkdir -p "$stage/deploy" "$stage/vendored" "$scratch/wheels" "$out"
out=$(cd "$out" && pwd)

cd "$root"
mkdir -p "$stage/models"
[ ! -d models ] || cp -R models/. "$stage/models/"
tar -c --exclude=__pycache__ --exclude=gon_edge/research gon_edge configs docs tools/make_manpages.py \
    deploy/systemd deploy/mosquitto deploy/sysusers.conf LICENSE README.md CHANGELOG.md | tar -x -C "$stage"
cp -R deploy/debian "$stage/debian"

"$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --require-hashes \
    ${wheels:+--no-index --find-links "$wheels"} --dest "$scratch/wheels" -r "$stage/debian/vendored.txt"
for wheel in "$scratch"/wheels/*.whl; do
    "$python" -m zipfile -e "$wheel" "$stage/vendored"
done

cd "$stage"
epoch=$(dpkg-parsechangelog -S Timestamp)
find . -exec touch --no-dereference --date="@$epoch" {} +
chmod -R u=rwX,go=rX .
# Only what any build needs: a setting of the caller could change the result.
env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME="$scratch" LC_ALL=C.UTF-8 SOURCE_DATE_EPOCH="$epoch" \
    dpkg-buildpackage --build=all --no-sign --no-check-builddeps >"$scratch/log" 2>&1 || {
    cat "$scratch/log" >&2
    exit 1
}
cp "$scratch"/gon-edge_*_all.deb "$out"
ls "$out"/gon-edge_*_all.deb
