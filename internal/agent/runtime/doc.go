// Package runtime runs containers and keeps images: it is agent.Runtime and agent.Images over
// containerd, which it embeds. It is the only package that imports containerd.
//
// # What it owns
//
// containerd runs inside this process, as a set of plugins chosen one by one (engine.go), without a
// gRPC socket. Its only listener is a ttrpc socket in RunDir through which shims tell their events.
// Images, snapshots and container records live in Root and survive a reboot; bundles, shim sockets
// and runc's state live in RunDir and do not.
//
// # Who outlives whom
//
// A task's containers run under one shim, a process of its own that opens the output FIFOs, reaps the
// containers and keeps their exit codes. It needs nothing from this process: killed and started
// again, the runtime finds the shims through their bundles and asks them what happened meanwhile. The
// shim is the berth binary under another name (ShimMain), or, in builds that carry it (tag
// embed_shim), the same code as a binary of its own that starts faster. It runs, like runc, from
// RuntimeDir/<digest>, where a copy stays for as long as a container refers to it: replacing the
// berth binary changes nothing that runs.
//
// # Where the truth is
//
// A container's state is, in this order: what its shim says; the exit recorded when its shim was lost
// (a label of the container's record); or, when RunDir has been emptied since it was created as by a
// reboot, stopped with the exit code -1. Events are hints.
package runtime
