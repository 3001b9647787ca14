package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
)

// Bounds of an environment file, in bytes. Amazon's agent has the same one for a line, as its scanner's
// default, and none for the file.
const (
	maxEnvironmentFile = 1 << 20
	maxEnvironmentLine = 64 << 10
)

// fetchTries is how often environment files are asked for before the task is given up.
const fetchTries = 8

// errEnvironmentFile says that a file is there and cannot be used.
var errEnvironmentFile = errors.New("environment file")

// fetchEnvironment reads the environment files of container i. A name that several files give has the
// value of the first of them.
func fetchEnvironment(ctx context.Context, objects Objects, hostID string, t *dispatchpb.Task, i int) ([]*dispatchpb.KeyValue, error) {
	c := t.Containers[i]
	var out []*dispatchpb.KeyValue
	var errs []string
	var last error
	seen := map[string]bool{}
	for _, arn := range c.EnvironmentFiles {
		variables, err := fetchEnvironmentFile(ctx, objects, &dispatchpb.EnvironmentFileRequest{
			HostId: hostID, TaskArn: t.Arn, Container: c.Name, Arn: arn,
		})
		if err != nil {
			bucket, key := splitObjectARN(arn)
			errs = append(errs, fmt.Sprintf("unable to download env file with key %s from bucket %s, error: %s", key, bucket, plain(err)))
			last = err
			if ctx.Err() != nil {
				break
			}
			continue
		}
		for _, v := range variables {
			if !seen[v.Name] {
				seen[v.Name] = true
				out = append(out, v)
			}
		}
	}
	if len(errs) > 0 {
		return nil, fetchError{strings.Join(errs, ";"), last}
	}
	return out, nil
}

func fetchEnvironmentFile(ctx context.Context, objects Objects, r *dispatchpb.EnvironmentFileRequest) ([]*dispatchpb.KeyValue, error) {
	content, err := objects.EnvironmentFile(ctx, r)
	if err != nil {
		return nil, err
	}
	return parseEnvironmentFile(content)
}

// fetchError is what could not be fetched, in the words of Amazon's agent.
type fetchError struct {
	text  string
	cause error
}

func (e fetchError) Error() string { return e.text }
func (e fetchError) Unwrap() error { return e.cause }

// plain is an error's text without gRPC's frame around it.
func plain(err error) string {
	if s, ok := status.FromError(err); ok {
		return s.Message()
	}
	return err.Error()
}

// permanentFetch says whether an environment file will be missing the next time, too.
func permanentFetch(err error) bool {
	if errors.Is(err, errEnvironmentFile) {
		return true
	}
	switch status.Code(err) {
	case codes.NotFound, codes.PermissionDenied, codes.ResourceExhausted, codes.InvalidArgument, codes.Unimplemented:
		return true
	}
	return false
}

// splitObjectARN takes "arn:aws:s3:::bucket/key" apart.
func splitObjectARN(arn string) (bucket, key string) {
	bucket, key, _ = strings.Cut(arn[strings.LastIndexByte(arn, ':')+1:], "/")
	return bucket, key
}

// parseEnvironmentFile reads lines of the form NAME=value, as Amazon's agent does: a line that begins
// with # is a comment, one without a name, without = or without a value is passed over, and nothing is
// quoted, trimmed or expanded. A name given twice has its last value.
func parseEnvironmentFile(content []byte) ([]*dispatchpb.KeyValue, error) {
	if len(content) > maxEnvironmentFile {
		return nil, fmt.Errorf("%w: %d bytes, more than %d", errEnvironmentFile, len(content), maxEnvironmentFile)
	}
	var out []*dispatchpb.KeyValue
	at := map[string]int{}
	for number := 1; len(content) > 0; number++ {
		var line []byte
		line, content, _ = bytes.Cut(content, []byte("\n"))
		line = bytes.TrimSuffix(line, []byte("\r"))
		switch {
		case len(line) > maxEnvironmentLine:
			return nil, fmt.Errorf("%w: line %d is longer than %d bytes", errEnvironmentFile, number, maxEnvironmentLine)
		case bytes.IndexByte(line, 0) >= 0:
			return nil, fmt.Errorf("%w: line %d contains a NUL byte", errEnvironmentFile, number)
		case bytes.HasPrefix(line, []byte("#")):
			continue
		}
		name, value, ok := strings.Cut(string(line), "=")
		if !ok || name == "" || value == "" {
			continue
		}
		if k, again := at[name]; again {
			out[k].Value = value
			continue
		}
		at[name] = len(out)
		out = append(out, &dispatchpb.KeyValue{Name: name, Value: value})
	}
	return out, nil
}

// dialed is Objects over the agent's own way to the server.
type dialed struct {
	dial func(ctx context.Context) (*grpc.ClientConn, error)
}

func (d dialed) EnvironmentFile(ctx context.Context, r *dispatchpb.EnvironmentFileRequest) ([]byte, error) {
	conn, err := d.dial(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	reply, err := dispatchpb.NewDispatchClient(conn).EnvironmentFile(ctx, r)
	if err != nil {
		return nil, err
	}
	return reply.GetContent(), nil
}
