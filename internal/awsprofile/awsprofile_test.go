package awsprofile

import (
	"os"
	"path/filepath"
	"testing"
)

var profile = Profile{Endpoint: "http://127.0.0.1:4566", Region: "us-east-1", AccessKeyID: "AKIAEXAMPLE", SecretAccessKey: "s3cr3t"}

func home(t *testing.T, files map[string]string) Home {
	t.Helper()
	h := Home{Dir: t.TempDir(), UID: os.Getuid(), GID: os.Getgid()}
	for name, content := range files {
		path := filepath.Join(h.Dir, ".aws", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

func read(t *testing.T, h Home, name string) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(h.Dir, ".aws", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func TestAddAndRemoveLeaveOthersAlone(t *testing.T) {
	t.Parallel()
	config := "[default]\nregion = eu-west-1\n\n# mine\n[profile work]\nregion=eu-north-1\n"
	credentials := "[default]\naws_access_key_id = AKIAOTHER\n"
	h := home(t, map[string]string{"config": config, "credentials": credentials})
	got, err := Add(h, profile)
	if err != nil || got != Added {
		t.Fatalf("Add = %v, %v; want Added", got, err)
	}
	wantConfig := config + "\n[profile berth]\nregion = us-east-1\nendpoint_url = http://127.0.0.1:4566\n"
	if c := read(t, h, "config"); c != wantConfig {
		t.Errorf("config:\n%s\nwant:\n%s", c, wantConfig)
	}
	if info, _ := os.Stat(filepath.Join(h.Dir, ".aws", "config")); info.Mode().Perm() != 0o640 {
		t.Errorf("config's mode became %v", info.Mode())
	}
	if got, err := Add(h, profile); err != nil || got != Same {
		t.Errorf("Add again = %v, %v; want Same", got, err)
	}
	if err := Remove(h, profile); err != nil {
		t.Fatal(err)
	}
	if c := read(t, h, "config"); c != config {
		t.Errorf("config after Remove:\n%q\nwant:\n%q", c, config)
	}
	if c := read(t, h, "credentials"); c != credentials {
		t.Errorf("credentials after Remove:\n%q\nwant:\n%q", c, credentials)
	}
}

func TestAddMakesPrivateFiles(t *testing.T) {
	t.Parallel()
	h := home(t, nil)
	if _, err := Add(h, profile); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"config", "credentials"} {
		info, err := os.Stat(filepath.Join(h.Dir, ".aws", name))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v; want mode 0600", name, info.Mode(), err)
		}
	}
}

func TestForeignProfileIsNeverAltered(t *testing.T) {
	t.Parallel()
	for name, files := range map[string]map[string]string{
		"in config":           {"config": "[profile berth]\nregion = eu-west-1\n"},
		"in credentials":      {"credentials": "[berth]\naws_access_key_id = AKIAMINE\n"},
		"spelled differently": {"config": "[ profile   berth ]\nregion = eu-west-1\n"},
		"edited":              {"config": profile.config() + "output = table\n", "credentials": profile.credentials()},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := home(t, files)
			if got, err := Add(h, profile); err != nil || got != Foreign {
				t.Fatalf("Add = %v, %v; want Foreign", got, err)
			}
			if err := Remove(h, Profile{Endpoint: "http://elsewhere"}); err != nil {
				t.Fatal(err)
			}
			for file, want := range files {
				if got := read(t, h, file); got != want {
					t.Errorf("%s became %q", file, got)
				}
			}
			entries, _ := os.ReadDir(filepath.Join(h.Dir, ".aws"))
			if len(entries) != len(files) {
				t.Errorf("files were added: %v", entries)
			}
		})
	}
}

func TestRemoveFollowsLinks(t *testing.T) {
	t.Parallel()
	h := home(t, map[string]string{"real": ""})
	link := filepath.Join(h.Dir, ".aws", "config")
	if err := os.Symlink("real", link); err != nil {
		t.Fatal(err)
	}
	if _, err := Add(h, profile); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link was replaced: %v, %v", info, err)
	}
	if read(t, h, "real") != profile.config() {
		t.Errorf("real = %q", read(t, h, "real"))
	}
}

func TestRemoveLeavesNothingOfItsOwn(t *testing.T) {
	t.Parallel()
	h := home(t, nil)
	if _, err := Add(h, profile); err != nil {
		t.Fatal(err)
	}
	if err := Remove(h, profile); err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(h.Dir); err != nil || len(entries) > 0 {
		t.Errorf("left in the home directory: %v, %v", entries, err)
	}
}
