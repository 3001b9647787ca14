package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
)

// served lists the services there are packages for.
var served = []service{
	{pkg: "ecs", data: "ecs/2014-11-13", impl: "internal/ecs"},
	{pkg: "logs", data: "logs/2014-03-28", impl: "internal/logs", without: logsWithout},
	{pkg: "s3", data: "s3/2006-03-01", impl: "internal/s3", without: s3Without, rest: &s3REST},
	{pkg: "sts", data: "sts/2011-06-15", impl: "internal/sts"},
}

// service is one service to generate.
type service struct {
	pkg        string   // Go package, and the model's file name
	data       string   // directory in botocore's data
	impl       string   // directory of the implementation, for the compatibility table
	operations []string // those served; nil: all of the model
	without    []string // those left out all the same
	rest       *rest    // what botocore's model does not say; nil: nothing
}

func main() {
	check := flag.Bool("check", false, "write nothing, exit 1 if a generated file is stale")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: gen [-check] | gen trim BOTOCORE-DATA-DIR")
		flag.PrintDefaults()
	}
	flag.Parse()
	if err := run(*check, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}

func run(check bool, args []string) error {
	root, err := findRoot()
	if err != nil {
		return err
	}
	switch {
	case len(args) == 2 && args[0] == "trim" && !check:
		return trimAll(root, args[1])
	case len(args) != 0:
		flag.Usage()
		return errors.New("unknown arguments")
	}
	files, err := generate(root)
	if err != nil {
		return err
	}
	if check {
		return compare(root, files)
	}
	return write(root, files)
}

// generate makes every generated file, by path relative to the repository's root.
func generate(root string) (map[string][]byte, error) {
	files := map[string][]byte{}
	var table []tableEntry
	for _, s := range served {
		m, err := loadModel(filepath.Join(root, "api", "models", s.pkg+".json"))
		if err != nil {
			return nil, err
		}
		s.rest.amend(m)
		p, err := resolve(s.pkg, m)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s.pkg, err)
		}
		for name, src := range p.emit() {
			formatted, err := format(src)
			if err != nil {
				return nil, fmt.Errorf("api/%s/%s: %w", s.pkg, name, err)
			}
			files[filepath.Join("api", s.pkg, name)] = formatted
		}
		implemented, err := implementedOperations(root, s)
		if err != nil {
			return nil, fmt.Errorf("reading what %s implements: %w", s.impl, err)
		}
		table = append(table, tableEntry{p, implemented})
	}
	files[filepath.Join("docs", "compatibility.md")] = compatibility(table)
	return files, nil
}

func compare(root string, files map[string][]byte) error {
	var stale []string
	for path, want := range files {
		have, err := os.ReadFile(filepath.Join(root, path))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if !bytes.Equal(have, want) {
			stale = append(stale, path)
		}
	}
	if len(stale) == 0 {
		return nil
	}
	sort.Strings(stale)
	return fmt.Errorf("stale, run go generate ./api: %v", stale)
}

func write(root string, files map[string][]byte) error {
	for path, content := range files {
		path = filepath.Join(root, path)
		if have, err := os.ReadFile(path); err == nil && bytes.Equal(have, content) {
			continue // keep the time stamp, and with it the build cache
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// findRoot walks up from the working directory to the one that holds go.mod.
func findRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("no go.mod above the working directory")
		}
		dir = parent
	}
}
