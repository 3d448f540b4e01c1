#!/bin/sh
# Certificates and passwords of a fleet, each made once and kept when they are there:
#
#   secrets.sh FOLDER
#   secrets.sh deploy/fleet
#
# FOLDER holds the files of deploy/fleet; everything goes to FOLDER/secrets.  Devices get secrets/certs/ca.crt, and a user
# each: mosquitto_passwd secrets/mosquitto/passwd pump-1.  For servers on machines of their own name these in NAMES.
set -eu
umask 077
[ $# -eq 1 ] || { sed -n '4,5p' "$0" | sed 's/^# *//' >&2; exit 2; }
here=$(dirname "$0")
to=$1/secrets
mkdir -p "$to/certs" "$to/mosquitto" "$to/worker"
[ ! -e "$to/ca.key" ] || mv "$to/ca.key" "$to/certs/ca.key"
USAGE=serverAuth,clientAuth "$here/../mosquitto/certificates.sh" "$to/certs" \
    ${NAMES:-nats-1 nats-2 nats-3 mosquitto localhost 127.0.0.1} >&2
# The authority's key signs; it must not lie where servers read.
[ ! -e "$to/certs/ca.key" ] || mv "$to/certs/ca.key" "$to/ca.key"

# A letter first: NATS would read digits as a number.
word() { printf p; od -An -tx1 -N24 /dev/urandom | tr -d ' \n'; }

if [ ! -e "$to/nats.env" ]; then
    for name in WORKER BRIDGE LOOK ADMIN CLUSTER; do
        echo "${name}_PASSWORD=$(word)"
    done >"$to/nats.env"
fi
. "$to/nats.env"
echo "$WORKER_PASSWORD" >"$to/worker/nats-password"
[ -e "$to/worker/mqtt-password" ] || word >"$to/worker/mqtt-password"
cp "$to/certs/ca.crt" "$to/worker/ca.crt"
[ -e "$to/fleet.yaml" ] || sed 's|listen: 127.0.0.1:9109|listen: 0.0.0.0:9109|' "$here/fleet.yaml" >"$to/fleet.yaml"
sed "s/CHANGE-ME/$BRIDGE_PASSWORD/" "$here/mosquitto-bridge.conf" >"$to/mosquitto/bridge.conf"
sed -e 's|^acl_file .*|acl_file /mosquitto/config/acl|' -e 's|^password_file .*|password_file /mosquitto/config/passwd|' \
    -e '/^max_queued/d' -e '/^max_inflight/d' "$here/../mosquitto/gon-edge.conf" >"$to/mosquitto/mosquitto.conf"
sed 's|^persistence_location .*|persistence_location /mosquitto/data/|' "$to/mosquitto/bridge.conf" \
    >>"$to/mosquitto/mosquitto.conf"
rm "$to/mosquitto/bridge.conf"
cat >"$to/mosquitto/acl" <<'ACL'
# Workers write what a daemon writes, in the fleet's name and their own, and hear what people say.
user fleet
topic write gon-edge/#
topic write homeassistant/#
topic read gon-edge/fleet/feedback
topic read gon-edge/fleet/homeassistant/#
# Whoever wants to be told, and `gon-edge fleet view`: reads everything, writes nothing.  Who may answer can have a fault
# learned as normal; allow it where mqtt.feedback is set.
user operator
topic read gon-edge/#
# topic write gon-edge/fleet/feedback
# A device writes its own telemetry.
pattern write telemetry/%u
ACL
touch "$to/mosquitto/passwd"
if command -v mosquitto_passwd >/dev/null; then
    mosquitto_passwd -b "$to/mosquitto/passwd" fleet "$(cat "$to/worker/mqtt-password")"
else
    echo "no mosquitto_passwd here; type: sudo apt install mosquitto, and call this again" >&2
    exit 1
fi
# The containers read them as users of their own; the folder keeps others out.
chmod 755 "$to/certs" "$to/mosquitto" "$to/worker"
chmod 644 "$to"/certs/* "$to"/mosquitto/* "$to"/worker/* "$to/fleet.yaml"
echo "$to: certs/ca.crt for devices; add one by: mosquitto_passwd $to/mosquitto/passwd NAME"
