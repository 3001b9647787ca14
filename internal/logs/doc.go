// Package logs is the CloudWatch Logs service: groups as rows of the store, events in segments.
//
// What flows through:
//
//	PutLogEvents ─► limits, times ─► segment.Store ─► GetLogEvents, FilterLogEvents
//	groups, metric filters ─► rows (few, seldom changed)
//	streams ─► an event for each in the segments of a group beside their own
//
// Streams are many and short-lived, one for each container that ever ran, so they are no rows: a thousand
// tasks a minute would fill etcd with names nobody asks for. That a stream was created is itself an event,
// of the stream's name, in the group "streams:<group>", which no client can name. Its time is the stream's
// creation. So a stream is as durable as what it holds, costs no fsync of its own and some twenty
// compressed bytes, and what holds something is a stream in any case. The names of a group that is in
// use are kept in memory.
//
// Nothing of an event reaches etcd. Positions in tokens are the IDs of events, so a token outlives a
// restart and never skips what was there when it was given.
//
// What is not built is refused: keys of KMS, transformers, data protection, deliveries, anomalies,
// subscription filters, scheduled queries. Entities of PutLogEvents are ignored, as for an account that
// shows none.
package logs
