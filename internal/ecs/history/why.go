package history

import (
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/berthhq/berth/internal/ecs/lifecycle"
)

// why is the one sentence that says it all.
func (t *Task) why(e *Explanation, now time.Time) string {
	cause, ending := t.record().Stop()
	switch {
	case ending:
		why := t.whyStopped(cause)
		if t.Status.LastStatus != lifecycle.Stopped {
			why = "it is being stopped: " + why
			if len(e.Waiting) > 0 {
				why += "; now it " + e.Waiting[0].say(now)
			}
		}
		return why
	case t.Status.LastStatus == lifecycle.Running:
		why := "it has been running for " + Duration(now.Sub(t.Status.StartedAt))
		for _, c := range t.Status.Containers {
			switch {
			case c.Health == lifecycle.Unhealthy:
				return why + fmt.Sprintf("; container %q is unhealthy: %s", c.Name, oneLine(c.HealthOutput, "its check fails"))
			case c.LastStatus == lifecycle.ContainerStopped:
				why += fmt.Sprintf("; container %q, not essential, has ended", c.Name)
			}
		}
		return why
	case len(e.Waiting) > 0:
		return "it " + e.Waiting[0].say(now)
	case t.Placement != nil && t.Status.ConnectedAt.IsZero():
		return fmt.Sprintf("it waits for its host %s to take it, for %s so far", e.Host, Duration(now.Sub(t.Spec.CreatedAt)))
	}
	return fmt.Sprintf("it has been %s for %s", e.State, Duration(now.Sub(e.At)))
}

func (w Waiting) say(now time.Time) string {
	s := "waits: " + w.For
	if w.Container != "" {
		s = fmt.Sprintf("waits: container %q, %s", w.Container, w.For)
	}
	if !w.Since.IsZero() {
		s += ", for " + Duration(now.Sub(w.Since)) + " so far"
	}
	if !w.Deadline.IsZero() {
		s += ", and " + Duration(w.Deadline.Sub(now)) + " more at most"
		if w.Then != "" {
			s += ", then " + w.Then
		}
	}
	return s
}

func (t *Task) whyStopped(cause lifecycle.Cause) string {
	switch cause.Code {
	case lifecycle.UserInitiated:
		who := "it was stopped"
		if cause.By != "" {
			who = cause.By + " stopped it"
		}
		if start := t.Status.StartedAt; !start.IsZero() && t.record().StoppingAt().After(start) {
			who += " after it had run for " + Duration(t.record().StoppingAt().Sub(start))
		}
		if cause.Reason != "" && cause.Reason != "Task stopped by user" {
			who += ": " + oneLine(cause.Reason, "")
		}
		return who
	case lifecycle.EssentialContainerExited:
		if i, ok := t.culprit(); ok {
			return t.whyExited(i)
		}
	case lifecycle.TaskFailedToStart:
		if why := t.whyBlocked(cause.Reason); why != "" {
			return "it never started: " + why
		}
		return "it never started: " + oneLine(cause.Reason, "no reason is known")
	}
	return oneLine(cause.Reason, string(cause.Code))
}

// blockedPattern takes apart what Amazon's agent says of a container that could not start for want of another.
var blockedPattern = regexp.MustCompile(`ordering dependency \[([^(\]]+)\(.*\] for target \[([^(\]]+)\(.*\] (.+)`)

// whyBlocked says in fewer words which container kept which from starting; empty where none did.
func (t *Task) whyBlocked(reason string) string {
	m := blockedPattern.FindStringSubmatch(reason)
	if m == nil {
		return ""
	}
	what := strings.TrimPrefix(strings.TrimPrefix(m[3], "as dependency "), "because dependency ")
	why := fmt.Sprintf("container %q depends on container %q, which %s", m[2], m[1], oneLine(strings.TrimSuffix(what, "."), ""))
	if strings.Contains(what, "timed out") {
		return why // and what came of it afterwards is no cause
	}
	for i, c := range t.Status.Containers {
		if c.Name != m[1] || c.ExitCode == nil {
			continue
		}
		why += fmt.Sprintf(" (exit code %d)", *c.ExitCode)
		if lines := t.Extras[i].Lines; len(lines) > 0 {
			why += "; its last output: " + oneLine(lines[len(lines)-1].Text, "an empty line")
		}
	}
	return why
}

// culprit is the essential container that ended first.
func (t *Task) culprit() (int, bool) {
	best, found := 0, false
	var bestEnd time.Time
	for i, c := range t.Status.Containers {
		if i >= len(t.Spec.Containers) || !t.Spec.Containers[i].Essential || c.LastStatus != lifecycle.ContainerStopped {
			continue
		}
		_, end := t.ran(i)
		earlier := !end.IsZero() && (bestEnd.IsZero() || end.Before(bestEnd))
		// Where times do not tell, the one that failed comes before those that were told to stop.
		worse := end.Equal(bestEnd) && t.failed(i) && !t.failed(best)
		if !found || earlier || worse {
			best, bestEnd, found = i, end, true
		}
	}
	return best, found
}

