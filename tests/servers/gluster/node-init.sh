#!/bin/sh
# Process 1 of a node: makes its private root, mounts its bricks, then only reaps orphans.
#   node-init.sh DIRECTORY NODE
set -eu
base=$1 node=$2
home=$base/n$node root=$base/n$node/root
# /proc is still the machine's here, so this is our process id as the machine sees it.
read -r outer _ </proc/self/stat

# The root file system alone: other mounts of the machine are not held by the node.
mount --bind / "$root"
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount -t tmpfs -o mode=755 run "$root/run"
mkdir -p "$root/run/gluster" "$root/run/lock"
mkdir -p "$root$base"
mount --bind "$base" "$root$base"
mount --bind "$home/lib" "$root/var/lib/glusterd"
mount --bind "$home/log" "$root/var/log/glusterfs"
mount --bind "$home/heketi" "$root/var/lib/heketi"
# Without names glusterd cannot look peers up by them, and without a server it does not wait for one.
mount --bind "$base/hosts" "$root/etc/hosts"
mount --bind "$base/resolv.conf" "$root/etc/resolv.conf"
# glusterd runs the tool of geo-replication some twenty times at its start, which takes seconds.
for tool in "$root"/usr/lib/*/glusterfs/gsyncd "$root"/usr/libexec/glusterfs/gsyncd; do
    [ ! -e "$tool" ] || mount --bind "$base/gsyncd" "$tool"
done
cd "$root"
pivot_root . .
umount -l .
cd /
hostname "gluster-node-$node"
mount -a -T /var/lib/heketi/fstab || :
echo "$outer" >"$home/init.pid.new"
mv "$home/init.pid.new" "$home/init.pid"
sleep infinity &
wait
