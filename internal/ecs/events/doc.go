// Package events makes ECS's events, in the shapes in which EventBridge delivers AWS's own, and keeps
// them for a week.
//
// [TaskStateChange] and its siblings shape one event each; [Derive] finds out which events a change of
// the store makes. Both are pure. A [Log] is what has happened, durable in the blob store: whoever
// wants events reads it with [Log.Follow], from any place, and is given only what is durable. A [Feed]
// reads the store's watch into the log.
//
// Events come at least once. The log remembers up to which revision of the store it is complete; a Feed
// that starts again makes the events of whatever changed since, each from the state it finds. So a crash
// repeats events, or leaves out a state that was passed through meanwhile, but never the last one.
// Consumers drop repetitions by the version in the detail, as AWS's documentation tells them to.
package events
