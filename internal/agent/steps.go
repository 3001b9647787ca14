package agent

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
	"github.com/berthhq/berth/internal/failpoint"
)

// defaultStopSignal is for images that name none.
const defaultStopSignal = "SIGTERM"

// prepare takes from the machine what a step needs and returns the step as a function that may run
// beside the loop.
func (l *taskLoop) prepare(s step) func() result {
	a, t, i := l.agent, l.m.task, s.container
	id := taskID(t.Arn)
	var c *dispatchpb.Container
	var containerName, cid string
	if i != theTask {
		c = t.Containers[i]
		containerName, cid = c.Name, containerID(t, i)
	}
	// call runs f within a deadline, between the step's two failpoints.
	call := func(parent context.Context, timeout time.Duration, f func(ctx context.Context, r *result) error) func() result {
		return func() (r result) {
			ctx, cancel := context.WithTimeout(parent, timeout)
			defer cancel()
			failpoint.Hit("agent/" + string(s.kind) + "/before")
			if r.err = f(ctx, &r); r.err != nil && parent.Err() == nil && ctx.Err() != nil {
				r.err = fmt.Errorf("%w: %w", context.DeadlineExceeded, r.err)
			}
			failpoint.Hit("agent/" + string(s.kind) + "/after")
			return r
		}
	}
	rt, netw, out := a.cfg.Runtime, a.cfg.Network, a.cfg.Output
	switch s.kind {
	case doInspect:
		return call(l.work, callTimeout, func(ctx context.Context, r *result) (err error) {
			r.state, r.found, err = rt.Inspect(ctx, cid)
			return err
		})
	case doAdmit:
		launch := l.launch
		return func() result {
			select {
			case a.launches <- struct{}{}:
				return result{}
			case <-launch.Done():
				return result{err: launch.Err()}
			}
		}
	case doPrepare:
		return call(l.work, callTimeout, func(ctx context.Context, r *result) error {
			// The directory is also the note by which a later run finds the cgroup, should this one crash
			// before the assignment is durable. It need not survive a power cut, which ends the cgroup too.
			if err := os.MkdirAll(a.taskDir(id), 0o700); err != nil {
				return err
			}
			return rt.PrepareTask(ctx, taskSpec(t))
		})
	case doNetwork:
		return call(l.work, networkTimeout, func(ctx context.Context, r *result) (err error) {
			r.netNS, err = netw.Setup(ctx, id, t.NetworkInterface)
			return err
		})
	case doPull:
		policy := l.m.pullPolicy
		if l.m.p.Containers[i].Started {
			policy = PullPreferCached
		}
		return call(l.launch, pullTimeout, func(ctx context.Context, r *result) (err error) {
			r.image, err = rt.Pull(ctx, c.Image, policy)
			return err
		})
	case doAttach:
		return call(l.work, attachTimeout, func(ctx context.Context, r *result) (err error) {
			if r.fifos[0], r.fifos[1], err = out.Attach(ctx, id, containerName, cid); err != nil {
				return err
			}
			return a.cfg.LogDrivers.Start(ctx, t, i)
		})
	case doVolumes:
		return call(l.work, callTimeout, func(ctx context.Context, r *result) (err error) {
			r.volumes, err = a.cfg.Volumes.Provide(ctx, t)
			return err
		})
	case doEnvironment:
		return call(l.launch, fetchTimeout, func(ctx context.Context, r *result) (err error) {
			r.variables, err = fetchEnvironment(ctx, a.cfg.Objects, a.hostID, t, i)
			return err
		})
	case doConnect:
		e := Endpoint{TaskID: id, Container: containerName, Ports: c.PortMappings, Isolated: c.DisableNetworking}
		return call(l.work, networkTimeout, func(ctx context.Context, r *result) (err error) {
			r.connection, err = a.cfg.Bridge.Connect(ctx, e)
			return err
		})
	case doCreate:
		create := l.creation(i)
		return call(l.work, createTimeout, func(ctx context.Context, r *result) error { return create(ctx) })
	case doStart:
		return call(l.work, startTimeout, func(ctx context.Context, r *result) (err error) {
			if t.NetworkMode == networkHost {
				if err := portsFree(ctx, c.PortMappings); err != nil {
					return err
				}
			}
			r.at, err = rt.Start(ctx, cid)
			return err
		})
	case doRestart:
		return call(l.work, startTimeout, func(ctx context.Context, r *result) (err error) {
			r.at, err = a.cfg.Processes.Restart(ctx, cid)
			return err
		})
	case doCheck:
		args, timeout := healthCommand(c), time.Duration(c.HealthCheck.TimeoutSeconds)*time.Second
		check := call(l.launch, timeout, func(ctx context.Context, r *result) (err error) {
			r.exitCode, r.output, err = a.cfg.Processes.Exec(ctx, cid, args)
			return err
		})
		restarts := l.m.p.Containers[i].RestartCount
		return func() result {
			r := check()
			r.restarts = restarts
			return r
		}
	case doSignal:
		signal := defaultStopSignal
		if img := l.m.p.Containers[i].Image; img != nil && img.StopSignal != "" {
			signal = img.StopSignal
		}
		return call(l.work, callTimeout, func(ctx context.Context, r *result) error {
			return rt.Signal(ctx, cid, signal)
		})
	case doKill:
		return call(l.work, callTimeout, func(ctx context.Context, r *result) error {
			return rt.Signal(ctx, cid, "SIGKILL")
		})
	case doDelete:
		return call(l.work, deleteTimeout, func(ctx context.Context, r *result) error {
			return rt.Delete(ctx, cid)
		})
	case doDetach:
		return call(l.work, deleteTimeout, func(ctx context.Context, r *result) error {
			return a.detach(ctx, cid)
		})
	case doTeardown:
		return call(l.work, networkTimeout, func(ctx context.Context, r *result) error {
			return netw.Teardown(ctx, id)
		})
	case doDisconnect:
		return call(l.work, networkTimeout, func(ctx context.Context, r *result) error {
			return a.cfg.Bridge.Disconnect(ctx, id, containerName)
		})
	case doRelease:
		return call(l.work, deleteTimeout, func(ctx context.Context, r *result) error {
			return a.cfg.Volumes.Release(ctx, id)
		})
	case doRemove:
		return call(l.work, callTimeout, func(ctx context.Context, r *result) error {
			return rt.RemoveTask(ctx, id)
		})
	case doFiles:
		return call(l.work, callTimeout, func(ctx context.Context, r *result) error {
			return os.RemoveAll(a.taskDir(id))
		})
	}
	panic("agent: no such step: " + string(s.kind))
}

