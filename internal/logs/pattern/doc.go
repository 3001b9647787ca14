// Package pattern is the filter language of Amazon CloudWatch Logs: the patterns of FilterLogEvents,
// StartLiveTail, metric filters and subscription filters, as the user guide describes them under "Filter
// pattern syntax".
//
// It is pure. What flows through: [Parse] turns a text into a [Pattern] once; [Pattern.Match] asks it of
// one message after the other, in time linear in the message, from any number of goroutines;
// [Match.Extracted] and [Match.Value] answer what TestMetricFilter and a metric's value need of a message
// that matched. [Pattern.Terms] and [Pattern.JSONTerms] tell a store which blocks it need not read.
//
// There are three forms. Terms (ERROR ?warn -"not this" %regex%) are looked for anywhere in the message,
// case counts, parts of words match. A pattern in braces asks about members of a message that is one JSON
// document. A pattern in brackets names the fields of a message that are separated by white space.
//
// Where the guide is silent, or says two things:
//
//   - Optional terms (?a) beside required or excluded ones are ignored, as the guide says.
//   - A comparison of what a message does not have, or of null, a boolean, an object or an array, is false
//     whichever way it is put; IS and NOT EXISTS ask about those.
//   - A wildcard selector ($.a[*]) holds if it holds for one of the values it selects.
//   - Asterisks are wildcards at the beginning and the end of a string, and stand for themselves inside.
//   - A number is compared as a number with numbers and with strings that are plain decimals, and as text
//     with the rest. Order is defined between numbers only.
//   - Without an ellipsis the last field takes the rest of the message, which is how [w1=ERROR, w2] matches
//     lines of any length.
//   - If a member is repeated in an object, the last one that a selector fits is the one that counts.
package pattern
