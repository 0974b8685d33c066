# What install.sh, prove.sh and uninstall.sh share. Sourced, never run.
# shellcheck shell=bash disable=SC2034

plugin=seaway:latest

say() { echo "seaway: $*"; }
die() { echo "seaway: $*" >&2; exit 1; }

# inspect FORMAT: one fact about the installed plugin; empty if there is none.
inspect() { docker plugin inspect --format "$1" "$plugin" 2>/dev/null || true; }

# settings: the installed plugin's settings, NAME=value, one a line.
settings() { inspect '{{range .Settings.Env}}{{println .}}{{end}}' | grep . || true; }

# find_engine: sets root, the engine's directory on this machine, and saved, where
# an upgrade keeps the plugin's state while the engine has none of it. It is below
# the engine's directory: the same disk, and each engine of a machine has its own.
# Until the script ends, no other one gets past here.
find_engine() {
	[ "$(id -u)" = 0 ] || die "run me as root: the plugin's state belongs to the engine"
	root=$(docker info --format '{{.DockerRootDir}}' 2>/dev/null || true)
	[ -n "$root" ] || die "no Docker Engine answers (is it running? try: docker info)"
	[ -d "$root/plugins" ] ||
		die "$root/plugins is not on this machine: run me where the engine runs"
	exec {lock}<"$root/plugins"
	flock --nonblock "$lock" || die "another install or uninstall is at work on this engine"
	saved=$root/seaway-upgrade
}