// creation takes from the machine what making container i needs, and returns the making.
func (l *taskLoop) creation(i int) func(context.Context) error {
	a, m, t := l.agent, l.m, l.m.task
	dir := a.taskDir(taskID(t.Arn))
	images := make([]*Image, len(t.Containers))
	connections := make([]Connection, len(t.Containers))
	given := make([][]string, len(t.Containers)) // to each container, by its definition
	for k := range t.Containers {
		images[k] = m.p.Containers[k].Image
		given[k] = environment(t, t.Containers[k], m.envFile[k])
		if c := m.p.Containers[k].Connection; c != nil {
			connections[k].IPv4 = c.IPv4
		}
	}
	volumes, err := containerMounts(t, i, images, m.volumes)
	spec := containerSpec(t, i, *images[i], a.hostname)
	spec.Environment = given[i]
	spec.NetNS = m.netNS
	if m.connects() {
		spec.NetNS = m.spaces[i]
		spec.Environment = mergeEnvironment(linkEnvironment(t, i, connections, given), spec.Environment)
	}
	if a.cfg.Metadata != nil {
		spec.Environment = mergeEnvironment(spec.Environment, a.cfg.Metadata.Environment(t, i))
	}
	spec.Stdout, spec.Stderr = m.fifos[i][0], m.fifos[i][1]
	address := connections[i].IPv4
	if m.hasInterface() {
		address = t.NetworkInterface.PrivateIpv4
	}
	if t.Containers[i].DisableNetworking && !m.connects() {
		spec.NetNS, spec.HostNetwork, address = "", false, ""
	}
	links := linkHosts(t, i, connections)
	return func(ctx context.Context) error {
		if err != nil {
			return err
		}
		files, err := a.files.write(dir, t, i, address, links)
		if err != nil {
			return fmt.Errorf("write the container's files: %w", err)
		}
		if volumes, err = a.provideImageVolumes(ctx, t, volumes); err != nil {
			return err
		}
		spec.Mounts = mergeMounts(files, volumes)
		return a.cfg.Runtime.Create(ctx, spec)
	}
}

// portsFree test-binds the host ports that a container of network mode host declares. The placer keeps
// Berth's tasks apart; a stranger's process can only be found here. Between the test and the
// container's own bind the port can still be taken: the application then sees it itself.
func portsFree(ctx context.Context, ports []*dispatchpb.PortMapping) error {
	var lc net.ListenConfig
	for _, pm := range ports {
		port := pm.HostPort
		if port == 0 {
			port = pm.ContainerPort
		}
		address := net.JoinHostPort("0.0.0.0", strconv.Itoa(int(port)))
		if pm.Protocol == "udp" {
			conn, err := lc.ListenPacket(ctx, "udp4", address)
			if err != nil {
				return err
			}
			conn.Close()
			continue
		}
		ln, err := lc.Listen(ctx, "tcp4", address)
		if err != nil {
			return err
		}
		ln.Close()
	}
	return nil
}
