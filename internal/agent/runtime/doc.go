// Package runtime runs containers and keeps images: it is agent.Runtime and agent.Images over
// containerd, which it embeds. It is the only package that imports containerd.
//
// # What it owns
//
// containerd runs inside this process, as a set of plugins chosen one by one (engine.go). It listens in
// RunDir at a ttrpc socket, through which shims tell their events, and at containerd.sock for what
// monitors containers through containerd's API (socket.go). Images, snapshots and container records
// live in Root and survive a reboot; bundles, shim sockets, shared namespaces and runc's state live in
// RunDir and do not.
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
// What the containers of a task share by pidMode or ipcMode task is pinned by mounts in RunDir/shared,
// and a PID namespace by a process besides (shared.go); both last from PrepareTask to RemoveTask,
// whoever dies in between. An exec is ended by the next runtime if this one dies (exec.go).
//
// # What a container gets
//
// spec.go turns a container's definition into an OCI spec by Docker's and ECS's rules, purely: what
// must be looked up on the host comes in. Devices (devices.go), GPUs by CDI (gpu.go), security options
// (security.go) and the first content of volumes (volume.go) are looked up before. A root filesystem has
// no size limit: what is written to it is counted (usage.go), not bounded.
//
// # Where the truth is
//
// A container's state is, in this order: what its shim says; the exit recorded when its shim was lost
// (a label of the container's record); or, when RunDir has been emptied since it was created as by a
// reboot, stopped with the exit code -1. Events are hints.
package runtime
