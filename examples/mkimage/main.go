// Mkimage makes a container image of one static binary and writes it as a docker-archive, with no
// registry, no daemon and no Dockerfile:
//
//	go run ./examples/mkimage -ref hello:1 -o hello.tar bin/hello
//	berth image import hello.tar
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/berthhq/berth/test/image"
)

func main() {
	ref := flag.String("ref", "", "the image's name, such as hello:1")
	out := flag.String("o", "", "the file to write")
	flag.Parse()
	if *ref == "" || *out == "" || flag.NArg() != 1 {
		fmt.Fprintln(os.Stderr, "usage: mkimage -ref NAME:TAG -o FILE BINARY")
		os.Exit(2)
	}
	if err := write(*ref, *out, flag.Arg(0)); err != nil {
		fmt.Fprintln(os.Stderr, "mkimage:", err)
		os.Exit(1)
	}
}

func write(ref, out, binary string) error {
	tag, err := name.NewTag(ref)
	if err != nil {
		return err
	}
	inside := "/" + filepath.Base(binary)
	img, err := image.New(image.Spec{Files: map[string]string{inside: binary}, Entrypoint: []string{inside}})
	if err != nil {
		return err
	}
	return tarball.WriteToFile(out, tag, img)
}
