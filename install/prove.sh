#!/usr/bin/env bash
# Proves an installed Seaway with Docker commands alone: a network, two containers
# on it, one pings the other by name. Everything it makes has a name of its own and
# is gone when it ends, however it ends. The image is made from busybox-static, as
# there may be no registry to pull from.
set -euo pipefail
cd "$(dirname "$0")/.."
. install/lib.sh

name=seaway-proof-$$-$RANDOM
work=$(mktemp -d)

clean_up() {
	docker rm -f "$name-one" "$name-two" >/dev/null 2>&1 || true
	docker network rm "$name" >/dev/null 2>&1 || true
	docker rmi "$name" >/dev/null 2>&1 || true
	rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 1' INT TERM

# step WORDS COMMAND…: runs it, and says what failed and how.
step() {
	local words=$1
	shift
	"$@" >"$work/output" 2>&1 || die "proof failed: cannot $words: $(cat "$work/output")"
}

mkdir -p "$work/image"/{bin,etc,proc,sys,dev,tmp}
cp /bin/busybox "$work/image/bin/busybox"
ln -s busybox "$work/image/bin/sh"
tar -C "$work/image" -cf "$work/image.tar" .
step "import an image" docker import "$work/image.tar" "$name"

step "create a network" docker network create -d "$plugin" --ipam-driver "$plugin" "$name"
for container in one two; do
	step "run a container on it" docker run -d --init --network "$name" --name "$name-$container" \
		"$name" /bin/busybox sleep 600
done
step "ping container one from two, by name" docker exec "$name-two" /bin/busybox ping -c 3 -W 5 "$name-one"
replies=$(grep -c 'bytes from' "$work/output")
subnet=$(docker network inspect --format '{{range .IPAM.Config}}{{.Subnet}} {{end}}' "$name")
for container in one two; do
	step "remove a container" docker rm -f "$name-$container"
done
step "remove the network" docker network rm "$name"

say "proved: a network (${subnet% }), two containers, a name resolved, $replies of 3 pings answered; all removed again"
