package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"

	"github.com/berthhq/berth/test/harness"
)

// TestKilledBerthLosesNothing: a container goes on while Berth is dead, writes 10 MB, and exits; all
// of it is known afterwards.
func TestKilledBerthLosesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, harness.Start(t, harness.Options{}))
	writer, quitter, steady := "token-a-"+label(t), "token-b-"+label(t), "token-c-"+label(t)
	const size, width = 10_000_000, 100
	writing := w.runApp("fill", fmt.Sprint(size), writer)
	quitting := w.runApp("term", "42", quitter)
	staying := w.runApp("wait", steady)
	for _, task := range []types.Task{writing, quitting, staying} {
		w.running(task)
	}
	w.logs(writing, contains("ready to fill"))
	w.logs(quitting, contains("waiting"))
	before, _ := harness.FindProcess(steady)

	w.b.Kill()
	signalProcess(t, writer)
	q, ok := harness.FindProcess(quitter)
	if !ok {
		t.Fatal("the container died with Berth")
	}
	syscall.Kill(q.Pid, syscall.SIGTERM)
	harness.Poll(t, 20*time.Second, "the container to end while Berth is dead", func() bool {
		_, alive := harness.FindProcess(quitter)
		return !alive
	})
	// The writer has written all when it no longer uses the processor; it says so in its output, which
	// nobody can read now.
	w1, ok := harness.FindProcess(writer)
	if !ok {
		t.Fatal("the writing container died with Berth")
	}
	last, quiet := int64(-1), 0
	harness.Poll(t, 60*time.Second, "the writer to finish", func() bool {
		now, _ := w1.CPUTicks()
		if now == last {
			quiet++
		} else {
			last, quiet = now, 0
		}
		return quiet >= 25
	})

	w.b.Up()
	done := w.stopped(quitting)
	if code := exitCode(t, done, "app"); code != 42 {
		t.Errorf("the exit code of what ended meanwhile is %d, want 42", code)
	}
	w.logs(quitting, contains("got SIGTERM"))
	lines := w.logs(writing, contains("filled"))
	if len(lines) != size/width+2 {
		t.Errorf("%d lines, want %d", len(lines), size/width+2)
	}
	next := 1
	for _, line := range lines {
		if len(line) != width-1 {
			continue // what it said before and after
		}
		if want := fmt.Sprintf("%08d", next); line[:8] != want {
			t.Fatalf("line %s where %s should be", line[:8], want)
		}
		next++
	}
	if next-1 != size/width {
		t.Errorf("%d numbered lines, want %d", next-1, size/width)
	}

	if s := aws.ToString(w.describe(staying).LastStatus); s != "RUNNING" {
		t.Errorf("the steady task is %s", s)
	}
	if after, ok := harness.FindProcess(steady); !ok || after.Pid != before.Pid {
		t.Error("the steady container was restarted")
	}
	w.stop(staying, "")
	w.stop(writing, "")
	if code := exitCode(t, w.stopped(staying), "app"); code != 0 {
		t.Errorf("a re-adopted container exits with %d", code)
	}
	w.stopped(writing)
	harness.Poll(t, 20*time.Second, "the stopped tasks to leave nothing", func() bool {
		return len(harness.LeakedTaskThings(w.b.ID(), w.b.DataDir)) == 0
	})
}

func TestTerminatedBerthLeavesTasks(t *testing.T) {
	t.Parallel()
	w := newWorld(t, harness.Start(t, harness.Options{}))
	token := "token-" + label(t)
	app := w.app("http", ":80", "still here")
	app.Command = append(app.Command, token)
	task := w.running(w.run(w.define(func(in *ecs.RegisterTaskDefinitionInput) {
		in.NetworkMode, in.Cpu, in.Memory = types.NetworkModeAwsvpc, aws.String("256"), aws.String("128")
	}, app)))
	url := "http://" + aws.ToString(task.Containers[0].NetworkInterfaces[0].PrivateIpv4Address) + "/"
	fetch(t, url)
	before, _ := harness.FindProcess(token)
	w.b.Terminate()
	if body := fetch(t, url); body != "still here\n" {
		t.Errorf("without Berth the task answers %q", body)
	}
	w.b.Up()
	if body := fetch(t, url); body != "still here\n" {
		t.Errorf("after Berth's restart the task answers %q", body)
	}
	if after, ok := harness.FindProcess(token); !ok || after.Pid != before.Pid {
		t.Error("the container was restarted")
	}
	// A new task does not get the address of the old one.
	second := w.running(w.run(aws.ToString(task.TaskDefinitionArn)))
	if a, b := aws.ToString(task.Containers[0].NetworkInterfaces[0].PrivateIpv4Address), aws.ToString(second.Containers[0].NetworkInterfaces[0].PrivateIpv4Address); a == b {
		t.Errorf("two tasks have the address %s", a)
	}
}

// TestUpgradeInPlace: another build takes over what the first one started.
func TestUpgradeInPlace(t *testing.T) {
	t.Parallel()
	// The binary is replaced under its own name, as a package manager does.
	binary := filepath.Join(t.TempDir(), "berth")
	install(t, harness.Binary(t), binary)
	b := harness.Start(t, harness.Options{Binary: binary})
	w := newWorld(t, b)
	token := "token-" + label(t)
	old := w.runApp("term", "9", token)
	w.running(old)
	w.logs(old, contains("waiting"))
	b.Terminate()
	install(t, harness.BinaryOf(t, "berth-upgraded", "test-upgraded", ""), binary)
	b.Up()
	if v := b.Run("version"); !strings.Contains(v, "test-upgraded") {
		t.Fatalf("the binary is not the new one: %s", v)
	}
	young := w.runApp("wait")
	w.running(young)
	if s := aws.ToString(w.describe(old).LastStatus); s != "RUNNING" {
		t.Fatalf("the old task is %s", s)
	}
	w.stop(old, "")
	if code := exitCode(t, w.stopped(old), "app"); code != 9 {
		t.Errorf("the old container exits with %d, want 9", code)
	}
	w.logs(old, contains("got SIGTERM"))
	w.stop(young, "")
	w.stopped(young)
	harness.Poll(t, 20*time.Second, "both to leave nothing", func() bool {
		return len(harness.LeakedTaskThings(b.ID(), b.DataDir)) == 0
	})
}

func install(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to+".new", data, 0o755)
	}
	if err == nil {
		err = os.Rename(to+".new", to)
	}
	if err != nil {
		t.Fatalf("install %s: %v", to, err)
	}
}

func TestNewerDataIsRefused(t *testing.T) {
	t.Parallel()
	b := harness.Start(t, harness.Options{})
	newWorld(t, b)
	b.Terminate()
	file := filepath.Join(b.DataDir, "instance.json")
	original, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var record map[string]any
	if err := json.Unmarshal(original, &record); err != nil {
		t.Fatal(err)
	}
	record["version"] = 9999
	newer, _ := json.Marshal(record)
	if err := os.WriteFile(file, newer, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := b.TryUp(); err == nil {
		t.Error("berth started on data of a newer berth")
	} else if log := b.Log(); !strings.Contains(log, "newer") {
		t.Errorf("the refusal does not say why:\n%s", log)
	}
	if kept, _ := os.ReadFile(file); string(kept) != string(newer) {
		t.Error("the refused start changed the data")
	}
	if err := os.WriteFile(file, original, 0o600); err != nil {
		t.Fatal(err)
	}
	b.Up()
}
