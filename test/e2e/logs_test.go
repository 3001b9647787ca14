package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
)

// logEvent is an event as the command line prints it.
type logEvent struct {
	Timestamp              int64
	Message, LogStreamName string
}

// TestLogsFromACommandLine: a group from its creation to its end with each command line there is, and tail
// with the one that has it.
func TestLogsFromACommandLine(t *testing.T) {
	t.Parallel()
	for version, binary := range commandLines(t) {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, plain(t))
			group := "/cli/" + label(t)
			aws := func(into any, args ...string) {
				t.Helper()
				if problems, err := cliOf(t, w, binary, into, append([]string{"logs"}, args...)...); err != nil {
					t.Fatalf("%s logs %s: %v\n%s", binary, strings.Join(args, " "), err, problems)
				}
			}
			put := func(at time.Time, messages ...string) {
				t.Helper()
				var events []map[string]any
				for i, m := range messages {
					events = append(events, map[string]any{"timestamp": at.UnixMilli() + int64(i), "message": m})
				}
				batch, _ := json.Marshal(events)
				var out struct{ NextSequenceToken string }
				if aws(&out, "put-log-events", "--log-group-name", group, "--log-stream-name", "app/1", "--log-events", string(batch)); out.NextSequenceToken == "" {
					t.Error("no sequence token")
				}
			}
			aws(nil, "create-log-group", "--log-group-name", group, "--tags", "team=blue")
			aws(nil, "create-log-stream", "--log-group-name", group, "--log-stream-name", "app/1")
			aws(nil, "put-retention-policy", "--log-group-name", group, "--retention-in-days", "3")
			put(time.Now().Add(-time.Second), "INFO first", "ERROR second: übel", "INFO third")
			var read struct {
				Events           []logEvent
				NextForwardToken string
			}
			aws(&read, "get-log-events", "--log-group-name", group, "--log-stream-name", "app/1", "--start-from-head")
			if len(read.Events) != 3 || read.Events[1].Message != "ERROR second: übel" {
				t.Errorf("get-log-events: %s", show(read))
			}
			aws(&read, "filter-log-events", "--log-group-name", group, "--filter-pattern", "?ERROR ?third", "--query", "{Events: events}")
			if len(read.Events) != 2 || read.Events[0].LogStreamName != "app/1" {
				t.Errorf("filter-log-events: %s", show(read))
			}
			var groups struct {
				LogGroups []struct {
					LogGroupName, Arn string
					RetentionInDays   int
				}
			}
			aws(&groups, "describe-log-groups", "--log-group-name-prefix", group)
			if len(groups.LogGroups) != 1 || groups.LogGroups[0].RetentionInDays != 3 {
				t.Errorf("describe-log-groups: %s", show(groups))
			}
			if !strings.HasPrefix(version, "1.") { // tail came with version 2
				w.tail(binary, group, func() { put(time.Now(), "INFO later") })
			}
			aws(nil, "delete-log-group", "--log-group-name", group)
			if problems, err := cliOf(t, w, binary, nil, "logs", "describe-log-streams", "--log-group-name", group); err == nil || !strings.Contains(problems, "ResourceNotFoundException") {
				t.Errorf("describe-log-streams of a group that is gone: %v %s", err, problems)
			}
		})
	}
}

// tail follows a group, and expects what it holds and then what is put.
func (w *world) tail(binary, group string, put func()) {
	w.Helper()
	cmd := exec.CommandContext(ctx(w.T), binary, "--endpoint-url", w.b.Endpoint(), "logs", "tail", group, "--follow", "--since", "5m", "--format", "short")
	cmd.Env = append(w.b.AWSEnv(), "PYTHONUNBUFFERED=1")
	var problems strings.Builder
	cmd.Stderr = &problems
	out, err := cmd.StdoutPipe()
	if err != nil {
		w.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		w.Fatal(err)
	}
	var seen []string
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if _, message, ok := strings.Cut(lines.Text(), " "); ok {
			seen = append(seen, message)
		}
		if len(seen) == 3 {
			put()
		}
		if len(seen) == 4 {
			break
		}
	}
	cmd.Process.Kill()
	cmd.Wait()
	if got := strings.Join(seen, "|"); got != "INFO first|ERROR second: übel|INFO third|INFO later" {
		w.Errorf("logs tail --follow printed %q\n%s", got, problems.String())
	}
}

// TestAwslogs: what a container writes is in its group and stream within seconds, in order.
func TestAwslogs(t *testing.T) {
	t.Parallel()
	w := newWorld(t, plain(t))
	group := "/ecs/" + label(t)
	c := types.ContainerDefinition{
		Name: new("app"), Image: &w.busybox, Memory: new(int32(64)), Command: []string{"sh", "-c", "for i in 1 2 3 4 5; do echo line $i; done; echo wrong >&2; sleep 300"},
		StopTimeout: new(int32(3)), LogConfiguration: &types.LogConfiguration{LogDriver: types.LogDriverAwslogs, Options: map[string]string{
			"awslogs-group": group, "awslogs-region": "us-east-1", "awslogs-stream-prefix": "web", "awslogs-create-group": "true",
		}},
	}
	task := w.run(w.define(nil, c))
	id := (*task.TaskArn)[strings.LastIndexByte(*task.TaskArn, '/')+1:]
	var read struct{ Events []logEvent }
	for deadline := time.Now().Add(60 * time.Second); len(read.Events) < 6 && time.Now().Before(deadline); {
		read.Events = nil
		_, _ = cli(t, w, &read, "logs", "get-log-events", "--region", "us-east-1", "--log-group-name", group,
			"--log-stream-name", fmt.Sprintf("web/app/%s", id), "--start-from-head") // neither may be there yet
	}
	var lines []string
	for _, e := range read.Events {
		lines = append(lines, e.Message)
	}
	if got := strings.Join(lines, "|"); !strings.Contains(got, "line 1|line 2|line 3|line 4|line 5") || !strings.Contains(got, "wrong") {
		t.Errorf("the stream holds %q", got)
	}
}
