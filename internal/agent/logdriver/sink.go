package logdriver

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// sink is where a container's events go. One goroutine uses it.
type sink interface {
	limits() limits
	// prepare finds out, at the container's creation, what will never work.
	prepare(ctx context.Context) error
	// send delivers events, in order. refused of them were not taken and never will be. An error says
	// that none is known to be taken; if it is final, none ever will be.
	send(ctx context.Context, events []event) (refused int, err error)
	close()
}

// prepareTimeout is how long a container's creation may wait for its driver.
const prepareTimeout = 5 * time.Second

// final is an error that trying again does not help.
type final struct{ error }

func (f final) Unwrap() error { return f.error }

func isFinal(err error) bool {
	var f final
	return errors.As(err, &f)
}

// needsShipping says whether a driver has anything to do here.
func needsShipping(driver string) bool {
	switch driver {
	case "", "json-file", "none":
		return false
	}
	return true
}

// driver checks a record's options and makes its shape and sink. Errors are in Docker's words.
func (d *Drivers) driver(r record) (shape, sink, error) {
	if err := checkMode(r.Options); err != nil {
		return shape{}, nil, err
	}
	switch r.Driver {
	case "awslogs":
		s, err := awslogsShape(r.Options)
		if err != nil {
			return s, nil, err
		}
		k := &awslogs{put: d.cfg.Put}
		k.request.TaskArn, k.request.Container = r.TaskARN, r.Container
		k.request.Stream = streamName(r.Options, r.Container, r.ContainerID, r.taskID())
		return s, k, nil
	case "syslog":
		k, err := d.newSyslog(r)
		return pieces, k, err
	case "gelf":
		k, err := d.newGelf(r)
		return pieces, k, err
	case "fluentd":
		k, err := d.newFluentd(r)
		return pieces, k, err
	case "splunk":
		k, err := newSplunk(r)
		return pieces, k, err
	case "journald":
		return shape{}, nil, errors.New("journald is not enabled on this host")
	}
	return shape{}, nil, fmt.Errorf("logger: no log driver named '%s' is registered", r.Driver)
}
