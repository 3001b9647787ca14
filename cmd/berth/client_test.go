package main

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/berthhq/berth/internal/admin"
	"github.com/berthhq/berth/internal/awsprofile"
	"github.com/berthhq/berth/internal/instance"
)

func TestLinePrinter(t *testing.T) {
	t.Parallel()
	line := func(container, stream, text string, partial bool) admin.LogLine {
		return admin.LogLine{Container: container, Stream: stream, Text: []byte(text), Partial: partial}
	}
	several := func(container, text string, partial bool) admin.LogLine {
		l := line(container, "stdout", text, partial)
		l.Several = true
		return l
	}
	for name, c := range map[string]struct {
		lines    []admin.LogLine
		out, err string
	}{
		"one container, byte for byte": {
			lines: []admin.LogLine{line("a", "stdout", "x\x00\xff", false), line("a", "stderr", "oops", false)},
			out:   "x\x00\xff\n", err: "oops\n",
		},
		"a long line in parts": {
			lines: []admin.LogLine{line("a", "stdout", "be", true), line("a", "stdout", "rth", false)},
			out:   "berth\n",
		},
		"several containers are told apart, once a line": {
			lines: []admin.LogLine{
				several("a", "1", false), several("b", "2", true), several("b", "3", false), several("a", "4", false),
			},
			out: "a | 1\nb | 23\na | 4\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out, err bytes.Buffer
			p := &linePrinter{out: &out, errOut: &err}
			for _, l := range c.lines {
				if e := p.print(l); e != nil {
					t.Fatal(e)
				}
			}
			if out.String() != c.out || err.String() != c.err {
				t.Errorf("printed %q and %q, want %q and %q", out.String(), err.String(), c.out, c.err)
			}
		})
	}
}

func TestEveryCommandTakesTheTwoFlags(t *testing.T) {
	t.Parallel()
	root := command()
	for _, c := range root.Commands() {
		for _, name := range []string{"data-dir", "listen"} {
			if c.InheritedFlags().Lookup(name) == nil {
				t.Errorf("berth %s has no --%s", c.Name(), name)
			}
		}
	}
}

func TestImpossibleSettingsAreRefusedBeforeAnythingIsMade(t *testing.T) {
	t.Parallel()
	for name, args := range map[string][]string{
		"--listen":  {"--listen", "nonsense"},
		"loopback":  {"--dev", "--listen", "0.0.0.0:0"},
		"--account": {"--account", "12"},
		"--region":  {"--region", "no where"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "data")
			var out, errOut bytes.Buffer
			c := command()
			c.SetOut(&out)
			c.SetErr(&errOut)
			c.SetArgs(append([]string{"up", "--no-aws-profile", "--data-dir", dir}, args...))
			err := c.ExecuteContext(t.Context())
			if err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("%v; want what is wrong with %s", err, name)
			}
			if out.Len()+errOut.Len() > 0 {
				t.Errorf("said %q and %q before it refused", out.String(), errOut.String())
			}
			if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the data directory was made: %v", err)
			}
		})
	}
}

// TestResetFindsTheProfileItAdded: it may be called by another user than the one who called up, on
// another address.
func TestResetFindsTheProfileItAdded(t *testing.T) {
	t.Parallel()
	in, err := instance.Hold(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(in.RunDir); in.Release() })
	id, secret, err := rootKey(in)
	if err != nil {
		t.Fatal(err)
	}
	home := awsprofile.Home{Dir: t.TempDir(), UID: os.Geteuid(), GID: os.Getegid()}
	p := awsprofile.Profile{Endpoint: "http://127.0.0.1:1", Region: "eu-west-1", AccessKeyID: id, SecretAccessKey: secret}
	if _, err := awsprofile.Add(home, p); err != nil {
		t.Fatal(err)
	}
	if err := in.RememberProfile(instance.Profile{Home: home.Dir, Endpoint: p.Endpoint, Region: p.Region}); err != nil {
		t.Fatal(err)
	}
	if err := in.Remember(instance.Settings{Listen: "127.0.0.1:2", Region: "us-east-1"}); err != nil {
		t.Fatal(err)
	}
	if err := removeProfile(in); err != nil {
		t.Fatal(err)
	}
	if awsprofile.Exists(home) {
		t.Error("the profile is still there")
	}
}

func TestEndpointIsOneThatAClientCanUse(t *testing.T) {
	t.Parallel()
	for listen, want := range map[string]string{
		"127.0.0.1:4566": "http://127.0.0.1:4566", "0.0.0.0:1": "http://127.0.0.1:1", ":1": "http://127.0.0.1:1",
		"[::]:1": "http://[::1]:1", "192.0.2.1:1": "http://192.0.2.1:1", "[2001:db8::1]:1": "http://[2001:db8::1]:1",
	} {
		if got := endpoint(listen); got != want {
			t.Errorf("endpoint(%q) = %s; want %s", listen, got, want)
		}
	}
}

func TestMissingArgumentsAreNamed(t *testing.T) {
	t.Parallel()
	for want, args := range map[string][]string{
		"TASK": {"logs"}, "IMAGES": {"image", "rm"}, "one IMAGE": {"image", "pull", "a", "b"}, "FILE": {"image", "import"},
	} {
		c := command()
		c.SetArgs(args)
		if err := c.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("berth %v: %v; want %q named", args, err, want)
		}
	}
}

func TestCount(t *testing.T) {
	t.Parallel()
	for n, want := range map[int]string{0: "0 tasks", 1: "1 task", 2: "2 tasks"} {
		if got := count(n, "task", "tasks"); got != want {
			t.Errorf("count(%d) = %q; want %q", n, got, want)
		}
	}
}
