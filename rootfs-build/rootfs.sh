#!/usr/bin/env bash
# Assembles the plugin's bundle, config.json and rootfs/, from this checkout and
# Debian's packages. No image registry is involved, and the rootfs has no shell:
# it holds the plugin, the iptables family, and the libraries those load.
#
# usage: rootfs.sh [DIRECTORY]      (default build/bundle)
#
#   BINARY=path  takes a ready plugin binary instead of building ./plugin
#   VERSION, SOURCE_DATE_EPOCH  override what git says of this commit
#
# One commit, one Go and one set of package versions give the same bytes: verify.sh
# holds it to that, and usr/share/seaway/packages in the rootfs names the versions.
set -euo pipefail
cd "$(dirname "$0")/.."

target=$(realpath -m "${1:-build/bundle}")
bundle=$target.part # takes the target's place when it is complete
rootfs=$bundle/rootfs
cache=$PWD/build/cache/debs

die() { echo "rootfs: $*" >&2; exit 1; }
git_here() { git -c safe.directory='*' "$@" 2>/dev/null; }

[ "$(id -u)" = 0 ] || die "run me as root: the rootfs belongs to root, and is tried with chroot"
version=${VERSION:-$(git_here describe --always --dirty --tags --abbrev=12 || echo unknown)}
epoch=${SOURCE_DATE_EPOCH:-$(git_here log -1 --format=%ct || echo 0)}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The package iptables and all it depends on, of the versions apt would install.
fetch_packages() {
	mkdir -p "$cache"
	local quiet=(-qq -o APT::Sandbox::User=root) packages
	apt-cache show iptables >/dev/null 2>&1 || apt-get "${quiet[@]}" update
	packages=$(apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts \
		--no-breaks --no-replaces --no-enhances iptables | grep -v '^[ <]')
	# shellcheck disable=SC2086 # one word per package
	(cd "$cache" && { apt-get "${quiet[@]}" download $packages ||
		{ apt-get "${quiet[@]}" update && apt-get "${quiet[@]}" download $packages; }; })
	# Asked where none of them is, apt names the files; elsewhere it would skip those it has.
	# shellcheck disable=SC2086
	(cd "$work" && apt-get "${quiet[@]}" --print-uris download $packages) | awk '{print $2}' | sort >"$work/debs"
	[ -s "$work/debs" ] || die "apt names no packages"
}

# Unpacks them into one merged-/usr tree, as an installed Debian would look.
unpack() {
	tree=$work/tree
	mkdir -p "$tree"/usr/{bin,sbin,lib,lib64}
	ln -s usr/bin usr/sbin usr/lib usr/lib64 "$tree"
	local deb
	while read -r deb; do
		dpkg-deb --fsys-tarfile "$cache/$deb" | tar -x --keep-directory-symlink -C "$tree"
		dpkg-deb -f "$cache/$deb" Package Version Architecture | awk '{print $2}' | paste -sd' '
	done <"$work/debs" >"$work/packages"
	libraries=$(dirname "$(find "$tree"/usr/lib/*/ -maxdepth 1 -name 'libc.so.6')")
	loader=$(find "$libraries" -maxdepth 1 -name 'ld-linux*')
}

