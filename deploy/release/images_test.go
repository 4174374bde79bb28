package release_test

import (
	"bufio"
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io/fs"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"upcall/internal/testing/toolchain"
)

// user is the one that images run as.
const user = 65532

// images makes the images of the archives in a directory with a command that stands for docker, and returns their
// directory.
func images(t *testing.T, out, docker string, arches ...string) string {
	t.Helper()
	certificates := filepath.Join(t.TempDir(), "certificates.pem")
	server := httptest.NewTLSServer(nil)
	server.Close()
	block := &pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}
	if err := os.WriteFile(certificates, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	// A strict umask, as some users have, must not keep the images' own user out.
	strict := []string{"-c", `umask 077; exec sh images.sh "$@"`, "images.sh", "v1.2.3", out}
	cmd := exec.CommandContext(t.Context(), "sh", append(strict, arches...)...)
	cmd.Env = append(environ(), "DOCKER="+docker, "IMAGE=upcall-test", "CERTIFICATES="+certificates)
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return filepath.Join(out, "images")
}

// settings of a receiver whose database is away.
var settings = []string{
	"UPCALL_LISTEN=127.0.0.1:0", "UPCALL_ADMIN_LISTEN=127.0.0.1:0", "UPCALL_SPOOL_DIR=/var/lib/upcall/spool",
	"UPCALL_DATABASE_URL=postgres://upcall@127.0.0.1:1/upcall", "UPCALL_TOKEN_KEYS=k1:" + strings.Repeat("0123456789abcdef", 4),
}

// checkTree starts a receiver in what an image consists of, as its user and with nothing else. It is ready, and has
// written its spool and nothing else.
func checkTree(t *testing.T, out string) {
	t.Helper()
	toolchain.Need(t, "chroot")
	root := t.TempDir()
	for _, dir := range []string{filepath.Dir(root), root} { // which the user may enter
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	archive := filepath.Join(images(t, out, "true", "amd64"), "amd64/root.tar")
	if text, err := exec.CommandContext(t.Context(), "tar", "-xpf", archive, "--same-owner", "-C", root).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	certificates, err := os.ReadFile(filepath.Join(root, "etc/ssl/certs/ca-certificates.crt"))
	if err != nil || !x509.NewCertPool().AppendCertsFromPEM(certificates) {
		t.Errorf("CA certificates: %v", err)
	}
	ready(t, root)
	var files []string
	err = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			files = append(files, strings.TrimPrefix(path, root+"/"))
		}
		return err
	})
	want := []string{"etc/ssl/certs/ca-certificates.crt", "usr/local/bin/issuer", "usr/local/bin/ossemu", "usr/local/bin/receiver",
		"var/lib/upcall/spool/lock", "var/lib/upcall/spool/spool.db"}
	if err != nil || !slices.Equal(files, want) {
		t.Errorf("files: %v, %v", files, err)
	}
}

// ready starts a receiver in the tree at root, asks whether it is ready, and stops it.
func ready(t *testing.T, root string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	inside := func(args ...string) *exec.Cmd {
		cmd := exec.CommandContext(ctx, args[0], args[1:]...)
		cmd.Dir = "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root, Credential: &syscall.Credential{Uid: user, Gid: user}}
		return cmd
	}
	receiver := inside("/usr/local/bin/receiver", "serve")
	receiver.Env = settings
	stderr, err := receiver.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := receiver.Start(); err != nil {
		t.Fatal(err)
	}
	var started struct {
		Msg   string
		Admin string `json:"admin_listen"`
	}
	lines := bufio.NewScanner(stderr)
	for started.Msg != "serving" && lines.Scan() {
		if json.Unmarshal(lines.Bytes(), &started) != nil {
			t.Errorf("not JSON: %s", lines.Text())
		}
	}
	health := inside("/usr/local/bin/receiver", "healthcheck", "--path", "/readyz", "--admin-listen", started.Admin)
	if text, err := health.CombinedOutput(); err != nil {
		t.Errorf("it is not ready: %v: %s", err, text)
	}
	if err := receiver.Process.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	for lines.Scan() { // to its end
	}
	if err := receiver.Wait(); err != nil {
		t.Error(err)
	}
}

