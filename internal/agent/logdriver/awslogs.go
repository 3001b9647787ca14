package logdriver

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"time"

	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
)

// PutLogEvents's limits (API reference, PutLogEvents). The longest event is Docker's: CloudWatch takes
// longer ones since 2025, which Docker's driver does not send.
const (
	eventOverhead = 26
	maxEventBytes = 256<<10 - eventOverhead
)

var awslogsLimits = limits{bytes: 1 << 20, events: 10000, overhead: eventOverhead, span: 24 * time.Hour}

// awslogsShape checks the options as Docker's driver does, with its words, and tells how events are made.
func awslogsShape(options map[string]string) (shape, error) {
	s := shape{line: maxEventBytes, limit: maxEventBytes}
	if err := checkNames("awslogs", options, "awslogs-group", "awslogs-region", "awslogs-create-group",
		"awslogs-stream-prefix", "awslogs-datetime-format", "awslogs-multiline-pattern", "awslogs-endpoint"); err != nil {
		return s, err
	}
	if options["awslogs-group"] == "" {
		return s, errors.New("must specify a value for log opt 'awslogs-group'")
	}
	if v := options["awslogs-create-group"]; v != "" {
		if _, err := strconv.ParseBool(v); err != nil {
			return s, fmt.Errorf("must specify valid value for log opt 'awslogs-create-group': %w", err)
		}
	}
	format, byFormat := options["awslogs-datetime-format"]
	pattern, byPattern := options["awslogs-multiline-pattern"]
	var err error
	switch {
	case byFormat && byPattern:
		return s, errors.New("you cannot configure log opt 'awslogs-datetime-format' and 'awslogs-multiline-pattern' at the same time")
	case byFormat:
		pattern = datetimePattern(format)
		fallthrough
	case byPattern:
		if s.boundary, err = regexp.Compile(pattern); err != nil {
			return s, fmt.Errorf("awslogs could not parse multiline pattern key %q: %w", pattern, err)
		}
	}
	return s, nil
}

// conversions are strftime's as Docker's driver knows them. What stands between them in a format is
// part of the regular expression as it is, so that an operator is escaped by the format's author.
var conversions = map[string]string{
	"%a": `(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)`,
	"%A": `(?:Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday)`,
	"%w": `[0-6]`,
	"%d": `(?:0[1-9]|[12][0-9]|3[01])`,
	"%b": `(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)`,
	"%B": `(?:January|February|March|April|May|June|July|August|September|October|November|December)`,
	"%m": `(?:0[1-9]|1[0-2])`,
	"%Y": `\d{4}`,
	"%y": `\d{2}`,
	"%H": `(?:[01][0-9]|2[0-3])`,
	"%I": `(?:0[0-9]|1[0-2])`,
	"%p": `[AP]M`,
	"%M": `[0-5][0-9]`,
	"%S": `[0-5][0-9]`,
	"%f": `\d{6}`,
	"%z": `[+-]\d{4}`,
	"%Z": `[A-Z]{1,4}T`,
	"%j": `(?:0[0-9][1-9]|[12][0-9][0-9]|3[0-5][0-9]|36[0-6])`,
	"%L": `\.\d{3}`,
}

var conversion = regexp.MustCompile("%.")

// datetimePattern is the regular expression of a strftime format. A conversion that is not known
// matches nothing, the empty text.
func datetimePattern(format string) string {
	return conversion.ReplaceAllStringFunc(format, func(s string) string { return conversions[s] })
}

// streamName is the log stream of a container.
func streamName(options map[string]string, container, containerID, taskID string) string {
	if prefix := options["awslogs-stream-prefix"]; prefix != "" {
		return prefix + "/" + container + "/" + taskID
	}
	return containerID
}

// putTimeout is how long the server may take for one batch.
const putTimeout = 30 * time.Second

// awslogs delivers to CloudWatch Logs, through the server.
type awslogs struct {
	put     func(context.Context, *dispatchpb.PutLogsRequest) (*dispatchpb.PutLogsReply, error)
	request dispatchpb.PutLogsRequest // without events
}

func (a *awslogs) limits() limits { return awslogsLimits }

func (a *awslogs) close() {}

func (a *awslogs) send(ctx context.Context, events []event) (refused int, err error) {
	ctx, cancel := context.WithTimeout(ctx, putTimeout)
	defer cancel()
	r := &dispatchpb.PutLogsRequest{TaskArn: a.request.TaskArn, Container: a.request.Container, Stream: a.request.Stream}
	r.Events = make([]*dispatchpb.LogEvent, len(events))
	for i, e := range events {
		r.Events[i] = &dispatchpb.LogEvent{Timestamp: e.time.UnixMilli(), Message: e.text}
	}
	reply, err := a.put(ctx, r)
	switch {
	case err != nil:
		return 0, err
	case reply.ErrorCode == "":
		return int(min(reply.TooOld+reply.TooNew, int64(len(events)))), nil
	}
	err = fmt.Errorf("%s: %s", reply.ErrorCode, reply.ErrorMessage)
	if !reply.Retry {
		err = final{err}
	}
	return 0, err
}

// prepare makes the log stream, which shows whether events can be put at all. Only a refusal for good
// is an error: a server that is away will be back.
func (a *awslogs) prepare(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, prepareTimeout)
	defer cancel()
	_, err := a.send(ctx, nil)
	if isFinal(err) {
		return fmt.Errorf("failed to create Cloudwatch log stream: %w", err)
	}
	return nil
}
