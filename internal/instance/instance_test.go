package instance

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// hold opens an instance for the length of a test.
func hold(t *testing.T, dir string) *Instance {
	t.Helper()
	in, err := Hold(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(in.RunDir); in.Release() })
	return in
}

func TestHoldIsExclusiveAndKeepsItsName(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	in := hold(t, dir)
	if _, err := Hold(dir); !errors.Is(err, ErrHeld) {
		t.Fatalf("second Hold: %v; want ErrHeld", err)
	}
	if err := in.Remember(Settings{Listen: "127.0.0.1:1", Account: "111122223333"}); err != nil {
		t.Fatal(err)
	}
	profile := Profile{Home: "/home/somebody", Endpoint: "http://127.0.0.1:1", Region: "us-east-1"}
	for range 2 {
		if err := in.RememberProfile(profile); err != nil {
			t.Fatal(err)
		}
	}
	in.Release()
	again := hold(t, dir)
	if got := again.Profiles(); len(got) != 1 || got[0] != profile {
		t.Errorf("profiles %+v; want %+v, once", got, profile)
	}
	if again.ID != in.ID || again.Settings() != in.Settings() {
		t.Errorf("held again: %v %+v; was %v %+v", again.ID, again.Settings(), in.ID, in.Settings())
	}
	peek, err := Peek(dir)
	if err != nil || peek.ID != in.ID {
		t.Errorf("Peek = %+v, %v", peek, err)
	}
}

func TestNewerFormatIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "instance.json")
	if err := os.WriteFile(file, []byte(`{"version":99,"id":"0a1b2c3d"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, open := range map[string]func(string) (*Instance, error){"Hold": Hold, "Peek": Peek} {
		if _, err := open(dir); !errors.Is(err, ErrNewer) {
			t.Errorf("%s: %v; want ErrNewer", name, err)
		}
	}
}

func TestPeekWithoutInstance(t *testing.T) {
	t.Parallel()
	if _, err := Peek(t.TempDir()); !errors.Is(err, ErrNone) {
		t.Errorf("Peek: %v; want ErrNone", err)
	}
}

func TestDirectoriesArePrivate(t *testing.T) {
	t.Parallel()
	in := hold(t, filepath.Join(t.TempDir(), "new"))
	for _, dir := range []string{in.DataDir, in.RunDir} {
		info, err := os.Stat(dir)
		if err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v, %v; want mode 0700", dir, info.Mode(), err)
		}
	}
	if err := in.Remove(); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{in.DataDir, in.RunDir} {
		if _, err := os.Stat(dir); !os.IsNotExist(err) {
			t.Errorf("%s is still there: %v", dir, err)
		}
	}
}
