#!/usr/bin/env bash
# Holds the bundle to its promise: built twice, the second time from a copy of the
# checkout at another place with an empty compiler cache, it is the same to the byte,
# file modes and dates included.
set -euo pipefail
cd "$(dirname "$0")/.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

hash_of() {
	tar --sort=name --numeric-owner -C "$1" -cf - . | sha256sum | cut -d' ' -f1
}

mkdir "$work/copy"
tar --exclude=./build -cf - . | tar -xf - -C "$work/copy"
mkdir -p "$work/copy/build/cache"
cp -a build/cache/debs "$work/copy/build/cache/" 2>/dev/null || true

rootfs-build/rootfs.sh "$work/first" >/dev/null
(umask 077 && GOCACHE=$work/gocache "$work/copy/rootfs-build/rootfs.sh" "$work/second" >/dev/null)

first=$(hash_of "$work/first")
second=$(hash_of "$work/second")
if [ "$first" != "$second" ]; then
	echo "verify: two builds differ:" >&2
	diff -r "$work/first" "$work/second" >&2 || true
	exit 1
fi
echo "verify: both builds are $first"
