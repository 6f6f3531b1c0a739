#!/usr/bin/env bash
# One boot of a node: boot.sh NAME ROOT CGROUP NSPAWN-ARGUMENT...
# Runs in the foreground from power-on to the end of the boot. Exit code: that of systemd-nspawn, which is 133 when the
# machine asks for a reboot and 0 when it powers itself off. Killing this is a power failure.
set -euo pipefail
name=$1 root=$2 cgroup=$3
shift 3

# nspawn manages the cgroup that it starts in. "0" means the process that writes.
mkdir -p "$cgroup"
echo 0 >"$cgroup/cgroup.procs"

# It writes into every hierarchy that it finds and knows machines by files in /run: give it one of each for itself.
exec unshare --mount --propagation private bash -c '
    set -eu
    umount --recursive /sys/fs/cgroup
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    mkdir -p /run/systemd/nspawn
    mount -t tmpfs tmpfs /run/systemd/nspawn
    export SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1
    # --register=no --keep-unit: the machine that runs the tests need not have a systemd of its own.
    # The system calls are those that containerd and runc need.
    exec systemd-nspawn --quiet --boot --register=no --keep-unit --console=pipe --link-journal=no --resolv-conf=off \
        --capability=all --system-call-filter=@keyring --system-call-filter=bpf \
        --machine="$0" --directory="$1" --network-namespace-path="/run/netns/$0" "${@:2}" </dev/null
' "$name" "$root" "$@"
