#!/usr/bin/env bash
# Makes what the nodes of the tests boot from, and prints its directory as the last line.
#
#   root-file-system.sh               makes it, unless it is there
#   root-file-system.sh --print-dir   prints the directory, makes nothing
#
# The directory is $NODE_ROOT, or else ${XDG_CACHE_HOME:-$HOME/.cache}/reboot-operator/node/debian-SUITE-N, where N is
# raised below when the packages change. It holds packages of the distribution and nothing of this project: that comes
# on top when a node boots (files/ beside this script).
set -euo pipefail

suite=bookworm version=1
packages=systemd,systemd-sysv,dbus,libpam-systemd,iproute2,iptables,kmod,containerd,runc,containernetworking-plugins,busybox-static

say() { printf 'node: %s\n' "$*" >&2; }
dir=${NODE_ROOT:-${XDG_CACHE_HOME:-${HOME:?is not set}/.cache}/reboot-operator/node/debian-$suite-$version}
if [[ ${1:-} == --print-dir ]]; then echo "$dir"; exit; fi
if [[ -d $dir ]]; then say "the root file system is there"; echo "$dir"; exit; fi

[[ $(id -u) == 0 ]] || { say "making a root file system takes root"; exit 1; }
mkdir -p "$(dirname "$dir")"
exec 9>"$dir.lock"
flock --nonblock 9 || say "waiting for another run that is making it"
flock --timeout 1800 9
if [[ -d $dir ]]; then echo "$dir"; exit; fi

began=$SECONDS part=$dir.part
trap 'rm -rf "$part"' EXIT
rm -rf "$part"
say "making a root file system of Debian packages in $dir: half a minute, and 370 MB of disk"
mmdebstrap --quiet --variant=minbase --include="$packages" "$suite" "$part" >&2
# A machine is called what it is started as, and asks no DNS: kubelet would wait 20 s for it.
rm -f "$part/etc/hostname"
: >"$part/etc/resolv.conf"
mv "$part" "$dir"
trap - EXIT
say "done after $((SECONDS - began)) s"
echo "$dir"
