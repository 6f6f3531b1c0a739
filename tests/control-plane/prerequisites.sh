#!/usr/bin/env bash
# Checks that the named programs are there: prerequisites.sh cc c++ go dbus-daemon kubectl systemd-nspawn ...
# What is missing is installed where the system has apt-get or dnf and the user is root; INSTALL=no forbids that. What is
# then still missing is named with the package to install, and the exit code is 1.
# kubectl, which few distributions have, counts as present in PATH or beside the control plane, and is else made there.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
PATH=$PATH:/usr/sbin:/sbin # where some distributions keep `ip` from ordinary users
say() { printf 'prerequisites: %s\n' "$*" >&2; }

go_wanted=$(awk '$1 == "go" { print $2; exit }' "$here/go.mod")
go_fetches=1.21 # from here on, a Go command fetches the newer one that go.mod asks for as a module

# True if version $1 is at least version $2.
at_least() { printf '%s\n%s\n' "$2" "$1" | sort --version-sort --check=quiet; }

# True if the Go command can build the modules: it is new enough, or new enough to fetch a newer one and allowed to.
go_suffices() {
    local version
    command -v go >/dev/null || return 1
    version=$(cd / && GOTOOLCHAIN=local go env GOVERSION) || return 1
    version=${version#go} version=${version%%[!0-9.]*}
    at_least "$version" "$go_wanted" && return
    at_least "$version" "$go_fetches" && [[ $(cd / && go env GOTOOLCHAIN) != local ]]
}

present() {
    case $1 in
    go) go_suffices ;;
    kubectl) command -v kubectl >/dev/null || [[ -x ${KUBEBUILDER_ASSETS:-/nowhere}/kubectl || -x $("$here/control-plane.sh" --print-dir)/kubectl ]] ;;
    *) command -v "$1" >/dev/null ;;
    esac
}

# The package of this system that holds program $1; nothing where none is good enough.
package() {
    case $manager:$1 in
    apt-get:cc) echo "gcc libc6-dev" ;;
    apt-get:c++) echo "g++ libc6-dev" ;;
    apt-get:dbus-daemon) # a package of its own since Debian 12
        if apt-cache show dbus-daemon >/dev/null 2>&1; then echo dbus-daemon; else echo dbus; fi ;;
    apt-get:go)
        local version
        version=$(apt-cache policy golang-go 2>/dev/null | awk '/Candidate:/ { sub(/^[0-9]+:/, "", $2); print $2 }')
        if at_least "${version%%[!0-9.]*}" "$go_fetches"; then echo golang-go; fi ;;
    dnf:cc) echo gcc ;;
    dnf:c++) echo gcc-c++ ;;
    dnf:go) echo golang ;;
    *:systemd-nspawn) echo systemd-container ;;
    *:ip) if [[ $manager == dnf ]]; then echo iproute; else echo iproute2; fi ;;
    *:unshare | *:nsenter | *:setpriv | *:flock) echo util-linux ;;
    *:kubectl) ;;
    *) echo "$1" ;;
    esac
}

# Installs the programs "$@" as far as the system has packages that will do.
install() {
    local name found packages=() apt=(apt-get -qq -o Acquire::http::Timeout=30 -o DPkg::Lock::Timeout=120)
    say "missing: $*; looking for packages with $manager (INSTALL=no forbids it)"
    [[ $manager != apt-get ]] || "${apt[@]}" update || return
    for name; do read -ra found <<<"$(package "$name")" && packages+=("${found[@]}"); done
    [[ ${#packages[@]} -gt 0 ]] || return 0
    say "installing ${packages[*]}"
    case $manager in
    apt-get) DEBIAN_FRONTEND=noninteractive "${apt[@]}" install --yes --no-install-recommends "${packages[@]}" ;;
    dnf) dnf --quiet --assumeyes --setopt=timeout=30 install "${packages[@]}" ;;
    esac
}

# Says how to come by program $1.
advise() {
    local packages
    packages=$(package "$1")
    case $1 in
    go) say "missing: Go $go_wanted or newer ($go_fetches or newer can fetch that itself unless GOTOOLCHAIN=local)${packages:+, package $packages}; otherwise https://go.dev/dl/" ;;
    kubectl) say "missing: kubectl; tests/control-plane/control-plane.sh kubectl makes it" ;;
    *) say "missing: $1, package ${packages// / and }" ;;
    esac
}

manager=
for candidate in apt-get dnf; do
    if command -v "$candidate" >/dev/null; then manager=$candidate; break; fi
done

missing=()
for name; do present "$name" || missing+=("$name"); done
if [[ ${#missing[@]} -gt 0 && -n $manager && ${INSTALL:-yes} != no && $(id -u) == 0 ]]; then
    install "${missing[@]}" >&2 || say "$manager failed"
    hash -r
fi
# Last, because making it may need what was just installed. This goes into the user's cache, not into the system.
if [[ " ${missing[*]} " == *" kubectl "* ]]; then "$here/control-plane.sh" kubectl >/dev/null || true; fi

status=0
for name in "${missing[@]}"; do present "$name" || { advise "$name"; status=1; }; done
exit "$status"
