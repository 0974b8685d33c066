#!/usr/bin/env bash
# Installs build/bundle as seaway:latest on this machine's engine, or upgrades the
# Seaway that is there, and proves it with two containers.
#
# An upgrade keeps networks, addresses, settings and running transfers. The engine
# would make it hard: `docker plugin upgrade` takes a registry, and `docker plugin rm`
# deletes the plugin's state with it. So the state is carried across by hand. A copy
# stays on disk until the new plugin runs; whatever stops an upgrade halfway, the
# next `make install` finishes it from that copy.
set -euo pipefail
cd "$(dirname "$0")/.."
. install/lib.sh

bundle=build/bundle
[ -x "$bundle/rootfs/usr/bin/seaway" ] || die "no bundle: type make bundle"
find_engine

old=$(inspect '{{.Id}}')
enabled=$(inspect '{{.Enabled}}')
stage=nothing # how far the upgrade is: nothing, saved or removed

# If it fails, either nothing has changed, or the state is safe and named.
on_exit() {
	local status=$?
	[ "$status" = 0 ] && return
	case $stage in
	saved)
		rm -rf "$saved" "$saved.part"
		[ "$enabled" != true ] || docker plugin enable "$plugin" >/dev/null || true
		echo "seaway: the upgrade failed and changed nothing" >&2
		;;
	removed)
		echo "seaway: the upgrade is UNFINISHED. The state of this host's networks is safe in $saved;" \
			"do not delete it. Mend what is said above and type make install: it goes on from there." >&2
		;;
	esac
}
trap on_exit EXIT

# The copy appears under its name only when it is complete and on the disk.
save() {
	local state=$root/plugins/$old/propagated-mount
	rm -rf "$saved.part"
	mkdir -m 700 "$saved.part"
	mkdir "$saved.part/state"
	[ ! -d "$state" ] || cp -a --one-file-system "$state/." "$saved.part/state"
	settings | grep -v '=$' >"$saved.part/settings" || true
	echo "$old" >"$saved.part/plugin"
	sync --file-system "$saved.part"
	mv -T "$saved.part" "$saved"
	sync --file-system "$saved"
}

# Settings that the user made and the new plugin still knows.
restore_settings() {
	local setting known=()
	while read -r setting; do
		if settings | grep -q "^${setting%%=*}="; then
			known+=("$setting")
		else
			say "note: this version has no setting ${setting%%=*}; dropped: $setting"
		fi
	done <"$saved/settings"
	[ ${#known[@]} = 0 ] || docker plugin set "$plugin" "${known[@]}"
}

# The engine makes propagated-mount when it enables a plugin, if it is not there yet.
restore_state() {
	local home
	home=$root/plugins/$(inspect '{{.Id}}')
	rm -rf "$home/propagated-mount.part"
	cp -a "$saved/state" "$home/propagated-mount.part"
	sync --file-system "$home"
	mv -T "$home/propagated-mount.part" "$home/propagated-mount"
}

# An upgrade that stopped halfway left its copy. It is the truth, unless the plugin
# it was taken from is still there, or somebody has enabled the new one since.
if [ -d "$saved" ] && { [ "$enabled" = true ] || [ "$old" = "$(cat "$saved/plugin")" ]; }; then
	aside=$saved.$(date +%Y%m%dT%H%M%S)
	mv -T "$saved" "$aside"
	say "an earlier upgrade left a copy of older state; not used, kept in $aside"
fi

begin=$EPOCHREALTIME
if [ -d "$saved" ]; then
	say "finishing the upgrade that stopped halfway, with the state in $saved"
	stage=removed
	[ -z "$old" ] || docker plugin rm -f "$plugin" >/dev/null
elif [ -n "$old" ]; then
	say "upgrading: containers keep talking; network commands wait while the plugin is away"
	stage=saved
	[ "$enabled" != true ] || docker plugin disable -f "$plugin" >/dev/null
	save
	stage=removed
	docker plugin rm -f "$plugin" >/dev/null
fi
docker plugin create "$plugin" "$bundle" >/dev/null
if [ "$stage" = removed ]; then
	restore_settings
	restore_state
fi
docker plugin enable "$plugin" >/dev/null ||
	die "the plugin did not start; what it said is in the engine's log (journalctl -u docker, or /var/log/docker.log)"
if [ "$stage" = removed ]; then
	rm -rf "$saved"
	stage=nothing
	say "upgraded; the plugin was away for $(awk "BEGIN {printf \"%.1f\", $EPOCHREALTIME - $begin}") s"
else
	say "installed"
fi

install/prove.sh
cat <<END

Now make a network of your own and use it:

  docker network create -d $plugin --ipam-driver $plugin blue
  docker run -d --network blue --name web IMAGE
  docker run --rm --network blue IMAGE ping -c 3 web

Settings: docker plugin inspect $plugin. To change one: docker plugin disable -f $plugin,
docker plugin set $plugin NAME=value, docker plugin enable $plugin.
END
