package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// trimAll remakes every trimmed model from a botocore data directory.
func trimAll(root, dataDir string) error {
	for _, s := range served {
		raw, err := readModel(filepath.Join(dataDir, filepath.FromSlash(s.data), "service-2.json"))
		if err != nil {
			return err
		}
		out, err := trim(raw, s.operations, s.without)
		if err != nil {
			return fmt.Errorf("trimming the model of %s: %w", s.pkg, err)
		}
		path := filepath.Join(root, "api", "models", s.pkg+".json")
		if err := os.WriteFile(path, out, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// readModel reads a model file, which newer botocores keep compressed.
func readModel(path string) ([]byte, error) {
	raw, err := os.ReadFile(path)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return raw, err
	}
	f, err := os.Open(path + ".gz")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if _, err := b.ReadFrom(z); err != nil {
		return nil, fmt.Errorf("decompressing %s: %w", path, err)
	}
	return b.Bytes(), nil
}

// trim keeps the operations asked for (nil: all) without those to be left out, the shapes they reach, and
// no prose.
func trim(raw []byte, operations, without []string) ([]byte, error) {
	var m struct {
		Version    string                    `json:"version"`
		Metadata   map[string]any            `json:"metadata"`
		Operations map[string]map[string]any `json:"operations"`
		Shapes     map[string]map[string]any `json:"shapes"`
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	if err := d.Decode(&m); err != nil {
		return nil, err
	}

	reached := map[string]bool{}
	var reach func(ref any) error
	reach = func(ref any) error {
		r, ok := ref.(map[string]any)
		if !ok {
			return nil
		}
		delete(r, "documentation")
		name, _ := r["shape"].(string)
		if reached[name] {
			return nil
		}
		s, ok := m.Shapes[name]
		if !ok {
			return fmt.Errorf("no shape %q", name)
		}
		reached[name] = true
		delete(s, "documentation")
		members, _ := s["members"].(map[string]any)
		for _, ref := range members {
			if err := reach(ref); err != nil {
				return err
			}
		}
		for _, k := range []string{"member", "key", "value"} {
			if err := reach(s[k]); err != nil {
				return err
			}
		}
		return nil
	}
	for name, op := range m.Operations {
		if operations != nil && !slices.Contains(operations, name) || slices.Contains(without, name) {
			delete(m.Operations, name)
			continue
		}
		delete(op, "documentation")
		delete(op, "documentationUrl")
		errs, _ := op["errors"].([]any)
		for _, ref := range append(errs, op["input"], op["output"]) {
			if err := reach(ref); err != nil {
				return nil, fmt.Errorf("operation %s: %w", name, err)
			}
		}
	}
	for _, name := range operations {
		if m.Operations[name] == nil {
			return nil, fmt.Errorf("no operation %q", name)
		}
	}
	for name := range m.Shapes {
		if !reached[name] {
			delete(m.Shapes, name)
		}
	}

	var b bytes.Buffer
	e := json.NewEncoder(&b) // sorts maps
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	if err := e.Encode(m); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
