// Package taskdef is what ECS knows of a task definition without running it: what is valid, how it
// is written back, what it asks of a host, and what a RunTask override makes of it.
//
// It is pure, over the generated types of api/ecs. A definition is a value: nothing here changes its
// argument. What flows through:
//
//	RegisterTaskDefinition input ─ [Register] ─► the definition as stored and echoed
//	  ─ [Resolve] with RunTask's overrides ─► the definition this task really runs
//	  ─ [RequirementsOf] ─► what placement reserves
//
// # Errors
//
// Clients and people match the texts of ECS's errors, so the texts here are ECS's own where one is
// known: from captured responses of the service, from issues of its clients, from its documentation.
// Where none is known the words are ours in ECS's manner, and the type is still right: a
// ClientException for what is wrong with a definition, an InvalidParameterException for what is wrong
// with a RunTask. The order of checks is ECS's as far as it has been seen: containers' memory before
// what Fargate asks.
//
// # The echo
//
// Defaults that ECS writes into a stored definition are written here too, because clients compare
// what they sent with what they read. Registering an echo gives the same echo. Roles, images and
// secrets are checked for their form only.
package taskdef
