// Package kit runs real Docker Engines on simulated hosts. The e2e tests are
// built on it; demo and bench can be.
//
// # The pieces
//
// A [Lab] has a switch and any number of hosts. A [Machine] is what a host and
// the switch have in common: namespaces of its own (process, mount, network,
// UTS, IPC) and a control group. A [Host] is a Machine with a Docker Engine.
//
//	                  Outside (a Machine)
//	WorldAddress on lo ── switch0, GatewayAddress
//	                        │ port1     │ port2   …
//	                        │ eth0      │ eth0
//	                     Host h1     Host h2
//
// Nothing of this is in the root network namespace. The addresses: a host is
// [Host.Address] (192.0.2.11 for h1) and [Host.Address6] on the underlay; its
// default route leads to Outside, which also has [WorldAddress] and
// [WorldAddress6]: where egress goes to, and where -p is tried from.
//
//	lab, err := kit.Open(ctx)                 // sweeps; engine from $ENGINE
//	defer lab.Close()                         // nothing is left on the machine
//	h, err := lab.AddHost(ctx, kit.HostOptions{})
//	err = h.InstallPlugin(ctx, "LOG_LEVEL=debug")
//	_, err = h.Docker(ctx, "run", "-d", "--name", "web", "-p", "8080:8080", kit.Image)
//	out, err := lab.Outside.Exec(ctx, lab.Probe, "get", h.Address.String()+":8080")
//
// # Engines
//
// ENGINE=debian, the default, is the machine's own dockerd (20.10 on Debian
// 12). ENGINE=modern is a current one, which [Open] builds at its first use
// and keeps in $SEAWAY_ENGINE_CACHE (default: the user's cache directory,
// seaway/engine).
//
// # More machines
//
// [Lab.AddHost] may be called more than once; hosts are numbered from 1. A
// machine without an engine, for a store, is a Machine that is plugged into the
// switch as a Host is: newMachine, boot and plugIn are the parts to make it of.
//
// # What happens to a host
//
//   - [Host.StopEngine], [Host.KillEngine] (kill -9), [Host.StartEngine],
//     [Host.RestartEngine], the last two with further arguments of dockerd,
//     such as --live-restore. Arguments for every start are in [HostOptions].
//   - [Host.PowerOff] kills everything at once, [Host.PowerOn] boots. The disk
//     stays: the engine's data root and /etc. All else is new, as after a
//     power failure.
//   - [Host.Cut], [Host.Heal]: the underlay is gone, and back.
//   - [Host.InstallPlugin], [Host.KillPlugin], [Host.WaitPlugin],
//     [Host.PluginPID], [Host.DialPlugin].
//   - [Host.Docker] and [Host.DockerCommand] call the CLI; [Host.Env] is for
//     other clients, such as docker-compose. [Machine.Exec] and
//     [Machine.Command] run a program on the machine.
//   - [Host.LogFile] has what dockerd and the plugins have written.
//
// A host is as much a machine as namespaces allow: its own host name, process
// 1 (the probe program), /proc, /sys, /run and /etc. What it shares with the
// real machine: the kernel (sysctls outside of net, modules), the files below
// /usr, /var and so on, and /dev. Its / is a shared mount, or a private one
// with [HostOptions].PrivateRoot.
//
// # In a container
//
// [Image] has busybox and the probe program (see its command documentation):
// a container that is started without a command answers on port 8080, TCP and
// UDP. "/probe get ADDRESS:8080" in another prints the name of who answers and
// the client's address as the server sees it. "/probe loss" counts lost
// datagrams, and "/probe stream" finds stalls of a bulk transfer; run them as
// detached containers, end them with "docker kill -s TERM" and "docker wait",
// and read their report, a line of JSON, with "docker logs". They can lose a
// report only with the engine: a container dies when an engine without
// --live-restore starts again after KillEngine.
//
// # What is left behind
//
// Nothing, and this is checked. Processes, links, mounts and namespaces live
// only as long as process 1 of their machine, which ends when this process
// does, even by kill -9. Control groups and the Lab's directory below
// [os.TempDir] are removed by [Lab.Close]; if that does not run, by a janitor
// process that outlives this one; and if that does not either, by [Sweep] in a
// later [Open]. A [Guard] compares the machine before and after. On a machine
// that others use at the same time, set $SEAWAY_E2E_SHARED: the Guard cannot
// tell their links and mounts from those that a host would have leaked.
//
// Names begin with sea- and this process's id, so that runs do not meet.
package kit
