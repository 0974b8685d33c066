#!/usr/bin/env bash
# Makes sure of what a make target needs, on a Debian machine that may be bare: it
# installs only what is missing, from Debian's packages, and a Go toolchain through
# the Go module proxy where Debian's is too old.
#
# usage: deps.sh bundle | install | test
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH=$PWD/build/cache/go/bin:$PATH:/usr/local/go/bin # as in the Makefile

want=${1:?usage: deps.sh bundle | install | test}
say() { echo "deps: $*"; }
die() { echo "deps: $*" >&2; exit 1; }

missing=()
# command_from NAME PACKAGE: the package, unless the machine has the command from anywhere.
command_from() { type -P "$1" >/dev/null || missing+=("$2"); }
package() { dpkg -s "$1" 2>/dev/null | grep -q '^Status: install ok installed' || missing+=("$1"); }

apt_install() {
	[ $# -gt 0 ] || return 0
	[ "$(id -u)" = 0 ] || die "missing: $*; run me as root and I install them"
	say "installing $*"
	export DEBIAN_FRONTEND=noninteractive
	apt-get -qq update
	apt-get -qq install -y --no-install-recommends "$@" >/dev/null
}

go_version() { sed -n "s/^$1 \(go\)\?\([0-9.]*\)$/\2/p" go.mod; }

# go_is_new_enough: the go on PATH is at least what go.mod asks for.
go_is_new_enough() {
	local have
	have=$(GOTOOLCHAIN=local go env GOVERSION 2>/dev/null) || return 1
	[ "$(printf '%s\n' "$(go_version go)" "${have#go}" | sort -V | head -1)" = "$(go_version go)" ]
}

# It goes to build/cache/go, which is first on PATH. Debian's go, however old, can fetch
# a newer toolchain: each is a module. The module cache drops execute bits.
fetch_go() {
	local version module goroot=build/cache/go
	type -P go >/dev/null || apt_install golang-go ca-certificates
	version=$(go_version toolchain)
	version=${version:-$(go_version go)}
	say "fetching Go $version through the module proxy"
	module=golang.org/toolchain@v0.0.1-go$version.linux-$(go env GOARCH)
	module=$(cd / && GO111MODULE=on GOTOOLCHAIN=local GOFLAGS=-modcacherw \
		go mod download -json "$module" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
	[ -d "$module" ] || die "the module proxy did not give Go $version"
	rm -rf "$goroot" "$goroot.part"
	mkdir -p "${goroot%/*}"
	cp -r "$module" "$goroot.part"
	chmod -R u+w "$goroot.part"
	chmod -R +x "$goroot.part/bin" "$goroot.part/pkg/tool"
	mv "$goroot.part" "$goroot"
}

# Debian's package starts the engine where systemd runs; elsewhere somebody must.
start_engine() {
	docker info >/dev/null 2>&1 && return
	say "starting the engine"
	local by_hand="start it by hand (for one: dockerd >/var/log/docker.log 2>&1 &) and try again"
	if [ -d /run/systemd/system ]; then
		systemctl start docker || die "systemd cannot start the engine: see journalctl -u docker"
	else
		service docker start || die "service docker start failed; $by_hand"
	fi
	for _ in {1..30}; do
		docker info >/dev/null 2>&1 && return
		sleep 1
	done
	die "the engine does not answer within 30 s; $by_hand"
}

command_from git git
command_from dpkg-deb dpkg
package ca-certificates
if [ "$want" != bundle ]; then
	command_from dockerd docker.io
	command_from ip iproute2
	package busybox-static
fi
if [ "$want" = test ]; then
	command_from docker-compose docker-compose
	command_from iptables iptables
	command_from curl curl
	command_from nsenter util-linux
	command_from ps procps
	# The race detector and a current runc are built with a C compiler.
	command_from gcc gcc
	command_from pkg-config pkg-config
	package libc6-dev
	package libseccomp-dev
fi
apt_install "${missing[@]}"
# From Debian 13 on, the docker command is a package of its own.
[ "$want" = bundle ] || type -P docker >/dev/null || apt_install docker-cli
go_is_new_enough || fetch_go
go_is_new_enough || die "no Go $(go_version go) or newer"
[ "$want" != install ] || start_engine
