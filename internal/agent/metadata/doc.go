// Package metadata answers what a container can ask about itself: ECS's task metadata endpoint in its
// versions 2, 3 and 4, container stats, and task protection; and the introspection API of Amazon's
// agent, by which monitoring agents list a host's tasks.
//
// It owns the host's secret from which the endpoint IDs follow, and the last reading of each container
// that somebody asks about. All else it asks for, at each request: the tasks of the agent (Source), the
// readings of the runtime (agent.Processes), the protection of the server (Protector).
//
//	request ─► server: bounds, throttle, path ─► routes ─► directory: who asks, for what
//	                                               │
//	                                               ▼
//	                       agent.TaskSnapshot ─► render (pure) ─► JSON
//
// Paths, field names, their order, and the text and status of every error are those of Amazon's agent
// (amazon-ecs-agent v1.105: agent/handlers, ecs-agent/tmds, ecs-agent/introspection).
//
// # Who may ask
//
// Version 2 names no container: the asker is told by its address, which the host's redirect of
// 169.254.170.2 keeps. From version 3 on the path names a container by its endpoint ID, which its
// environment holds and nobody can guess. Where the asker's address is that of a container, it gets its
// own task alone, whatever ID it has come by: Amazon's agent does not look. Another task's ID is answered as
// one that does not exist.
package metadata
