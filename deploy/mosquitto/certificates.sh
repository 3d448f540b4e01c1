#!/bin/sh
# A certificate authority of your own, and a certificate for the broker:
#
#   certificates.sh FOLDER NAME [NAME-OR-ADDRESS...]
#   certificates.sh /etc/mosquitto/certs broker.home 192.168.1.10
#
# Devices and gon-edge get FOLDER/ca.crt, and must reach the broker by one of the names.  FOLDER/ca.key signs: keep it
# away from the broker once this is done.  Called again, it renews the broker's certificate and keeps the authority.
# DAYS (825 by default) is how long the broker's certificate lasts; the authority lasts ten years.  USAGE is what it may
# be shown for: serverAuth by default; serverAuth,clientAuth for servers that call each other, as those of NATS do.
set -eu
umask 077
[ $# -ge 2 ] || { sed -n '4,5p' "$0" | sed 's/^# *//' >&2; exit 2; }
folder=$1
name=$2
shift
mkdir -p "$folder"
names=
for one; do
    case $one in
        *:* | [0-9]*.[0-9]*.[0-9]*.[0-9]*) names="$names${names:+,}IP:$one" ;;
        *) names="$names${names:+,}DNS:$one" ;;
    esac
done
if [ ! -e "$folder/ca.key" ]; then
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj "/CN=gon-edge broker authority" \
        -addext keyUsage=critical,keyCertSign,cRLSign -keyout "$folder/ca.key" -out "$folder/ca.crt" 2>/dev/null
fi
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$name" -keyout "$folder/server.key.new" \
    -out "$folder/server.csr" 2>/dev/null
printf 'subjectAltName=%s\nextendedKeyUsage=%s\nbasicConstraints=CA:FALSE\n' "$names" "${USAGE:-serverAuth}" >"$folder/server.ext"
openssl x509 -req -in "$folder/server.csr" -CA "$folder/ca.crt" -CAkey "$folder/ca.key" -CAcreateserial -sha256 \
    -days "${DAYS:-825}" -extfile "$folder/server.ext" -out "$folder/server.crt.new" 2>/dev/null
mv "$folder/server.key.new" "$folder/server.key"
mv "$folder/server.crt.new" "$folder/server.crt"
rm "$folder/server.csr" "$folder/server.ext"
chmod 644 "$folder/ca.crt" "$folder/server.crt"
# mosquitto reads its key as the user mosquitto.
if id mosquitto >/dev/null 2>&1 && [ "$(id -u)" = 0 ]; then
    chown mosquitto "$folder/server.key"
    chmod 755 "$folder"
fi
echo "$folder: ca.crt for clients; server.crt and server.key for the broker, names $names"
