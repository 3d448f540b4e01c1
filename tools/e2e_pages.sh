#!/usr/bin/env bash
# Attack the daemon on an emulated arm64 machine with pages of 16 KiB, as a Raspberry Pi 5 has them, and with control
# groups of version 2, in which it has the memory limits of its unit.
#
#   tools/e2e_pages.sh [FOLDER]        # FOLDER keeps what was loaded (build/pages)
#
# A Debian 13 is unpacked without being installed and is the kernel's initramfs, so that no root, disk or foreign binary
# is needed here.  Needs apt, qemu-system-arm, cpio and a Python with paho-mqtt and prometheus-client; ten minutes on an
# idle machine, most of them `tools/soak.py --random --trained 2`, whose report is printed.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
MINUTES=${MINUTES:-5}
SEED=${SEED:-3}
mkdir -p "${1:-build/pages}"
work=$(cd "${1:-build/pages}" && pwd)
root=$work/root

packages=(bash busybox-static coreutils iproute2 libblas3 liblapack3 mosquitto mosquitto-clients python3 python3-numpy
          python3-psutil python3-rich python3-yaml)
mkdir -p "$work"/lists/partial "$work"/cache/archives/partial
: > "$work/status"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian trixie main" > "$work/sources.list"
apt=(apt-get -qy -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o APT::Install-Recommends=false -o Debug::NoLocking=1
     -o Dir::State="$work" -o Dir::State::Lists="$work/lists" -o Dir::State::status="$work/status" -o Dir::Cache="$work/cache"
     -o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=/dev/null -o Dir::Etc::preferencesparts=/dev/null
     -o Dir::Etc::main=/dev/null -o Dir::Etc::parts=/dev/null -o Acquire::Languages=none -o APT::Sandbox::User="$(id -un)")
"${apt[@]}" update
"${apt[@]}" install --download-only "${packages[@]}"
kernel=$(apt-cache "${apt[@]:2}" depends linux-image-arm64-16k | sed -n 's/.*Depends: //p' | head -n 1)
(cd "$work" && "${apt[@]}" download "$kernel")

rm -rf "$root" "$work/kernel"
mkdir -p "$root"/usr/{bin,lib,sbin} "$root"/{proc,sys,dev,tmp,run,etc,root} "$root"/opt/{lib,gon-edge} "$root/var/tmp"
for folder in bin lib sbin; do ln -s "usr/$folder" "$root/$folder"; done
for package in "$work"/cache/archives/*.deb; do
    dpkg-deb --fsys-tarfile "$package" | tar -x --keep-directory-symlink --no-same-owner -C "$root" \
        --exclude=./usr/share/doc --exclude=./usr/share/man --exclude=./usr/share/locale
done
dpkg-deb -x "$work/$kernel"_*.deb "$work/kernel"
find "$work/kernel" -name 'veth.ko*' -exec cp {} "$root/" \;
for name in mount umount insmod; do ln -sf busybox "$root/usr/bin/$name"; done
ln -sf bash "$root/usr/bin/sh"
printf 'root:x:0:0::/root:/bin/sh\nmosquitto:x:100:100::/:/bin/false\n' > "$root/etc/passwd"
printf 'root:x:0:\nmosquitto:x:100:\n' > "$root/etc/group"
echo "127.0.0.1 localhost" > "$root/etc/hosts"
# What Debian 13 has in other versions, and pure Python.
"$PYTHON" -c 'import paho, prometheus_client; print(*paho.__path__, *prometheus_client.__path__, sep="\n")' \
    | while read -r library; do cp -r "$library" "$root/opt/lib/"; done
git ls-files -z gon_edge tools tests/golden deploy/systemd models | xargs -0 cp --parents -t "$root/opt/gon-edge"
cat > "$root/init" <<'INIT'
#!/bin/sh
export PATH=/usr/sbin:/usr/bin HOME=/root LC_ALL=C PYTHONUTF8=1 OPENBLAS_NUM_THREADS=1 PYTHONPATH=/opt/lib:/opt/gon-edge
export LD_LIBRARY_PATH=/usr/lib/aarch64-linux-gnu/blas:/usr/lib/aarch64-linux-gnu/lapack
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t tmpfs tmp /tmp; mount -t tmpfs run /run
mount -t devtmpfs dev /dev 2> /dev/null
mkdir -p /dev/shm; mount -t tmpfs shm /dev/shm
mount -t cgroup2 groups /sys/fs/cgroup; echo +memory > /sys/fs/cgroup/cgroup.subtree_control
insmod /veth.ko*; ip link set lo up
cd /opt/gon-edge
python3 -c 'import os, platform; print("pages of", os.sysconf("SC_PAGESIZE"), "bytes on", platform.machine())'
read -r minutes seed < /job
python3 tools/soak.py --random --trained 2 --minutes "$minutes" --seed "$seed" --report /tmp/report.md
status=$?
cat /tmp/report.md
echo "exit status $status"
echo o > /proc/sysrq-trigger
sleep 60
INIT
chmod +x "$root/init"
echo "$MINUTES $SEED" > "$root/job"
(cd "$root" && find . | cpio --quiet -o -H newc) > "$work/root.cpio"

timeout 3600 qemu-system-aarch64 -accel tcg,thread=multi -M virt -cpu max,pauth-impdef=on -smp 2 -m 2048 -nographic -no-reboot \
    -kernel "$work"/kernel/boot/vmlinuz-* -initrd "$work/root.cpio" -append "rdinit=/init console=ttyAMA0 quiet panic=-1" \
    -nic none < /dev/null | tee "$work/console.log"
grep -q "^pages of 16384 bytes on aarch64" "$work/console.log"
grep -q "^exit status 0" "$work/console.log"
