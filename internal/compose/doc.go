// Package compose makes ECS task definitions and services out of a Compose file: an extra way in.
//
// The reading and merging of Compose files is compose-go's. [Convert] is pure: a project in, requests
// for RegisterTaskDefinition and CreateService out, with a note for everything that a Compose file
// said and ECS cannot: nothing is dropped silently. A member of a service that this package does not
// know is found by reflection and noted too, so a newer compose-go cannot hide one.
package compose
