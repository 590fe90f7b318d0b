#!/bin/bash
# Runs the systemd of this machine as process 1 of namespaces of its own: boot_systemd.sh FOLDER GROUP, where FOLDER holds
# the units, `trial.target` among them, which is what is started. Nothing of the machine's /etc, /var/lib or /run is
# written to, and the control groups below its own are the only ones seen. Ends when it is killed.
set -eu
units=$1
groups=/sys/fs/cgroup
if [ -f "$groups/cgroup.controllers" ]; then trees=(""); else trees=(/systemd /memory /pids /cpu); fi
for tree in "${trees[@]}"; do
  mkdir -p "$groups$tree/$2"
  echo $$ > "$groups$tree/$2/cgroup.procs"
done
export units groups
# shellcheck disable=SC2016 # expanded by the inner shell
exec unshare --pid --fork --kill-child --mount --uts --ipc --cgroup --net bash -euc '
mount --make-rprivate /
mount -t tmpfs tmpfs /mnt
cp -r "$units" /mnt/units
if [ -f "$groups/cgroup.controllers" ]; then
  mount -t cgroup2 cgroup2 "$groups"
else
  mount -t tmpfs tmpfs "$groups"
  for controller in memory pids cpu; do mkdir "$groups/$controller"; mount -t cgroup -o "$controller" cgroup "$groups/$controller"; done
  mkdir "$groups/systemd"; mount -t cgroup -o none,name=systemd cgroup "$groups/systemd"
fi
# The only /proc there is, as on a machine: a covered one would be a second.
umount -R /proc
mount -t proc proc /proc
for place in /run /var/lib; do mount -t tmpfs tmpfs "$place"; done
mkdir -p /run/lock /run/systemd
mount --bind -o ro /etc /etc
mv /mnt/units /run/systemd/system
umount /mnt
python3 -c "import fcntl, socket, struct
s = socket.socket(); fcntl.ioctl(s, 0x8914, struct.pack(\"16sH14x\", b\"lo\", 1))"
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin container=trial /lib/systemd/systemd --system --unit=trial.target \
  --log-target=console --log-level=notice --show-status=no
'
