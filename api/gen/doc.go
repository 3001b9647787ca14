// Command gen writes the packages under api from the trimmed models in api/models, and the
// compatibility table in docs from the packages that implement them.
//
//	go run ./api/gen            write everything (go generate ./api)
//	go run ./api/gen -check     write nothing; exit 1 and name what is stale
//	go run ./api/gen trim DIR   remake api/models from botocore's data directory DIR
//
// Generation reads only what is in the repository, so it is reproducible offline; trim is for taking
// over a newer model. The commands work from anywhere inside the repository.
package main
