#!/bin/busybox sh
# Process 1 of the machine. The first root is copied to a tmpfs and left, since pivot_root(2) is refused on it; then
# `vm.start` runs what was asked for, and the machine is switched off. The console is ttyS0, the answer goes to ttyS1.
if [ "$1" != again ]; then
  busybox mount -t tmpfs -o mode=755,size=80% root /newroot
  for entry in /*; do
    [ "$entry" = /newroot ] || busybox cp -a "$entry" /newroot/
  done
  exec busybox switch_root /newroot /init again
fi
mount -t devtmpfs dev /dev
exec </dev/console >/dev/console 2>&1
mkdir -p /dev/shm /dev/pts /newroot
mount -t tmpfs shm /dev/shm
mount -t devpts pts /dev/pts
mkdir -p /dev/mqueue
mount -t mqueue mqueue /dev/mqueue
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t cgroup2 -o nosuid,nodev,noexec cgroup /sys/fs/cgroup
ip link set lo up
insmod /modules/loop.ko
truncate -s 256M /disk
mke2fs -F /disk >/dev/null
mount -t ext4 -o loop /disk /tmp
chmod 1777 /tmp
cd /repository
PYTHONPATH=/repository:/repository/tests python3 -X utf8 -m vm.start
poweroff -f
