package systemd_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestInstall runs the commands of docs/deploy.md, with other directories and a systemctl that does nothing: afterwards
// each file that a unit names is there, and other users cannot read the secrets.
func TestInstall(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/deploy.md")
	if err != nil {
		t.Fatal(err)
	}
	block := regexp.MustCompile("(?ms)^```sh\n(.*?)^```$").FindSubmatch(page)
	if block == nil {
		t.Fatal("docs/deploy.md has no commands")
	}
	root, work := t.TempDir(), t.TempDir()
	for _, dir := range []string{"usr/local/bin", "etc/systemd/system", "stubs"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	write(filepath.Join(root, "stubs/systemctl"), "#!/bin/sh\necho \"$@\" >>"+root+"/calls\n")
	if err := os.CopyFS(filepath.Join(work, "deploy/systemd"), os.DirFS(".")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(work, "secrets"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"receiver", "issuer", "policies.yaml"} {
		write(filepath.Join(work, name), "x")
	}
	for _, name := range regexp.MustCompile(`secrets/\w+`).FindAllString(string(block[1]), -1) {
		write(filepath.Join(work, name), "x")
	}
	script := regexp.MustCompile(` /(usr|etc)/`).ReplaceAllString(string(block[1]), " "+root+"/$1/")
	cmd := exec.CommandContext(t.Context(), "sh", "-euc", script)
	cmd.Dir, cmd.Env = work, append(os.Environ(), "PATH="+filepath.Join(root, "stubs")+":"+os.Getenv("PATH"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	calls, err := os.ReadFile(filepath.Join(root, "calls"))
	if err != nil || !strings.Contains(string(calls), "start upcall-migrate\nenable --now upcall-receiver upcall-issuer\n") {
		t.Errorf("%v: %s", err, calls)
	}
	units, err := filepath.Glob(filepath.Join(root, "etc/systemd/system/*.service"))
	if err != nil || len(units) != 3 {
		t.Fatalf("%v, %v", units, err)
	}
	for _, path := range units {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, named := range regexp.MustCompile(`(?m)^(LoadCredential=\w+:|EnvironmentFile=|ExecStart=)(/\S+)`).FindAllSubmatch(text, -1) {
			info, err := os.Stat(root + string(named[2]))
			if err != nil {
				t.Errorf("%s: %v", filepath.Base(path), err)
			} else if strings.HasPrefix(string(named[1]), "LoadCredential") && info.Mode().Perm() != 0o600 {
				t.Errorf("%s is %v", named[2], info.Mode())
			}
		}
	}
	env, err := os.ReadFile("issuer.env")
	if err != nil || !strings.Contains(string(env), "\nUPCALL_POLICIES=/etc/upcall/policies.yaml\n") {
		t.Errorf("the policies are elsewhere: %v", err)
	}
}
