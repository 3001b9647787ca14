package logs_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/berthhq/berth/api"
	logsapi "github.com/berthhq/berth/api/logs"
)

// modelled is an event as the plain model keeps it: what came later stands later.
type modelled struct {
	stream, message string
	at              int64
}

func (m modelled) String() string { return fmt.Sprintf("%s %d %s", m.stream, m.at, m.message) }

// TestModel holds reading and filtering, page by page in both directions, against a plain list, while
// streams are put into, deleted and made again, and the service is started anew.
func TestModel(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	rapid.Check(t, func(rt *rapid.T) {
		if err := w.service.Clear(t.Context(), account); err != nil { // of what the run before left
			rt.Fatal(err)
		}
		base := time.Now().Add(-time.Hour).UnixMilli()
		names := []string{"a", "a/b", "c"}
		w.group(t, "g", names...)
		var all []modelled
		sorted := func(keep func(modelled) bool) (out []string) {
			list := slices.Clone(all)
			slices.SortStableFunc(list, func(a, b modelled) int { return int(a.at - b.at) })
			for _, m := range list {
				if keep(m) {
					out = append(out, m.String())
				}
			}
			return out
		}
		same := func(what string, got, want []string) {
			if !slices.Equal(got, want) {
				rt.Fatalf("%s:\n got %s\nwant %s", what, strings.Join(got, ", "), strings.Join(want, ", "))
			}
		}
		n := 0
		rt.Repeat(map[string]func(*rapid.T){
			"put": func(rt *rapid.T) {
				stream := rapid.SampledFrom(names).Draw(rt, "stream")
				times := rapid.SliceOfN(rapid.Int64Range(0, 20), 1, 6).Draw(rt, "times")
				slices.Sort(times)
				in := &logsapi.PutLogEventsInput{LogGroupName: api.Ptr("g"), LogStreamName: &stream}
				for _, at := range times {
					n++
					message := fmt.Sprintf("%s %d", rapid.SampledFrom([]string{"ERROR", "info", "long " + strings.Repeat("x", 2000)}).Draw(rt, "word"), n)
					in.LogEvents = append(in.LogEvents, logsapi.InputLogEvent{Timestamp: api.Ptr(base + at), Message: &message})
					all = append(all, modelled{stream, message, base + at})
				}
				if _, err := w.PutLogEvents(t.Context(), in); err != nil {
					rt.Fatal(err)
				}
			},
			"delete": func(rt *rapid.T) {
				stream := rapid.SampledFrom(names).Draw(rt, "stream")
				if _, err := w.DeleteLogStream(t.Context(), &logsapi.DeleteLogStreamInput{LogGroupName: api.Ptr("g"), LogStreamName: &stream}); err != nil {
					rt.Fatal(err)
				}
				if _, err := w.CreateLogStream(t.Context(), &logsapi.CreateLogStreamInput{LogGroupName: api.Ptr("g"), LogStreamName: &stream}); err != nil {
					rt.Fatal(err)
				}
				all = slices.DeleteFunc(all, func(m modelled) bool { return m.stream == stream })
			},
			"restart": func(rt *rapid.T) { w.open(t) },
			"get": func(rt *rapid.T) {
				stream := rapid.SampledFrom(names).Draw(rt, "stream")
				forward := rapid.Bool().Draw(rt, "forward")
				from, to := rapid.Int64Range(0, 20).Draw(rt, "from"), rapid.Int64Range(0, 21).Draw(rt, "to")
				in := &logsapi.GetLogEventsInput{LogGroupName: api.Ptr("g"), LogStreamName: &stream, StartFromHead: &forward,
					Limit: api.Ptr(rapid.Int32Range(1, 5).Draw(rt, "limit")), StartTime: api.Ptr(base + from), EndTime: api.Ptr(base + to)}
				var got []string
				for {
					out, err := w.GetLogEvents(t.Context(), in)
					if err != nil {
						rt.Fatal(err)
					}
					var page []string
					for _, e := range out.Events {
						page = append(page, modelled{stream, *e.Message, *e.Timestamp}.String())
					}
					next := out.NextForwardToken
					if forward {
						got = append(got, page...)
					} else {
						got, next = append(page, got...), out.NextBackwardToken
					}
					if in.NextToken != nil && *in.NextToken == *next {
						if len(page) > 0 {
							rt.Fatalf("the token %s stays, and yet there is %v", *next, page)
						}
						break
					}
					if in.NextToken = next; from >= to {
						break
					}
				}
				same(fmt.Sprintf("get %s forward %t %d to %d", stream, forward, from, to), got,
					sorted(func(m modelled) bool { return m.stream == stream && m.at >= base+from && m.at < base+to }))
			},
			"filter": func(rt *rapid.T) {
				text, prefix := rapid.SampledFrom([]string{"", "ERROR", "-ERROR", "ERROR -1"}).Draw(rt, "pattern"), rapid.SampledFrom([]string{"", "a", "c"}).Draw(rt, "prefix")
				to := rapid.Int64Range(0, 20).Draw(rt, "to")
				in := &logsapi.FilterLogEventsInput{LogGroupName: api.Ptr("g"), FilterPattern: &text, Limit: api.Ptr(rapid.Int32Range(1, 7).Draw(rt, "limit")), EndTime: api.Ptr(base + to)}
				if prefix != "" {
					in.LogStreamNamePrefix = &prefix
				}
				var got []string
				ids := map[string]bool{}
				for {
					out, err := w.FilterLogEvents(t.Context(), in)
					if err != nil {
						rt.Fatal(err)
					}
					for _, e := range out.Events {
						if ids[*e.EventId] {
							rt.Fatalf("%s comes twice", *e.EventId)
						}
						ids[*e.EventId] = true
						got = append(got, modelled{*e.LogStreamName, *e.Message, *e.Timestamp}.String())
					}
					if out.NextToken == nil {
						break
					}
					if len(out.Events) != int(*in.Limit) {
						rt.Fatalf("a page of %d events that is not the last", len(out.Events))
					}
					in.NextToken = out.NextToken
				}
				same(fmt.Sprintf("filter %q %q", text, prefix), got, sorted(func(m modelled) bool {
					is := strings.Contains(m.message, "ERROR")
					switch text {
					case "ERROR -1":
						is = is && !strings.Contains(m.message, "1")
					case "-ERROR":
						is = !is
					case "":
						is = true
					}
					return is && strings.HasPrefix(m.stream, prefix) && m.at <= base+to
				}))
			},
		})
	})
}
