#!/usr/bin/env bash
# Removes Seaway from this machine's engine, and all it had in the kernel. Refuses
# while the engine holds networks of ours: they would be unusable and hard to
# remove. FORCE=1 goes on all the same.
set -euo pipefail
cd "$(dirname "$0")/.."
. install/lib.sh

find_engine
mapfile -t networks < <(docker network ls --filter "driver=$plugin" --format '{{.Name}}')

if [ ${#networks[@]} -gt 0 ] && [ "${FORCE:-}" != 1 ]; then
	say "these networks still exist:" >&2
	printf '  %s\n' "${networks[@]}" >&2
	die "remove them first (docker network rm NAME), or type: make uninstall FORCE=1"
fi

if [ -n "$(inspect '{{.Id}}')" ]; then
	[ "$(inspect '{{.Enabled}}')" != true ] || docker plugin disable -f "$plugin" >/dev/null
	docker plugin rm -f "$plugin" >/dev/null
	say "plugin removed"
else
	say "no plugin $plugin is installed"
fi
rm -rf "$saved" "$saved".*

# The plugin takes its namespace away with its last network, so usually there is
# nothing left. Ours are known by their marks; whatever has none is not touched.
if [ -e /run/netns/seaway ]; then
	if ip -n seaway link show dev lo 2>/dev/null | grep -q 'alias '; then
		ip netns delete seaway
		say "namespace seaway deleted"
	else
		say "/run/netns/seaway does not bear our mark; left alone"
	fi
fi
for link in /sys/class/net/sw*; do
	name=${link##*/}
	[[ $name =~ ^sw[0-9a-f]{12}$ ]] || continue
	[[ $(cat "$link/ifalias" 2>/dev/null) == "seaway "* ]] || continue
	ip link delete dev "$name" 2>/dev/null || continue
	say "link $name deleted"
done

if [ ${#networks[@]} -gt 0 ]; then
	say "these networks remain in the engine, and nothing can use them: ${networks[*]}"
	say "to be rid of them: make install, then docker network rm ${networks[*]}, then make uninstall"
fi
