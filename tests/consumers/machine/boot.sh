# Makes the files of the machine out of those of the host, and becomes systemd. SHARED PROFILER PACKAGING
#
# What is written to: /run, /tmp, /home, /etc and /usr/bin in memory; /var in SHARED. The host's /proc is at /run/host/proc.
set -e
hostname profiler-test
stage="$1/stage"
mkdir -p "$stage" "$1/var/lib" "$1/var/log" "$1/var/tmp"
mount -t tmpfs tmpfs "$stage"
mkdir "$stage/proc" "$stage/bin" "$stage/units" "$stage/etc" "$stage/shared"
mount --rbind /proc "$stage/proc"
mount --bind /usr/bin "$stage/bin"
mount --bind /usr/lib/systemd/system "$stage/units"
mount --bind /etc "$stage/etc"
mount --bind "$1" "$stage/shared"
cp "$2" "$stage/profiler"
cp "$3/daemon.toml" "$3/profiler.service" "$stage"

mount -t tmpfs tmpfs /run
mkdir /run/host
mount --move "$stage" /run/host
mount -t tmpfs -o mode=1777 tmpfs /tmp
mount -t tmpfs tmpfs /home
mount --bind /run/host/shared/var /var
PATH=/run/host/bin:/usr/sbin:/sbin
mount -t tmpfs tmpfs /usr/bin
ln -s /run/host/bin/* /usr/bin/
rm -f /usr/bin/profiler
cp /run/host/profiler /usr/bin/profiler

mount -t tmpfs tmpfs /etc
for file in passwd group nsswitch.conf ld.so.cache; do cp "/run/host/etc/$file" /etc/; done
mkdir -p /etc/profiler /etc/systemd/system /etc/systemd/journald.conf.d
cp /run/host/daemon.toml /etc/profiler/
cp /run/host/profiler.service /etc/systemd/system/
# What the host's kernel says is not the machine's.
printf '[Journal]\nReadKMsg=no\n' > /etc/systemd/journald.conf.d/test.conf

# Of systemd's own units those alone that ours needs.
mount -t tmpfs tmpfs /usr/lib/systemd/system
for target in sysinit basic local-fs shutdown umount; do
    cp "/run/host/units/$target.target" /usr/lib/systemd/system/
done
cp /run/host/units/systemd-journald* /usr/lib/systemd/system/
printf '[Unit]\nDefaultDependencies=no\nWants=systemd-journald.service\n' > /etc/systemd/system/test.target

mount -t proc proc /proc
# systemd raises limits there when it starts, which are the host's.
mount --bind /proc/sys /proc/sys
mount -o remount,bind,ro /proc/sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mountpoint -q /sys/kernel/tracing || mount -t tracefs tracefs /sys/kernel/tracing
exec env -i container=profiler-test PATH=/usr/bin:/usr/sbin \
    /usr/lib/systemd/systemd --system --unit=test.target --log-target=null --show-status=no