// checkImages builds both images with Podman, and runs the one for this machine without a network and with a root that
// cannot be written. What is in the other one are the same programs, because compiling takes minutes: this is about
// images.
func checkImages(t *testing.T, out string) {
	t.Helper()
	toolchain.Need(t, "podman")
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	const again = "cd $0 && tar -xzf upcall-v1.2.3-linux-amd64.tar.gz && mv upcall-v1.2.3-linux-amd64 upcall-v1.2.3-linux-arm64 && " +
		"tar -czf upcall-v1.2.3-linux-arm64.tar.gz upcall-v1.2.3-linux-arm64"
	if text, err := exec.CommandContext(ctx, "sh", "-c", again, out).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	engine := podman(t)
	images(t, out, engine)
	command := func(args ...string) (string, error) {
		text, err := exec.CommandContext(ctx, engine, args...).CombinedOutput()
		return strings.TrimSpace(string(text)), err
	}
	for _, arch := range []string{"amd64", "arm64"} {
		got, err := command("image", "inspect", "--format", "{{.Architecture}} {{.Config.User}} {{len .RootFS.Layers}}",
			"upcall-test:v1.2.3-"+arch)
		if want := arch + " 65532:65532 1"; err != nil || got != want {
			t.Errorf("%v: %s, want %s", err, got, want)
		}
	}
	const name = "receiver"
	run := []string{"run", "--detach", "--name", name, "--read-only", "--read-only-tmpfs=false", "--cap-drop", "ALL",
		"--security-opt", "no-new-privileges", "--network", "none", "--volume", "spool:/var/lib/upcall",
		"--ulimit", "nofile=1024", "--ulimit", "nproc=1024"} // by default more than the machine may allow
	for _, setting := range settings {
		run = append(run, "--env", strings.Replace(setting, "ADMIN_LISTEN=127.0.0.1:0", "ADMIN_LISTEN=127.0.0.1:8081", 1))
	}
	if text, err := command(append(run, "upcall-test:v1.2.3-amd64")...); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	for {
		text, err := command("exec", name, "receiver", "healthcheck", "--path", "/readyz", "--admin-listen", "127.0.0.1:8081")
		if err == nil {
			break
		}
		if state, _ := command("inspect", "--format", "{{.State.Running}}", name); state != "true" || ctx.Err() != nil {
			logs, _ := command("logs", name)
			t.Fatalf("%v: %s: %s", err, text, logs)
		}
	}
	if text, err := command("stop", name); err != nil {
		t.Errorf("%v: %s", err, text)
	}
	if code, err := command("inspect", "--format", "{{.State.ExitCode}}", name); err != nil || code != "0" {
		t.Errorf("it ended with %s, %v", code, err)
	}
}

// podman returns a program that stands for docker, with images, containers and volumes of this test only.
func podman(t *testing.T) string {
	t.Helper()
	// Not in t.TempDir: the paths of its sockets would be too long.
	dir, err := os.MkdirTemp("", "podman-")
	if err != nil {
		t.Fatal(err)
	}
	engine := filepath.Join(dir, "engine")
	// runc works with cgroups of either version, and with both together.
	script := fmt.Sprintf("#!/bin/sh\nexec podman --root %[1]s/root --runroot %[1]s/run --tmpdir %[1]s/tmp "+
		"--storage-driver vfs --runtime runc --cgroup-manager cgroupfs \"$@\"\n", dir)
	if err := os.WriteFile(engine, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, command := range []*exec.Cmd{exec.Command(engine, "rm", "--all", "--force"), exec.Command("rm", "-rf", dir)} {
			if text, err := command.CombinedOutput(); err != nil {
				t.Errorf("clean up: %v: %s", err, text)
			}
		}
	})
	return engine
}
