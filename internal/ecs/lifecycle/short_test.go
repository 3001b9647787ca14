package lifecycle

import (
	"testing"
	"time"
)

// A task can be over before anyone heard that it runs; it did run all the same.
func TestStartOfATaskWhoseRunningWasOvertaken(t *testing.T) {
	t.Parallel()
	created := time.Date(2026, 11, 23, 2, 0, 0, 0, time.UTC)
	pulled := created.Add(time.Second)
	zero, one := int32(0), int32(1)
	for name, c := range map[string]struct {
		codes []*int32
		want  time.Time
		code  StopCode
	}{
		"all ran":                     {[]*int32{&zero, &one}, pulled, EssentialContainerExited},
		"one was never started":       {[]*int32{&zero, nil}, time.Time{}, TaskFailedToStart},
		"none has an exit code known": {[]*int32{nil, nil}, time.Time{}, TaskFailedToStart},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := New(Facts{CreatedAt: created, Containers: []Member{{Name: "a"}, {Name: "b", Essential: true}}})
			rep := Report{Version: 1, LastStatus: Stopped, PullStoppedAt: pulled, Reason: "CannotStartContainerError: no"}
			if c.code == EssentialContainerExited {
				rep.Reason = ""
			}
			for i, code := range c.codes {
				rep.Containers = append(rep.Containers, ContainerReport{Name: r.Facts.Containers[i].Name, RuntimeID: "r", LastStatus: ContainerStopped, ExitCode: code})
			}
			r, _ = Apply(r, rep, created.Add(time.Minute))
			if !r.Status.StartedAt.Equal(c.want) {
				t.Errorf("startedAt = %v, want %v", r.Status.StartedAt, c.want)
			}
			if stop, _ := r.Stop(); stop.Code != c.code {
				t.Errorf("stop = %+v, want %s", stop, c.code)
			}
		})
	}
}