func (t *Task) failed(i int) bool {
	code := t.Status.Containers[i].ExitCode
	return code == nil || *code != 0 && *code != 143
}

func (t *Task) whyExited(i int) string {
	c, spec := t.Status.Containers[i], t.Spec.Containers[i]
	var b strings.Builder
	fmt.Fprintf(&b, "container %q ", c.Name)
	switch {
	case strings.HasPrefix(c.Reason, "OutOfMemoryError"):
		b.WriteString("ran out of memory")
		if limit := spec.Memory; limit != "" && limit != "0" {
			fmt.Fprintf(&b, " (its limit is %s MiB)", limit)
		}
		b.WriteString(" and was killed")
	case c.ExitCode == nil:
		fmt.Fprintf(&b, "ended: %s", oneLine(c.Reason, "its exit code is not known"))
	case *c.ExitCode == 0:
		b.WriteString("finished (exit code 0)")
	default:
		fmt.Fprintf(&b, "exited with %d", *c.ExitCode)
		if m := exitMeaning(*c.ExitCode); m != "" {
			fmt.Fprintf(&b, " (%s)", m)
		}
	}
	if start, end := t.ran(i); !start.IsZero() && !end.IsZero() {
		fmt.Fprintf(&b, ", %s after it started", Duration(end.Sub(start)))
	}
	if c.ExitCode != nil && *c.ExitCode == 0 {
		b.WriteString("; it is essential, so the task ended")
	} else if lines := t.Extras[i].Lines; len(lines) > 0 {
		fmt.Fprintf(&b, "; last output: %s", oneLine(lines[len(lines)-1].Text, "an empty line"))
	}
	return b.String()
}

// oneLine makes a sentence's part of a text: its first line with something in it, shortened.
func oneLine(s, otherwise string) string {
	for line := range strings.Lines(s) {
		if line = strings.TrimSpace(line); line != "" {
			return Gist(line, 200)
		}
	}
	return otherwise
}

// Gist shortens a chain of errors to n characters or somewhat less: what it begins with says what kind of
// error it is, what it ends with what was wrong, and the steps between matter least.
func Gist(s string, n int) string {
	r := []rune(s)
	if len(r) <= n {
		return s
	}
	head, rest, chain := strings.Cut(s, ": ")
	left := n - len([]rune(head)) - 4
	if !chain || left < n/2 {
		return string(r[:n-1]) + "…"
	}
	tail := []rune(rest)
	tail = tail[max(0, len(tail)-left):]
	if _, clean, ok := strings.Cut(string(tail), ": "); ok && len([]rune(clean)) > left/3 {
		tail = []rune(clean)
	}
	return head + ": … " + string(tail)
}

// signals by their number, with what they usually mean.
var signals = map[int32]string{
	1: "SIGHUP", 2: "SIGINT", 3: "SIGQUIT", 4: "SIGILL, an instruction this CPU does not have", 5: "SIGTRAP",
	6: "SIGABRT, it aborted", 7: "SIGBUS", 8: "SIGFPE, an arithmetic error", 9: "SIGKILL", 10: "SIGUSR1",
	11: "SIGSEGV, a segmentation fault", 12: "SIGUSR2", 13: "SIGPIPE", 14: "SIGALRM", 15: "SIGTERM",
	24: "SIGXCPU", 25: "SIGXFSZ", 31: "SIGSYS, a forbidden system call",
}

// exitMeaning says what an exit code usually means; empty: nothing in particular.
func exitMeaning(code int32) string {
	switch {
	case code == 0:
		return "success"
	case code == 126:
		return "the command cannot be executed"
	case code == 127:
		return "the command was not found"
	case code > 128 && code < 160:
		if s, ok := signals[code-128]; ok {
			return s
		}
		return fmt.Sprintf("signal %d", code-128)
	}
	return ""
}

// A hint says what to do about a reason that matches.
type hint struct {
	match *regexp.Regexp
	say   func(t *Task) string
}

func says(s string) func(*Task) string { return func(*Task) string { return s } }

