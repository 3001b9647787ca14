// Package ecs is the ecs service: the handlers behind Amazon ECS's API.
//
// It owns the meaning of the calls: what they name, what is wrong with them, what they answer. It
// validates, hands tasks to the orchestrator, and reads answers from one snapshot of the store. What
// the service keeps is in package state; decisions are in the pure packages taskdef, placement and
// lifecycle. It knows no other service and no host.
package ecs
