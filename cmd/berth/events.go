package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/berthhq/berth/internal/admin"
	"github.com/berthhq/berth/internal/ecs/events"
)

// newestEvents is how many events are shown before the live ones.
const newestEvents = 10

// Events implements admin.Backend.
func (s *stack) Events(ctx context.Context, q admin.EventQuery, each func(json.RawMessage) error, missed func(string) error) error {
	log := s.plane.events
	after := log.Find(q.Since)
	if q.Follow && q.Since.IsZero() {
		after = max(0, log.Last()-newestEvents)
	}
	for r := log.Follow(after); q.Follow || r.Pending(); {
		records, err := r.Next(ctx)
		var gap *events.MissedError
		if errors.As(err, &gap) {
			if after > 0 || q.Since.IsZero() && gap.From > 1 {
				if err := missed(gap.Error()); err != nil {
					return err
				}
			}
			continue
		}
		if err != nil {
			return err
		}
		for _, rec := range records {
			if rec.Event.Time.Before(q.Since.Truncate(time.Second)) {
				continue
			}
			raw, err := json.Marshal(rec.Event)
			if err != nil {
				return fmt.Errorf("encode event %d: %w", rec.Seq, err)
			}
			if err := each(raw); err != nil {
				return err
			}
		}
	}
	return nil
}

func eventsCommand(o *options) *cobra.Command {
	var follow, asJSON bool
	var since time.Duration
	cmd := &cobra.Command{
		Use: "events", Short: "Show what happened to tasks and hosts, as AWS's EventBridge would tell it", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			client, _, err := o.connect()
			if err != nil {
				return err
			}
			q := admin.EventQuery{Follow: follow}
			if since > 0 && (!follow || c.Flags().Changed("since")) {
				q.Since = time.Now().Add(-since)
			}
			out := c.OutOrStdout()
			p := eventPrinter{out: out, paint: newPaint(out), json: asJSON}
			err = client.Events(c.Context(), q, p.print, func(text string) error {
				_, err := fmt.Fprintln(c.ErrOrStderr(), "berth:", text)
				return err
			})
			if follow && c.Context().Err() != nil {
				return nil // the user's Ctrl-C is how following ends
			}
			return err
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on as events come; without --since, after the newest ten")
	cmd.Flags().DurationVar(&since, "since", time.Hour, "how far to look back, up to 168h")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the events as they are, one a line")
	return cmd
}

// eventPrinter prints events, a line each.
type eventPrinter struct {
	out   io.Writer
	paint paint
	json  bool
}

// shownEvent is what a line shows of an event of whatever type.
type shownEvent struct {
	Time       time.Time `json:"time"`
	DetailType string    `json:"detail-type"`
	Resources  []string  `json:"resources"`
	Detail     struct {
		// Of a task.
		ClusterARN        string    `json:"clusterArn"`
		TaskARN           string    `json:"taskArn"`
		TaskDefinitionARN string    `json:"taskDefinitionArn"`
		LastStatus        string    `json:"lastStatus"`
		DesiredStatus     string    `json:"desiredStatus"`
		StopCode          string    `json:"stopCode"`
		StoppedReason     string    `json:"stoppedReason"`
		UpdatedAt         time.Time `json:"updatedAt"`
		Containers        []struct {
			Name       string `json:"name"`
			LastStatus string `json:"lastStatus"`
			ExitCode   *int32 `json:"exitCode"`
		} `json:"containers"`
		// Of a container instance.
		ARN            string          `json:"containerInstanceArn"`
		AgentConnected bool            `json:"agentConnected"`
		Status         string          `json:"status"`
		Registered     []shownResource `json:"registeredResources"`
		Remaining      []shownResource `json:"remainingResources"`
		// Of a service.
		EventType string `json:"eventType"`
		EventName string `json:"eventName"`
		Reason    string `json:"reason"`
	} `json:"detail"`
}

type shownResource struct {
	Name    string `json:"name"`
	Integer int64  `json:"integerValue"`
}

func (p eventPrinter) print(raw json.RawMessage) error {
	if p.json {
		_, err := fmt.Fprintf(p.out, "%s\n", raw)
		return err
	}
	var e shownEvent
	if err := json.Unmarshal(raw, &e); err != nil {
		return fmt.Errorf("read an event: %w", err)
	}
	at := e.Time
	if !e.Detail.UpdatedAt.IsZero() {
		at = e.Detail.UpdatedAt
	}
	_, err := fmt.Fprintf(p.out, "%s  %s\n", p.paint.dim(at.Local().Format("15:04:05.000")), p.line(e))
	return err
}

func (p eventPrinter) line(e shownEvent) string {
	d := e.Detail
	switch e.DetailType {
	case events.TaskChange:
		status := fmt.Sprintf("%-14s", d.LastStatus)
		line := fmt.Sprintf("task %s  %-16s  %s", shortARN(d.TaskARN), definitionName(d.TaskDefinitionARN), p.paint.state(status, d.LastStatus, failedCode(d.StopCode)))
		switch {
		case d.LastStatus == "STOPPED":
			line += "  " + d.StoppedReason + exits(e)
		case d.DesiredStatus == "STOPPED":
			line += "  to be STOPPED: " + d.StoppedReason
		}
		return strings.TrimRight(line, " ")
	case events.InstanceChange:
		agent := "agent connected"
		if !d.AgentConnected {
			agent = p.paint.bad("agent gone")
		}
		line := fmt.Sprintf("host %s  %s, %s", shortARN(d.ARN), d.Status, agent)
		for i, r := range d.Remaining {
			if i < len(d.Registered) && (r.Name == "CPU" || r.Name == "MEMORY") {
				unit := map[string]string{"CPU": "CPU units", "MEMORY": "MiB"}[r.Name]
				line += fmt.Sprintf(", %d of %d %s free", r.Integer, d.Registered[i].Integer, unit)
			}
		}
		return line
	}
	resource := ""
	if len(e.Resources) > 0 {
		resource = shortARN(e.Resources[0])
	}
	line := fmt.Sprintf("service %s  %s", resource, p.paint.level(d.EventName, d.EventType))
	if d.Reason != "" {
		line += "  " + d.Reason
	}
	return line
}

// exits lists the exit codes of a stopped task's containers.
func exits(e shownEvent) string {
	var out []string
	for _, c := range e.Detail.Containers {
		if c.ExitCode != nil {
			out = append(out, fmt.Sprintf("%s: %d", c.Name, *c.ExitCode))
		}
	}
	if len(out) == 0 {
		return ""
	}
	return " (" + strings.Join(out, ", ") + ")"
}

// failedCode tells whether a stop code is that of a failure.
func failedCode(code string) bool {
	return code != "UserInitiated" && code != "ServiceSchedulerInitiated"
}

// shortARN is what follows an ARN's resource type, with the beginning of an ID in place of the ID.
func shortARN(arn string) string {
	parts := strings.Split(arn, "/")
	if len(parts) < 2 {
		return arn
	}
	id := parts[len(parts)-1]
	if len(id) == 32 {
		id = id[:12]
	}
	if len(parts) == 2 {
		return id
	}
	return parts[len(parts)-2] + "/" + id
}

func definitionName(arn string) string { return arn[strings.LastIndex(arn, "/")+1:] }
