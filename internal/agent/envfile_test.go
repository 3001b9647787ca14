package agent

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
)

func TestEnvironmentFiles(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.server.objects["arn:aws:s3:::b/one.env"] = "# a comment\nA=1\nB=from one\nEMPTY=\n=x\nno line\nQ=\"quoted $A\"\r\n D=spaces stay \nA=2"
		w.server.objects["arn:aws:s3:::b/two.env"] = "B=from two\nC=x=y\nDEF=two"
		task := testTask("a1", 1)
		c := task.Containers[0]
		c.EnvironmentFiles = []string{"arn:aws:s3:::b/one.env", "arn:aws:s3:::b/two.env"}
		c.Environment = []*dispatchpb.KeyValue{{Name: "DEF", Value: "definition"}}
		w.server.assign(task)
		pass(time.Second)
		wantStatus(t, w, task, statusRunning)
		spec, _, _ := w.runtime.get(containerID(task, 0))
		want := []string{"AWS_EXECUTION_ENV=AWS_ECS_EC2", "AWS_REGION=us-east-1", "AWS_DEFAULT_REGION=us-east-1",
			"A=2", "B=from one", `Q="quoted $A"`, " D=spaces stay ", "C=x=y", "DEF=definition"}
		if !slices.Equal(spec.Environment, want) {
			t.Fatalf("environment %q, want %q", spec.Environment, want)
		}
		if r := w.server.asked[0]; r.TaskArn != task.Arn || r.Container != "c0" || r.HostId != w.agent.HostID() {
			t.Fatalf("asked for as %v", r)
		}
	})
}

func TestEnvironmentFileIsMissing(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		task := testTask("a1", 1)
		task.Containers[0].EnvironmentFiles = []string{"arn:aws:s3:::b/dir/none.env"}
		w.server.assign(task)
		pass(time.Second)
		const want = "ResourceInitializationError: unable to download env file with key dir/none.env from bucket b, error: NoSuchKey: The specified key does not exist."
		if st := wantStatus(t, w, task, statusStopped); st.Reason != want || st.Containers[0].HasExitCode {
			t.Fatalf("reason %q", st.Reason)
		}
		wantNothingLeft(t, w)
	})
}

func FuzzEnvironmentFile(f *testing.F) {
	for _, seed := range []string{"", "A=1", "A=1\nB=2\r\n", "#A=1\n A=1", "=\n==\nA==", "A=\x00", "A=1\nA=2", "\xff=\xfe", strings.Repeat("x", 70000)} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		got, err := parseEnvironmentFile(content)
		if err != nil {
			if got != nil {
				t.Fatalf("an error and %v", got)
			}
			return
		}
		seen := map[string]bool{}
		for _, kv := range got {
			if kv.Name == "" || kv.Value == "" || strings.ContainsAny(kv.Name, "=\n\x00") || strings.ContainsAny(kv.Value, "\n\x00") || kv.Name[0] == '#' || seen[kv.Name] {
				t.Fatalf("%q gives %q=%q", content, kv.Name, kv.Value)
			}
			seen[kv.Name] = true
			if !strings.Contains(string(content), kv.Name+"="+kv.Value) {
				t.Fatalf("%q does not say %q=%q", content, kv.Name, kv.Value)
			}
		}
	})
}
