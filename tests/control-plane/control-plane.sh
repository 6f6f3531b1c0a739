#!/usr/bin/env bash
# Makes the programs of a Kubernetes control plane available and prints the directory that holds them as its last line.
#
#   control-plane.sh [NAME...]     etcd kube-apiserver kube-controller-manager kube-scheduler kwok unless named;
#                                  kubelet and kubectl on request
#   control-plane.sh --print-dir   prints the directory, makes nothing
#   control-plane.sh --at-hand     makes nothing; succeeds where no program would have to be built
#
# Where a program NAME is found (the rule for everyone who uses them): the first executable of
#   1. $KUBEBUILDER_ASSETS/NAME, where that variable is set (the convention of the envtest tools);
#   2. DIR/NAME, where DIR is $CONTROL_PLANE_DIR, or else
#      ${XDG_CACHE_HOME:-$HOME/.cache}/reboot-operator/control-plane/kubernetes-V_etcd-V_kwok-V
#      with the versions V as go.mod beside this file requires them (v1.36.3 and so on).
# What neither has comes into DIR: downloaded, where checksums.txt pins the official file, else built from the modules.
# Every program is renamed to its place when it is complete, so an interrupted run loses only the one in work.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
say() { printf 'control-plane: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# The version that go.mod requires of module $1.
pin() { awk -v module="$1" '$1 == module { print $2; exit }' "$here/go.mod"; }
kubernetes=$(pin k8s.io/kubernetes) etcd=$(pin go.etcd.io/etcd/server/v3) kwok=$(pin sigs.k8s.io/kwok)

# Prints for program $1: its version, its Go package, its official release file.
facts() {
    local arch github=https://github.com
    arch=$(uname -m | sed 's/x86_64/amd64/; s/aarch64/arm64/')
    case $1 in
    etcd) echo "$etcd go.etcd.io/etcd/server/v3 $github/etcd-io/etcd/releases/download/$etcd/etcd-$etcd-linux-$arch.tar.gz" ;;
    kwok) echo "$kwok sigs.k8s.io/kwok/cmd/kwok $github/kubernetes-sigs/kwok/releases/download/$kwok/kwok-linux-$arch" ;;
    kube-apiserver | kube-controller-manager | kube-scheduler | kubelet | kubectl)
        echo "$kubernetes k8s.io/kubernetes/cmd/$1 https://dl.k8s.io/$kubernetes/bin/linux/$arch/$1" ;;
    *) die "unknown program '$1': etcd, kube-apiserver, kube-controller-manager, kube-scheduler, kwok, kubelet or kubectl" ;;
    esac
}

directory() {
    local versions=kubernetes-${kubernetes}_etcd-${etcd}_kwok-$kwok
    local dir=${CONTROL_PLANE_DIR:-${XDG_CACHE_HOME:-${HOME:?is not set}/.cache}/reboot-operator/control-plane/$versions}
    if [[ $dir == /* ]]; then echo "$dir"; else echo "$PWD/$dir"; fi
}

available() { [[ -x ${KUBEBUILDER_ASSETS:-/nowhere}/$1 || -x $dir/$1 ]]; }

# Says where program $1 was found; assets are used whatever their version, but a difference is worth knowing.
report() {
    local version asset=${KUBEBUILDER_ASSETS:-/nowhere}/$1 is='' note=''
    read -r version _ <<<"$(facts "$1")"
    if [[ ! -x $asset ]]; then say "$1 $version: already there"; return; fi
    is=$(timeout 10 "$asset" --version 2>&1) || true # kubectl has no such flag, and any will do
    [[ $1 == kubectl || " $is " == *[!0-9.]"${version#v}"[!0-9.]* ]] || note=", though not $version, which the tests are made for"
    say "$1: taken from KUBEBUILDER_ASSETS$note"
}

# Runs a command as a process group of its own, so that an interrupt ends all of it, and waits for it.
job=''
run() {
    set -m
    "$@" &
    job=$!
    set +m
    local status=0
    wait "$job" || status=$?
    job=''
    return "$status"
}
stop() {
    trap - EXIT INT TERM HUP
    if [[ -n $job ]]; then kill -TERM -- "-$job" && wait "$job"; fi 2>/dev/null || true
    rm -rf "$dir"/.part.*
    [[ $1 == 0 ]] || say "stopped; what was complete is kept in $dir, and the next run goes on from there"
    exit "$1"
}

why='' silent='' # why the last download was not to be; the hosts that did not answer
# True if $1 can be downloaded and checked, as far as one can know beforehand; else the reason is in `why`.
downloadable() {
    local host=${1#https://}
    host=${host%%/*}
    [[ -n $(checksum "$1") ]] || { why="no checksum of the official file is pinned"; return 1; }
    command -v curl >/dev/null || { why="no curl to download it with"; return 1; }
    if [[ " $silent " == *" $host "* ]] || ! curl -sIo /dev/null --max-time 3 "https://$host"; then
        silent+=" $host" why="$host did not answer within 3 s"
        return 1
    fi
}

# The pinned checksum of what is at $1; nothing where none is.
checksum() { awk -v url="$1" '$2 == url { print $1 }' "$here/checksums.txt"; }

# Downloads program $1 from $2 into file $3; fails, with the reason in `why`, unless what came has the pinned checksum.
download() {
    local name=$1 url=$2 out=$3
    downloadable "$url" || return 1
    say "$name: downloading $url"
    run curl -fsSL --proto =https --connect-timeout 3 --speed-time 20 --speed-limit 20000 --max-time 1800 -o "$out" "$url" ||
        { why="the download failed"; return 1; }
    sha256sum --check --status <<<"$(checksum "$url")  $out" || { why="WRONG CHECKSUM of $url, thrown away"; return 1; }
    [[ $url != *.tar.gz ]] || { mv "$out" "$out.tar.gz" && tar -xzOf "$out.tar.gz" --wildcards "*/$name" >"$out"; }
}

# Reads what `go build -v` says: counts fetched modules and compiled packages, passes on everything else.
progress() {
    local line status shown=$SECONDS began=$SECONDS modules=0 packages=0
    while true; do
        status=0
        IFS= read -r -t 10 line || status=$?
        ((status == 0 || status > 128)) || break # more than 128 is the time limit: linking says nothing for long
        case $status:$line in
        0:'go: downloading '*) modules=$((modules + 1)) ;;
        0:*' '*) say "$line" ;;
        0:*) packages=$((packages + 1)) ;;
        esac
        ((SECONDS - shown >= 10)) || continue
        shown=$SECONDS
        say "$1: $((SECONDS - began)) s, $modules modules fetched, $packages packages compiled"
    done
}

