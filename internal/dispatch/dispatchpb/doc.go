// Package dispatchpb is the wire contract between the server (package dispatch) and the hosts
// (package agent), generated from dispatch.proto.
package dispatchpb

//go:generate sh -c "protoc -I . --go_out=. --go_opt=paths=source_relative --go-grpc_out=. --go-grpc_opt=paths=source_relative dispatch.proto"
