package agent

import (
	"sync"

	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
)

// outbox holds, for every task, the latest durable report that the server has not acknowledged. It
// belongs to the host, not to a connection: a new session sends all of it.
type outbox struct {
	mu       sync.Mutex
	reports  map[string]*dispatchpb.TaskStatus // by task ARN
	fresh    map[string]bool                   // since the session last took them
	sequence int64                             // of the last durable payload
	ackDue   bool
	replies  []*dispatchpb.InspectReply // to a session that has ended they are of no use, and of no harm
	wake     chan struct{}
}

func newOutbox() *outbox {
	return &outbox{
		reports: map[string]*dispatchpb.TaskStatus{},
		fresh:   map[string]bool{},
		wake:    make(chan struct{}, 1),
	}
}

// report replaces what is to be said of a task.
func (o *outbox) report(st *dispatchpb.TaskStatus) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if old := o.reports[st.Arn]; old != nil && old.Version > st.Version {
		return
	}
	o.reports[st.Arn] = st
	o.fresh[st.Arn] = true
	o.nudge()
}

// acked forgets a report that the server has.
func (o *outbox) acked(arn string, version int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if st := o.reports[arn]; st != nil && st.Version <= version {
		delete(o.reports, arn)
		delete(o.fresh, arn)
	}
}

// drop forgets a task.
func (o *outbox) drop(arn string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.reports, arn)
	delete(o.fresh, arn)
}

// payloadSaved has the payload acknowledged.
func (o *outbox) payloadSaved(sequence int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.sequence = max(o.sequence, sequence)
	o.ackDue = true
	o.nudge()
}

// maxReplies bounds the answers that wait for a session.
const maxReplies = 64

// reply answers an inspection.
func (o *outbox) reply(r *dispatchpb.InspectReply) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.replies) == maxReplies {
		o.replies = o.replies[1:] // whoever asked has given up long ago
	}
	o.replies = append(o.replies, r)
	o.nudge()
}

// again makes everything unacknowledged due.
func (o *outbox) again() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for arn := range o.reports {
		o.fresh[arn] = true
	}
	if len(o.fresh) > 0 {
		o.nudge()
	}
}

// take returns what is due, the acknowledgement first.
func (o *outbox) take() []*dispatchpb.AgentMessage {
	o.mu.Lock()
	defer o.mu.Unlock()
	var out []*dispatchpb.AgentMessage
	if o.ackDue {
		o.ackDue = false
		out = append(out, &dispatchpb.AgentMessage{Message: &dispatchpb.AgentMessage_PayloadAck{
			PayloadAck: &dispatchpb.PayloadAck{Sequence: o.sequence},
		}})
	}
	for arn := range o.fresh {
		out = append(out, &dispatchpb.AgentMessage{Message: &dispatchpb.AgentMessage_TaskStatus{
			TaskStatus: o.reports[arn],
		}})
	}
	clear(o.fresh)
	for _, r := range o.replies {
		out = append(out, &dispatchpb.AgentMessage{Message: &dispatchpb.AgentMessage_InspectReply{InspectReply: r}})
	}
	o.replies = nil
	return out
}

func (o *outbox) nudge() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}
