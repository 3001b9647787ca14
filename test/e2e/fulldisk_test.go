package e2e

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"golang.org/x/sys/unix"

	"github.com/berthhq/berth/test/harness"
)

// TestFullDisk fills the file system of the data directory: requests fail as AWS's server errors or
// tasks with a reason, nothing acknowledged is lost, and with space everything works again.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	disk, err := os.MkdirTemp("", "berth-disk-")
	if err != nil {
		t.Fatal(err)
	}
	// Small, but not too small: the store alone preallocates files of 64 MB.
	if err := unix.Mount("berth-test", disk, "tmpfs", 0, "size=512m,mode=0700"); err != nil {
		t.Fatalf("mount a small file system: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(disk, 0); err != nil {
			t.Errorf("unmount the small file system: %v", err)
			unix.Unmount(disk, unix.MNT_DETACH)
		}
		os.Remove(disk)
	})
	w := newWorld(t, harness.Start(t, harness.Options{DataDir: filepath.Join(disk, "data")}))
	before := w.runApp("wait")
	w.running(before)
	definition := aws.ToString(before.TaskDefinitionArn)

	ballast := filepath.Join(disk, "ballast")
	fill(t, ballast)
	accepted := map[string]bool{*before.TaskArn: true}
	failed := 0
	for range 8 {
		out, err := w.ecs.RunTask(ctx(t), &ecs.RunTaskInput{Cluster: &w.cluster, TaskDefinition: &definition})
		if err != nil {
			failed++
			wantServerError(t, err)
			continue
		}
		for _, task := range out.Tasks {
			accepted[*task.TaskArn] = true
		}
	}
	t.Logf("with a full disk %d of 8 RunTask failed", failed)

	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	// Whether Berth lived through it or ended, it works after a restart at the latest.
	select {
	case <-w.b.Exited():
	default:
		w.b.Terminate()
	}
	w.b.Up()
	for arn := range accepted {
		task := w.describeArn(arn)
		w.stop(task, "")
		w.stopped(task)
	}
	after := w.runApp("exit", "6")
	if code := exitCode(t, w.stopped(after), "app"); code != 6 {
		t.Errorf("exit code %d", code)
	}
}

// fill writes until nothing more fits.
func fill(t *testing.T, file string) {
	t.Helper()
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	block := make([]byte, 1<<20)
	for size := len(block); size >= 1; {
		if _, err := f.Write(block[:size]); err != nil {
			size /= 2
		}
	}
}
