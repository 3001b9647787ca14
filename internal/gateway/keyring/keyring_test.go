package keyring

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/berthhq/berth/internal/caller"
	"github.com/berthhq/berth/internal/gateway/sigv4"
)

const account = "123456789012"

func open(t testing.TB, dir string) *Keyring {
	t.Helper()
	k, err := Open(dir, account)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func assumed() caller.Principal {
	return caller.Principal{Kind: caller.AssumedRole, AccountID: account, RoleARN: "arn:aws:iam::" + account + ":role/r",
		ARN: "arn:aws:sts::" + account + ":assumed-role/r/s", UserID: "AROAX:s", SourceIdentity: "alice"}
}

func faultOf(err error) sigv4.Fault {
	var refused *sigv4.Error
	if errors.As(err, &refused) {
		return refused.Fault
	}
	return ""
}

func TestRootKey(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "credentials")
	root := open(t, dir).Root()
	if !strings.HasPrefix(root.AccessKeyID, "AKIA") || len(root.AccessKeyID) != 20 || len(root.SecretAccessKey) != 40 {
		t.Errorf("root key %q with a secret of %d characters", root.AccessKeyID, len(root.SecretAccessKey))
	}
	if got, ok := AccountOf(root.AccessKeyID); !ok || got != account {
		t.Errorf("the root key's account is %q", got)
	}
	for _, name := range []string{"root-key.json", "session-keys.json"} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	again := open(t, dir)
	if again.Root() != root {
		t.Error("another root key at the second start")
	}
	secret, p, err := again.Lookup(context.Background(), root.AccessKeyID, "")
	if err != nil || secret != root.SecretAccessKey || p.ARN != "arn:aws:iam::"+account+":root" || p.Session || p.AccessKeyID != root.AccessKeyID {
		t.Errorf("got %+v, %v", p, err)
	}
	if _, _, err := again.Lookup(context.Background(), "AKIAIOSFODNN7EXAMPLE", ""); faultOf(err) != sigv4.UnknownKey {
		t.Errorf("unknown key: %v", err)
	}
	if text := fmt.Sprintf("%v %+v %s", root, root, root); strings.Contains(text, root.SecretAccessKey) {
		t.Error("printing a key shows its secret")
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestSessionSurvivesRestartAndRotation(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	k := open(t, dir)
	c, err := k.Issue(Session{assumed(), time.Now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(c.AccessKeyID, "ASIA") || len(c.AccessKeyID) != 20 || len(c.SecretAccessKey) != 40 {
		t.Errorf("session key %q with a secret of %d characters", c.AccessKeyID, len(c.SecretAccessKey))
	}
	check := func(when string, k *Keyring) {
		t.Helper()
		secret, p, err := k.Lookup(context.Background(), c.AccessKeyID, c.SessionToken)
		want := assumed()
		want.AccessKeyID, want.Session = c.AccessKeyID, true
		if err != nil || secret != c.SecretAccessKey || p != want {
			t.Fatalf("%s: %+v, %v", when, p, err)
		}
	}
	check("at once", k)
	check("restarted", open(t, dir))
	for range 3 {
		if err := k.Rotate(); err != nil {
			t.Fatal(err)
		}
	}
	check("rotated", k)
	check("rotated and restarted", open(t, dir))
	later, err := k.Issue(Session{assumed(), time.Now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	if later.SessionToken[:10] == c.SessionToken[:10] {
		t.Error("sealed by the old key after the rotation")
	}
	if _, _, err := open(t, t.TempDir()).Lookup(context.Background(), c.AccessKeyID, c.SessionToken); faultOf(err) != sigv4.UnknownKey {
		t.Errorf("another Berth accepted the session: %v", err)
	}
}

func TestRotationDropsWhatNothingNeeds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k := open(t, t.TempDir())
		for range 5 {
			time.Sleep(24 * time.Hour)
			if err := k.Rotate(); err != nil {
				t.Fatal(err)
			}
		}
		// The newest, the one in use until now, and the one in use until a day ago.
		if n := len(k.seals); n != 3 {
			t.Errorf("%d keys kept", n)
		}
	})
}

func TestExpiry(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		k := open(t, dir)
		c, err := k.Issue(Session{assumed(), time.Now().Add(15 * time.Minute)})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(15*time.Minute - time.Second)
		if _, _, err := k.Lookup(t.Context(), c.AccessKeyID, c.SessionToken); err != nil {
			t.Errorf("a second early: %v", err)
		}
		time.Sleep(time.Second)
		if _, _, err := k.Lookup(t.Context(), c.AccessKeyID, c.SessionToken); faultOf(err) != sigv4.ExpiredToken {
			t.Errorf("expired: %v", err)
		}
	})
}

// A token is good as issued, for the access key it was issued with, and not otherwise.
func TestTokenCannotBeAltered(t *testing.T) {
	t.Parallel()
	k := open(t, t.TempDir())
	c, err := k.Issue(Session{assumed(), time.Now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	other, err := k.Issue(Session{assumed(), time.Now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	if other.SecretAccessKey == c.SecretAccessKey {
		t.Error("two sessions with one secret")
	}
	refused := func(what, key, token string) {
		t.Helper()
		if _, _, err := k.Lookup(context.Background(), key, token); faultOf(err) != sigv4.UnknownKey {
			t.Errorf("%s: %v", what, err)
		}
	}
	refused("another session's key", other.AccessKeyID, c.SessionToken)
	refused("the root key's ID", k.Root().AccessKeyID, c.SessionToken)
	refused("no token", c.AccessKeyID, "")
	raw, err := base64.StdEncoding.DecodeString(c.SessionToken)
	if err != nil {
		t.Fatal(err)
	}
	for i := range raw {
		for bit := range 8 {
			raw[i] ^= 1 << bit
			refused(fmt.Sprintf("byte %d bit %d", i, bit), c.AccessKeyID, base64.StdEncoding.EncodeToString(raw))
			raw[i] ^= 1 << bit
		}
	}
	for n := range raw {
		refused(fmt.Sprintf("cut to %d", n), c.AccessKeyID, base64.StdEncoding.EncodeToString(raw[:n]))
	}
	if strings.Contains(string(raw), account) {
		t.Error("the session can be read in its token")
	}
}

func TestBadFiles(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		file, content string
		mode          os.FileMode
		want          string
	}{
		"not JSON":        {"root-key.json", `{"schema":1,"secretAccessKey":"topsecret`, 0o600, "damaged"},
		"empty":           {"root-key.json", ``, 0o600, "damaged"},
		"no version":      {"root-key.json", `{}`, 0o600, "no schema version"},
		"newer":           {"root-key.json", `{"schema":2}`, 0o600, "newer Berth"},
		"no key":          {"root-key.json", `{"schema":1}`, 0o600, "lacks the key"},
		"open to others":  {"root-key.json", `{"schema":1}`, 0o640, "chmod 600"},
		"no session keys": {"session-keys.json", `{"schema":1}`, 0o600, "holds none"},
		"short key":       {"session-keys.json", `{"schema":1,"keys":[{"id":"0011223344556677","key":"dG9wc2VjcmV0"}]}`, 0o600, "malformed"},
		"newer keys":      {"session-keys.json", `{"schema":9,"keys":[]}`, 0o600, "newer Berth"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			open(t, dir)
			path := filepath.Join(dir, c.file)
			if err := errors.Join(os.WriteFile(path, []byte(c.content), 0o600), os.Chmod(path, c.mode)); err != nil {
				t.Fatal(err)
			}
			_, err := Open(dir, account)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want …%s…", err, c.want)
			}
			if strings.Contains(err.Error(), "topsecret") || strings.Contains(err.Error(), "dG9wc2VjcmV0") {
				t.Errorf("the error shows a secret: %v", err)
			}
			if got, _ := os.ReadFile(path); string(got) != c.content {
				t.Error("the file was changed")
			}
		})
	}
	if _, err := Open(t.TempDir(), "12345"); err == nil {
		t.Error("a short account ID was accepted")
	}
}

func TestAccessKeyIDsCarryTheirAccount(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.StringMatching(`[0-9]{12}`).Draw(t, "account")
		id, err := newAccessKeyID(session, want)
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := AccountOf(id); !ok || got != want || len(id) != 20 {
			t.Fatalf("%s: account %q, %v", id, got, ok)
		}
	})
	// A published example of AWS's own keys (Trufflehog's note on decoding them).
	if got, ok := AccountOf("ASIAQNZGKIQY56JQ7WML"); !ok || got != "029608264753" {
		t.Errorf("AWS's key: %q, %v", got, ok)
	}
	for _, id := range []string{"", "AKIA", "AROAQNZGKIQY56JQ7WML", "AKIA0189AAAAAAAAAAAA", "AKIAIOSFODNN7EXAMPL", "AKIAAAAAAAAAAAAAAAA!"} {
		if got, ok := AccountOf(id); ok {
			t.Errorf("%q has account %q", id, got)
		}
	}
}

