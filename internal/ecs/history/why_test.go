package history

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/berthhq/berth/internal/ecs/lifecycle"
)

func TestGist(t *testing.T) {
	t.Parallel()
	const long = `CannotStartContainerError: failed to create task for container: failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: error during container init: exec: "/nope": stat /nope: no such file or directory`
	for _, c := range []struct {
		in   string
		n    int
		want string
	}{
		{"short: enough", 20, "short: enough"},
		{long, 100, `CannotStartContainerError: … exec: "/nope": stat /nope: no such file or directory`},
		{strings.Repeat("é", 30), 10, "ééééééééé…"},
	} {
		if got := Gist(c.in, c.n); got != c.want {
			t.Errorf("%q in %d is %q, want %q", c.in, c.n, got, c.want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		s, n := rapid.StringMatching(`[a-zé: ]{0,300}`).Draw(t, "text"), rapid.IntRange(10, 200).Draw(t, "n")
		if got := Gist(s, n); utf8.RuneCountInString(got) > n {
			t.Fatalf("%q is longer than %d", got, n)
		}
	})
}

func TestDuration(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		-time.Second: "0 s", 0: "0 ms", 1500 * time.Microsecond: "1 ms", 2300 * time.Millisecond: "2.3 s", 61 * time.Second: "61 s",
		118 * time.Second: "1 min 58 s", 12 * time.Minute: "12 min", 5 * time.Hour: "5.0 h", 30 * time.Hour: "30 h", 72 * time.Hour: "3 days",
	} {
		if got := Duration(d); got != want {
			t.Errorf("%v is %q, want %q", d, got, want)
		}
	}
}

func TestExitMeanings(t *testing.T) {
	t.Parallel()
	for code, want := range map[int32]string{
		0: "success", 1: "", 126: "the command cannot be executed", 127: "the command was not found",
		137: "SIGKILL", 139: "SIGSEGV, a segmentation fault", 143: "SIGTERM", 158: "signal 30", 255: "",
	} {
		if got := exitMeaning(code); got != want {
			t.Errorf("%d means %q, want %q", code, got, want)
		}
	}
}

// TestHints has each common error bring its hint, and no other.
func TestHints(t *testing.T) {
	t.Parallel()
	for reason, want := range map[string]string{
		"CannotPullContainerError: pull image shop/web:1: unauthorized: authentication required": "credentials",
		"CannotPullContainerError: pull image shop/web:1: not found":                             "berth image import",
		"CannotStartContainerError: exec /server: exec format error":                             "another kind of CPU",
		`CannotStartContainerError: exec: "/nope": stat /nope: no such file or directory`:        "not in the image",
		`CannotStartContainerError: exec: "/x": permission denied`:                               "not executable",
		`CannotStartContainerError: exec: "/etc": is a directory`:                                "not executable",
		"CannotStartContainerError: listen tcp 0.0.0.0:80: bind: address already in use":         "Something else on the host listens",
		"CannotCreateContainerError: write /x: no space left on device":                          "disk is full",
		"TaskFailedToStart: AGENT (the host was not connected for 15m0s)":                        "berth status",
		"ResourceInitializationError: failed to download env files: AccessDenied":                "execution role",
		"InternalError: something": "",
	} {
		task := &Task{Spec: *taskSpec(taskID), Extras: make([]Extra, 2)}
		task.Status.Stop = &lifecycle.Cause{Code: lifecycle.TaskFailedToStart, Reason: reason}
		got := task.hints()
		switch {
		case want == "" && len(got) > 0:
			t.Errorf("%s: hints %q, want none", reason, got)
		case want != "" && (len(got) != 1 || !strings.Contains(got[0], want)):
			t.Errorf("%s: hints %q, want one with %q", reason, got, want)
		}
	}
}

// TestBlocked says which container kept another from starting.
func TestBlocked(t *testing.T) {
	t.Parallel()
	const head = "CannotStartContainerError: dependency graph: failed to resolve container ordering dependency [log(127.0.0.1:33485/log:1) (STOPPED->STOPPED) - Exit: 3] for target [web(127.0.0.1:33485/web:1) (NONE->RUNNING)] "
	code := int32(3)
	for verdict, want := range map[string]string{
		"as dependency did not exit successfully.":         `it never started: container "web" depends on container "log", which did not exit successfully (exit code 3); its last output: no table`,
		"because dependency stopped before it was healthy": `which stopped before it was healthy (exit code 3); its last output: no table`,
		"has timed out.": `it never started: container "web" depends on container "log", which has timed out`,
		"":               "it never started: CannotStartContainerError: … failed to resolve",
	} {
		task := &Task{Spec: *taskSpec(taskID), Extras: make([]Extra, 2)}
		task.Extras[1].Lines = []Line{{Text: "no table"}}
		task.Status = lifecycle.Status{
			LastStatus: lifecycle.Stopped, Stop: &lifecycle.Cause{Code: lifecycle.TaskFailedToStart, Reason: strings.TrimSpace(head + verdict)},
			Containers: []lifecycle.Container{{Name: "web", LastStatus: lifecycle.ContainerStopped}, {Name: "log", LastStatus: lifecycle.ContainerStopped, ExitCode: &code}},
		}
		if why := task.Explain(nil, sec(60)).Why; !strings.Contains(why, want) || verdict == "has timed out." && why != want {
			t.Errorf("%q is told as %s", verdict, why)
		}
	}
}

// TestCulprit names the essential container that ended first, not those that were stopped for it.
func TestCulprit(t *testing.T) {
	t.Parallel()
	spec := taskSpec(taskID)
	spec.Containers[1].Essential = true
	ended := func(name string, code int32, at time.Time) lifecycle.Container {
		return lifecycle.Container{Name: name, LastStatus: lifecycle.ContainerStopped, ExitCode: &code, StartedAt: sec(1), FinishedAt: at}
	}
	for _, c := range []struct {
		web, log lifecycle.Container
		want     string
	}{
		{ended("web", 143, sec(9)), ended("log", 1, sec(5)), `container "log" exited with 1, 4.0 s after`},
		{ended("web", 1, sec(5)), ended("log", 0, sec(4)), `container "log" finished`},
		{ended("web", 143, sec(5)), ended("log", 2, sec(5)), `container "log" exited with 2`},
	} {
		task := &Task{Spec: *spec, Extras: make([]Extra, 2), Status: lifecycle.Status{
			LastStatus: lifecycle.Stopped, Stop: &lifecycle.Cause{Code: lifecycle.EssentialContainerExited}, Containers: []lifecycle.Container{c.web, c.log},
		}}
		contains(t, "why", task.Explain(nil, sec(60)).Why, c.want)
	}
}

// TestFailed tells what is a failure from what somebody asked for and from a job that is done.
func TestFailed(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		code lifecycle.StopCode
		exit int32
		want bool
	}{
		{lifecycle.UserInitiated, 137, false}, {lifecycle.ServiceSchedulerInitiated, 143, false}, {lifecycle.EssentialContainerExited, 0, false},
		{lifecycle.EssentialContainerExited, 1, true}, {lifecycle.TaskFailedToStart, 0, true}, {lifecycle.SpotInterruption, 0, true},
	} {
		task := &Task{Spec: *taskSpec(taskID), Status: lifecycle.Status{
			Stop: &lifecycle.Cause{Code: c.code}, Containers: []lifecycle.Container{{ExitCode: &c.exit}, {}},
		}}
		if got := task.Failed(); got != c.want {
			t.Errorf("%s with exit code %d: failed %v", c.code, c.exit, got)
		}
	}
}