compile() {
    local name=$1 version=$2 package=$3 out=$4 link="-s -w" at=k8s.io/component-base/version minor
    if [[ $package == k8s.io/kubernetes/* ]]; then # without these, clients cannot parse the server's version
        minor=${version#v1.}
        link+=" -X $at.gitVersion=$version -X $at.gitMajor=1 -X $at.gitMinor=${minor%%.*} -X $at.gitTreeState=clean"
    fi
    mkdir -p "$out.tmp" # an interrupted Go leaves its temporary files behind
    CGO_ENABLED=0 GOWORK=off GOTMPDIR=$out.tmp go build -C "$here" -mod=readonly -v -trimpath -ldflags "$link" \
        -o "$out" "$package" 2>&1 | progress "$name"
}

# Makes program $1: a download if it may be, else a build.
make_one() {
    local name=$1 version package url began=$SECONDS part=$dir/.part.$1
    read -r version package url <<<"$(facts "$name")"
    if ! download "$name" "$url" "$part"; then
        say "$name $version: building from Go modules ($why)"
        command -v go >/dev/null || die "$name: that takes Go, and there is none ($(awk '$1 == "go"' "$here/go.mod") or newer)"
        run compile "$name" "$version" "$package" "$part" || die "$name: the build failed"
    fi
    chmod 755 "$part"
    mv "$part" "$dir/$name"
    say "$name $version: done after $((SECONDS - began)) s"
}

dir=$(directory)
if [[ ${1:-} == --print-dir ]]; then echo "$dir"; exit; fi
if [[ ${1:-} == --at-hand ]]; then
    for name in etcd kube-apiserver kube-controller-manager kube-scheduler kwok; do
        read -r _ _ url <<<"$(facts "$name")"
        available "$name" || downloadable "$url" || exit 1
    done
    exit
fi
[[ $# -gt 0 ]] || set -- etcd kube-apiserver kube-controller-manager kube-scheduler kwok

missing=() seconds=0
for name; do
    what=$(facts "$name")
    if available "$name"; then report "$name"; continue; fi
    missing+=("$name")
    # Measured on two cores: 30 s each, after 250 s for what the programs of Kubernetes have in common.
    [[ $what != *" k8s.io/"* ]] || ((seconds >= 250)) || seconds=$((seconds + 250))
    seconds=$((seconds + 30))
done
if [[ ${#missing[@]} -gt 0 ]]; then
    say "to be made in $dir: ${missing[*]}"
    minutes=$((seconds * 2 / $(nproc) / 60 + 1))
    say "a build takes about $minutes min on these $(nproc) cores and 4 GB of disk, less what Go has cached; safe to interrupt"
    mkdir -p "$dir"
    exec 9>"$dir/.lock"
    flock --nonblock 9 || say "waiting for another run that is making some"
    flock --timeout 3600 9 || die "the other run is still at work after an hour"
    trap 'stop $?' EXIT
    trap 'stop 130' INT TERM HUP
    for name in "${missing[@]}"; do available "$name" || make_one "$name"; done
fi
echo "$dir"