# keep PATH…: copies files of the tree to the same place in the rootfs.
keep() {
	local file
	for file; do
		mkdir -p "$rootfs/$(dirname "${file#"$tree"/}")"
		cp -L "$file" "$rootfs/${file#"$tree"/}"
	done
}

# The libraries a program or module needs, as the packaged loader itself resolves them.
needed_by() {
	local file
	for file; do
		"$loader" --inhibit-cache --library-path "$libraries" --list "$file"
	done | awk '$2 == "=>" {print $3}' | sort -u
}

assemble() {
	rm -rf "$bundle"
	mkdir -p "$rootfs"/usr/{bin,sbin,lib,lib64} "$rootfs"/{dev,etc,proc,root,run/docker/plugins,sys,tmp,var/lib/seaway}
	ln -s usr/bin usr/sbin usr/lib usr/lib64 "$rootfs"
	# The engine binds the host's own over these two.
	touch "$rootfs"/etc/{hosts,resolv.conf}

	if [ -n "${BINARY:-}" ]; then
		cp "$BINARY" "$rootfs/usr/bin/seaway"
	else
		CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$version" \
			-o "$rootfs/usr/bin/seaway" ./plugin
	fi

	# Both backends: rules must go where Docker's are, and either may hold them.
	# All extensions of the two families: 2 MB, and no rule is ever short of one.
	local programs=("$tree"/usr/sbin/xtables-{nft,legacy}-multi)
	local extensions=("$libraries"/xtables/lib{xt,ipt,ip6t}_*.so) wanted name backend
	keep "${programs[@]}" "${extensions[@]}"
	for name in ip{,6}tables; do
		for backend in nft legacy; do
			ln -s "xtables-$backend-multi" "$rootfs/usr/sbin/$name-$backend"
			ln -s "xtables-$backend-multi" "$rootfs/usr/sbin/$name-$backend-save"
			ln -s "xtables-$backend-multi" "$rootfs/usr/sbin/$name-$backend-restore"
		done
	done
	wanted=$(needed_by "${programs[@]}" "${extensions[@]}")
	! grep -v "^$tree/" <<<"$wanted" >&2 || die "these libraries come from no package of ours"
	# shellcheck disable=SC2086 # one word per library
	keep $wanted "$loader"
	# Programs name their loader by a path of the ABI's own: /lib64/… or /lib/….
	local abi
	for abi in "$tree"/usr/lib*/ld-linux*; do
		[ -e "$abi" ] || [ -L "$abi" ] || continue
		ln -s "/usr/lib/$(basename "$libraries")/$(basename "$loader")" "$rootfs/${abi#"$tree"/}"
	done

	# What is inside, and under which licences.
	mkdir -p "$rootfs/usr/share/seaway"
	{ echo "go $(go env GOVERSION)"; cat "$work/packages"; } >"$rootfs/usr/share/seaway/packages"
	cp LICENSE "$rootfs/usr/share/seaway"
	while read -r name _; do
		keep "$tree/usr/share/doc/$name/copyright"
	done <"$work/packages"
	cp config.json "$bundle"
}

# Every program must start inside the rootfs, and find its extensions there. To look
# for those it asks the kernel too: in an empty network namespace, if one can be made
# (not while Docker builds an image).
try() {
	local program
	for program in "$rootfs"/usr/sbin/ip*tables-{nft,legacy}; do
		program=${program#"$rootfs"}
		chroot "$rootfs" "$program" --version
		chroot "$rootfs" "$program-save" --version >/dev/null
		chroot "$rootfs" "$program-restore" --version >/dev/null
		! unshare --net true 2>/dev/null ||
			unshare --net chroot "$rootfs" "$program" \
				-m conntrack -m comment -m multiport -j MASQUERADE --help >/dev/null ||
			die "$program does not find its extensions"
	done
}

# Same modes and dates wherever and whenever it is built.
normalise() {
	rm -f "$rootfs/run/xtables.lock"
	find "$bundle" -type d -exec chmod 755 {} +
	find "$bundle" -type f -exec chmod 644 {} +
	chmod 755 "$rootfs"/usr/bin/seaway "$rootfs"/usr/sbin/xtables-* "$rootfs/${loader#"$tree"/}"
	chmod 1777 "$rootfs/tmp"
	find "$bundle" -depth -exec touch --no-dereference --date "@$epoch" {} +
}

fetch_packages
unpack
assemble
try
normalise
rm -rf "$target"
mv -T "$bundle" "$target"
echo "bundle: ${target#"$PWD"/}, version $version, $(du -sm --apparent-size "$target" | cut -f1) MB" \
	"($(du -sm --apparent-size "$target/rootfs/usr/bin" | cut -f1) MB of it the plugin)"
