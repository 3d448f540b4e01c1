#!/bin/sh
# Install gon-edge with pip, for systems that the Debian package is not for.  As root:
#
#   deploy/install.sh [--from FOLDER-OR-WHEEL] [--wheels FOLDER] [--no-start]
#   deploy/install.sh --uninstall [--purge]
#
# Makes a virtual environment in /opt/gon-edge, /usr/local/bin/gon-edge, the user gon-edge, the same units as the package
# (with the other path) and /etc/gon-edge/gon-edge.yaml.  Run again, it upgrades: configuration and models stay.
# --from is what to install (default: the checkout this script is in).  Its libraries are those of requirements.txt, each
# pinned by hash; --wheels takes them from a folder, without a network (pip download -r requirements.txt fills one).
# --uninstall leaves configuration and state, --purge takes them too.  Needs Python 3.11 to 3.14 with venv, systemd, and
# arm64 or x86-64.
set -eu

prefix=/opt/gon-edge
units=/etc/systemd/system
here=$(cd "$(dirname "$0")" && pwd)
source=$(dirname "$here")
wheels=
start=yes
action=install

usage() { sed -n '2,14p' "$0" | sed 's/^# \{0,1\}//'; }
fail() { echo "install.sh: $*" >&2; exit 1; }
has_systemd() { [ -d /run/systemd/system ]; }

while [ $# -gt 0 ]; do
    case $1 in
        --from) [ $# -ge 2 ] || fail "--from needs a folder or a wheel"; source=$2; shift ;;
        --wheels) [ $# -ge 2 ] || fail "--wheels needs a folder"; wheels=$2; shift ;;
        --no-start) start=no ;;
        --uninstall) action=uninstall ;;
        --purge) action=purge ;;
        -h | --help) usage; exit 0 ;;
        *) usage >&2; exit 2 ;;
    esac
    shift
done
[ "$(id -u)" = 0 ] || fail "needs root: sudo $0"

if [ "$action" != install ]; then
    if has_systemd; then
        systemctl disable --now gon-edge.service 2>/dev/null || true
    fi
    rm -f "$units/gon-edge.service" "$units/gon-edge-retrain@.service" "$units/gon-edge-retrain@.timer" \
        /usr/local/bin/gon-edge /etc/sysusers.d/gon-edge.conf
    rm -rf "$prefix"
    ! has_systemd || systemctl daemon-reload
    if [ "$action" = purge ]; then
        rm -rf /etc/gon-edge /var/lib/gon-edge
        echo "removed, with configuration and state; the user gon-edge stays: userdel gon-edge"
    else
        echo "removed; /etc/gon-edge and /var/lib/gon-edge stay (--purge removes them)"
    fi
    exit 0
fi

[ ! -e /usr/bin/gon-edge ] || fail "the Debian package is installed; remove it first: apt remove gon-edge"
python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail "needs Python 3.11 or later; name one: PYTHON=..."
"$python" -c 'import ensurepip, venv' || fail "$python cannot make virtual environments; apt install python3-venv"

echo "installing into $prefix"
[ -x "$prefix/bin/python" ] || "$python" -m venv "$prefix"
pip() { "$prefix/bin/python" -m pip "$@" --quiet --disable-pip-version-check; }
# What the index serves must be what was pinned, and nothing is built from source: that would load what is not.
pip install --require-hashes --no-deps --only-binary :all: ${wheels:+--no-index --find-links "$wheels"} \
    -r "$here/requirements.txt" || fail "no wheels of deploy/requirements.txt for $("$python" -VV) on $(uname -m)"
pip install --no-deps --no-index --no-build-isolation --force-reinstall "$source"
pip check
ln -sf "$prefix/bin/gon-edge" /usr/local/bin/gon-edge

install -D -m 644 "$here/sysusers.conf" /etc/sysusers.d/gon-edge.conf
if command -v systemd-sysusers >/dev/null; then
    systemd-sysusers /etc/sysusers.d/gon-edge.conf
elif ! id gon-edge >/dev/null 2>&1; then
    useradd --system --home-dir /var/lib/gon-edge --shell /usr/sbin/nologin gon-edge
fi
for unit in gon-edge.service gon-edge-retrain@.service gon-edge-retrain@.timer; do
    sed 's|/usr/bin/gon-edge|/usr/local/bin/gon-edge|' "$here/systemd/$unit" >"$units/$unit.new"
    mv "$units/$unit.new" "$units/$unit"
done
if [ -e /etc/gon-edge/gon-edge.yaml ]; then
    echo "/etc/gon-edge/gon-edge.yaml stays as it is"
else
    install -d -m 755 /etc/gon-edge
    # The name of the machine is the node.
    sed 's/^node: pi-1$/# node: auto/' "$here/../configs/gon-edge.yaml" >/etc/gon-edge/gon-edge.yaml
fi
gon-edge check-config /etc/gon-edge/gon-edge.yaml || # The unit may know a variable that this shell does not.
    echo "correct that, unless only the service has what is missing; then: systemctl restart gon-edge"
if has_systemd; then
    systemctl daemon-reload
    if [ "$start" = yes ]; then
        systemctl enable gon-edge.service
        systemctl restart gon-edge.service
        echo "gon-edge runs; gon-edge doctor says what is missing"
    fi
fi