func FuzzToken(f *testing.F) {
	k := open(f, f.TempDir())
	c, err := k.Issue(Session{assumed(), time.Now().Add(time.Hour)})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(c.AccessKeyID, c.SessionToken)
	f.Add("", "AQ==")
	f.Fuzz(func(t *testing.T, key, token string) {
		_, _, err := k.Lookup(t.Context(), key, token)
		if err == nil && !(key == c.AccessKeyID && token == c.SessionToken) && !(token == "" && key == k.Root().AccessKeyID) {
			t.Fatalf("forged: %q %q", key, token)
		}
	})
}

func BenchmarkLookupSession(b *testing.B) {
	k := open(b, b.TempDir())
	c, _ := k.Issue(Session{assumed(), time.Now().Add(time.Hour)})
	b.ReportMetric(float64(len(c.SessionToken)), "token-bytes")
	for b.Loop() {
		if _, _, err := k.Lookup(context.Background(), c.AccessKeyID, c.SessionToken); err != nil {
			b.Fatal(err)
		}
	}
}

func TestFilesAreReadable(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	root := open(t, dir).Root()
	data, err := os.ReadFile(filepath.Join(dir, "root-key.json"))
	if err != nil {
		t.Fatal(err)
	}
	var f map[string]any
	if err := json.Unmarshal(data, &f); err != nil || f["schema"] != 1.0 || f["accessKeyId"] != root.AccessKeyID || f["secretAccessKey"] != root.SecretAccessKey {
		t.Errorf("root-key.json: %v %v", f, err)
	}
}
