package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/contrib/seccomp"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/oci"

	"github.com/berthhq/berth/test/harness"
)

// bareContainerd is Debian's containerd with a client that does the least a launch needs.
type bareContainerd struct {
	*bench
	*daemon
	ctx    context.Context
	client *client.Client
	image  client.Image
	n      int
}

func startContainerd(b *bench) *bareContainerd {
	d := startDaemon(b, "containerd", func(d *daemon) []string {
		config := filepath.Join(d.dir, "config.toml")
		text := fmt.Sprintf("version = 2\nroot = %q\nstate = %q\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = %q\n[ttrpc]\naddress = %q\n",
			filepath.Join(d.dir, "root"), filepath.Join(d.dir, "state"), d.socket, d.socket+".ttrpc")
		if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
			b.Fatalf("configure containerd: %v", err)
		}
		return []string{d.bin("containerd"), "--config", config, "--log-level", "error"}
	})
	c := &bareContainerd{bench: b, daemon: d, ctx: namespaces.WithNamespace(b.ctx, "bench")}
	var err error
	if c.client, err = client.New(d.socket, client.WithTimeout(10*time.Second)); err != nil {
		b.Fatalf("reach containerd: %v", err)
	}
	b.Cleanup(func() { c.client.Close() })
	f, err := os.Open(archive(b))
	if err != nil {
		b.Fatalf("open the image: %v", err)
	}
	defer f.Close()
	images, err := c.client.Import(c.ctx, f)
	if err != nil || len(images) == 0 {
		b.Fatalf("import the image into containerd: %v", err)
	}
	c.image = client.NewImage(c.client, images[0])
	if err := c.image.Unpack(c.ctx, "overlayfs"); err != nil {
		b.Fatalf("unpack the image in containerd: %v", err)
	}
	return c
}

// launch is NewContainer until the container's first instruction. What it writes goes through FIFOs,
// read by this process into a file: the path that Berth's own takes. With filtered it also has the
// seccomp profile that Berth's and Docker's containers have, which containerd's default leaves out.
func (c *bareContainerd) launch(network string, filtered bool) time.Duration {
	c.n++
	id := fmt.Sprint("bare-", c.n)
	out, err := os.Create(filepath.Join(c.dir, id+".log"))
	if err != nil {
		c.Fatalf("containerd: %v", err)
	}
	defer out.Close()
	spec := []oci.SpecOpts{oci.WithImageConfigArgs(c.image, []string{"stamp"}), oci.WithMemoryLimit(16 << 20)}
	if network == "host" {
		spec = append(spec, oci.WithHostNamespace("network"), oci.WithHostHostsFile, oci.WithHostResolvconf)
	}
	if filtered {
		// Among the options it comes last: the profile depends on the capabilities.
		spec = append(spec, seccomp.WithDefaultProfile())
	}
	sent := time.Now()
	container, err := c.client.NewContainer(c.ctx, id,
		client.WithImage(c.image), client.WithSnapshotter("overlayfs"), client.WithNewSnapshot(id, c.image), client.WithNewSpec(spec...),
		client.WithRuntime("io.containerd.runc.v2", &options.Options{BinaryName: runcBinary(c.bench)}))
	if err != nil {
		c.Fatalf("containerd: new container: %v", err)
	}
	task, err := container.NewTask(c.ctx, cio.NewCreator(cio.WithStreams(nil, out, out), cio.WithFIFODir(c.dir)))
	if err != nil {
		c.Fatalf("containerd: new task: %v", err)
	}
	exit, err := task.Wait(c.ctx)
	if err == nil {
		err = task.Start(c.ctx)
	}
	if err != nil {
		c.Fatalf("containerd: start: %v", err)
	}
	<-exit
	if _, err := task.Delete(c.ctx); err != nil {
		c.Fatalf("containerd: delete the task: %v", err)
	}
	if err := container.Delete(c.ctx, client.WithSnapshotCleanup); err != nil {
		c.Fatalf("containerd: delete the container: %v", err)
	}
	raw, err := os.ReadFile(out.Name())
	at, ok := parseStamp(string(raw))
	if err != nil || !ok {
		c.Fatalf("containerd: the container printed no time: %v %q", err, raw)
	}
	return at.Sub(sent)
}

var _ harness.T = (*bareContainerd)(nil)
