# Becomes a machine of its own: namespaces, a control group. SHARED PROFILER PACKAGING
set -e
cgroups=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/self/mounts)
cgroup="$cgroups/profiler-test-$$"
mkdir "$cgroup"
echo $$ > "$cgroup/cgroup.procs"
echo "$cgroup" > "$1/cgroup"
exec unshare --cgroup --mount --uts --ipc --net --pid --fork --kill-child sh "$1/boot.sh" "$@"