// hints are in order: of those of one kind the first that matches is given.
var hints = [][]hint{
	{
		{regexp.MustCompile(`CannotPullContainer.*(?i)(denied|unauthorized|authenticat|forbidden|\b40[13]\b)`), func(t *Task) string {
			return "The registry wants credentials that it did not get. Fetch the image where you are logged in and bring it over: `docker pull " + t.image() + " && berth image import --from-docker " + t.image() + "`."
		}},
		{regexp.MustCompile(`CannotPullContainer`), func(t *Task) string {
			return "The host does not have the image and could not fetch it. Bring it over: `berth image import --from-docker " + t.image() + "`, or `docker save " + t.image() + " | berth image import -`. `berth image pull " + t.image() + "` tries the registry again."
		}},
	},
	{
		{regexp.MustCompile(`(?i)exec format error`), says("The image, or its entry point, is for another kind of CPU, or is a script without a #! line. Build it for this host: `docker build --platform linux/$(uname -m)`.")},
		{regexp.MustCompile(`Cannot(Start|Create)Container.*(?i)(executable file not found|no such file or directory)`), says("The program to run is not in the image, or its interpreter is not: look at entryPoint and command, at a #! line that ends in a carriage return, and at a dynamically linked program in an image without libc.")},
		{regexp.MustCompile(`Cannot(Start|Create)Container.*(?i)(permission denied|is a directory)`), says("The program to run is not executable for the container's user: `chmod +x` it in the image, or set another user.")},
	},
	{
		{regexp.MustCompile(`(?i)(address|port) (is )?already (in use|allocated)|port .* in use`), says("Something else on the host listens on that port; `ss -ltnup` says what. A hostPort of 0 takes any that is free.")},
	},
	{
		{regexp.MustCompile(`(?i)no space left on device`), says("The host's disk is full: `berth image ls` and `berth image rm` free what images take.")},
	},
	{
		{regexp.MustCompile(`AGENT|the host (was not connected|did not acknowledge)`), says("`berth status` shows whether the host's agent is connected.")},
	},
	{
		{regexp.MustCompile(`ResourceInitializationError`), says("Something that the containers need could not be made before they started; the reason says what. Look at the execution role, environment files and secrets.")},
	},
}

// image is the one that a pull failed for, as far as the containers tell.
func (t *Task) image() string {
	for i, c := range t.Status.Containers {
		if strings.Contains(c.Reason, "CannotPull") && i < len(t.Spec.Containers) {
			return t.Spec.Containers[i].Image
		}
	}
	if cause, ok := t.record().Stop(); ok {
		for _, c := range t.Spec.Containers {
			if strings.Contains(cause.Reason, c.Image) {
				return c.Image
			}
		}
	}
	return t.Spec.Containers[0].Image
}

func (t *Task) hints() []string {
	var texts []string
	if cause, ok := t.record().Stop(); ok && cause.Code != lifecycle.UserInitiated {
		texts = append(texts, cause.Reason)
	}
	var out []string
	for i, c := range t.Status.Containers {
		if i >= len(t.Spec.Containers) {
			break
		}
		texts = append(texts, c.Reason)
		for _, l := range t.Extras[i].Lines {
			if t.failed(i) && c.ExitCode != nil {
				texts = append(texts, l.Text)
			}
		}
		switch {
		case strings.HasPrefix(c.Reason, "OutOfMemoryError"):
			limit := "the task's memory"
			if m := t.Spec.Containers[i].Memory; m != "" && m != "0" {
				limit = "memory of container \"" + c.Name + "\" (" + m + " MiB)"
			}
			out = append(out, "Raise "+limit+", or have the program take less.")
		case c.ExitCode != nil && *c.ExitCode == 137 && t.Desired.Stop != nil:
			out = append(out, fmt.Sprintf("Container %q did not end on its stop signal within its stopTimeout and was killed. Have it handle SIGTERM (`exec` in shell scripts), or give it an init process.", c.Name))
		case c.Health == lifecycle.Unhealthy:
			out = append(out, fmt.Sprintf("Run the check of container %q by hand to see why it fails.", c.Name))
		}
	}
	for _, kind := range hints {
		if h := first(kind, texts); h != nil {
			out = append(out, h.say(t))
		}
	}
	return out
}

func first(kind []hint, texts []string) *hint {
	for i := range kind {
		for _, s := range texts {
			if kind[i].match.MatchString(s) {
				return &kind[i]
			}
		}
	}
	return nil
}

// placementHint says what to do about hosts that refuse a task for a reason.
func placementHint(reason string) string {
	switch {
	case reason == "RESOURCE:CPU", reason == "RESOURCE:MEMORY":
		return "Stop tasks that are not needed (`berth status` lists them), ask for less in the task definition, or add a host."
	case reason == "RESOURCE:PORTS":
		return "Another task holds the port: hostPort 0 takes any that is free, and mode awsvpc gives each task all of them."
	case reason == "RESOURCE:ENI":
		return "The host has no address left for awsvpc tasks: stop some, or run the host with a larger subnet."
	case reason == "RESOURCE:GPU":
		return "The host has not as many free GPUs: those that its CDI specifications name count."
	case reason == "AGENT":
		return "The host's agent is not connected: `berth status` shows since when."
	case reason == "ATTRIBUTE", strings.Contains(reason, "constraint"):
		return "Look at the placement constraints and at what the hosts have: `aws ecs list-attributes --target-type container-instance`."
	}
	return ""
}
