// Package blob holds bulk data: what is too big or too plenty for the state in etcd. Stopped tasks
// after an hour, the reasons of runs, events, and the objects of the s3 service are kept here; logs,
// metrics and traces will be.
//
// [Store] is the door. [Dir] keeps objects in a directory; any S3 can stand in its place.
package blob
