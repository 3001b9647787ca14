// Package insights is the query language of CloudWatch Logs Insights (Logs Insights QL), as the user guide
// describes it.
//
// It is pure: no I/O and no clock. What flows through: [Parse] turns a text into a [Query] once; [Query.Run]
// reads events one after the other and answers rows, or [Query.Start] makes an [Execution] that is fed by
// its owner and can be asked for what it has so far. [Query.Terms] and [Query.JSONTerms] tell a store which
// blocks it need not read.
//
// A query is a chain of phases. Each computes, extracts and filters row by row, and ends in a collector:
// one that orders rows, drops duplicates and keeps the first so many, or one that groups them. Only the
// first phase sees events; it holds no more than what the collector needs (the best rows so far, or one
// entry a group), within [Options].MaxMemory. The other phases work on what the one before collected. That
// is also how results are shown before the end: they run over what the first has so far.
//
// Commands: fields, display, filter, parse, stats, sort, dedup, limit. What the service has beyond these
// is refused with [UnsupportedError].
//
// Where the guide is silent:
//
//   - A comparison with what an event does not have is false; !=, not like, not in and not are negations,
//     so they hold for it. Arithmetic with it, or with text that is no number, gives nothing.
//   - Values that both read as numbers are compared as numbers, others as text.
//   - Booleans are 1 and 0, those of JSON too.
//   - Without sort, events come latest first, equal times in the order of log, stream and pointer; groups
//     in the order of their keys, times latest first. Missing values sort last.
//   - Weeks begin on Monday; days, months, quarters and years are those of UTC.
//   - count_distinct is exact up to 16,384 values a group and within about 1 % beyond; pct up to 4,096, and
//     within 1 % of the value beyond. stddev is that of a sample.
//   - Fields are discovered in messages that are one JSON object.
package insights
