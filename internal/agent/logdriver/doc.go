// Package logdriver brings what containers write from the spool to where their log configurations
// say: the agent's LogDrivers.
//
//	spool ─► Reader ─► collector ─► batch ─► sink ─► the server (awslogs), a socket, an HTTP endpoint
//	  ▲                (events)    (limits)    │
//	  └──────────── cursor, durable ◄──────────┘ once delivered
//
// One goroutine a container reads, batches and delivers, in order. It never stands between a container
// and the spool: whatever happens to a destination, the container goes on writing, and `berth logs` goes
// on reading the same spool. Drivers that are "", json-file and none have nothing to do here.
//
// # Delivery
//
// A batch that cannot be delivered is tried again, with a growing pause, until it is or the destination
// says that it never will be. The cursor moves once a batch is delivered, so a Berth that is killed goes
// on where it was; at most the batch that was under way is delivered twice. What a destination refuses
// for good is dropped, counted in [Stats] and logged.
//
// While a destination is away the spool keeps the output, and the agent keeps the spool of a stopped
// task beyond its retention, up to [MaxAge]. The spool is bounded: beyond its limit (64 MiB a container
// by default) its oldest segment goes, delivered or not. How many bytes that cost is delivered as an
// event of its own, in the place of what is missing, and counted as lost.
//
// # Modes
//
// Docker's modes say what a container's write does when the driver is behind: it waits (blocking), or
// messages are dropped once max-buffer-size of them wait (non-blocking). Here the spool stands between
// the two, so both modes behave alike: no write waits for a destination, and nothing is dropped before
// the spool is full. mode and max-buffer-size are checked as Docker checks them, and a max-buffer-size
// below the spool's limit means that more is kept than was asked for. As on ECS since June 2025, no mode
// means non-blocking.
//
// # Events of awslogs
//
// A line is an event; longer ones are split at 256 KiB less 26 bytes as CloudWatch counts them, empty
// ones are left out, and bytes that are not UTF-8 become U+FFFD each, all as in Docker's driver (the spool
// keeps them as they were). With awslogs-multiline-pattern or awslogs-datetime-format a matching line
// begins an event, and each line keeps its newline; the last event goes out when its container ends or
// nothing has been added to it for 3 s. Batches keep to PutLogEvents's limits and leave half a second
// after their first event at the latest.
//
// The server puts the events where the task's definition says, with the rights of the task's execution
// role: a host holds no credentials.
//
// # Other drivers
//
// syslog, fluentd, gelf and splunk take Docker's options. A line is an event, in pieces of 16 KiB if it
// is longer. As with Docker, a destination that is connected to (TCP, a socket; not with fluentd-async)
// must be there when the container is created; later it may come and go. What a broken TCP connection
// had taken may be lost, or be sent again: only awslogs, splunk, and fluentd with fluentd-request-ack
// know what arrived. Not known are client certificates, the functions in tag templates, and journald. A
// socket in Berth's own directories is nobody's address.
package logdriver
