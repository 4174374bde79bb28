package helm_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// contents of the Secrets, by key. Nothing listens at the database's address.
var contents = map[string]string{
	"database_url": "postgres://upcall@127.0.0.1:1/upcall",
	"token_keys":   "k1:" + "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
	"hook_app":     "whsec_MDEyMDEyMDEyMDEyMDEyMDEyMDEyMDEy",
	"reply_secret": "whsec_MDEyMDEyMDEyMDEyMDEyMDEyMDEyMDEy",
	"notify_token": "0123456789abcdef0123456789abcdef",

	"oss": "secret", "oss_access_key_secret": "secret",
}

// build makes the programs as a release does, so that Go's cache serves both.
func build(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "go", "build", "-C", "../..", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", dir+"/",
		"./cmd/receiver", "./cmd/issuer")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return dir
}

// command is what a node runs for the pod, with the volumes in a directory of the test.
func command(t *testing.T, p pod, objects []metav1.Object, programs string) (cmd *exec.Cmd, root string) {
	t.Helper()
	root = t.TempDir()
	container := p.spec.Containers[0]
	write := func(mount corev1.VolumeMount, name, text string) {
		t.Helper()
		text = strings.ReplaceAll(text, "/etc/upcall/", root+"/etc/upcall/")
		if err := os.WriteFile(filepath.Join(root, mount.MountPath, name), []byte(text), 0o400); err != nil {
			t.Fatal(err)
		}
	}
	for _, mount := range container.VolumeMounts {
		if err := os.MkdirAll(filepath.Join(root, mount.MountPath), 0o700); err != nil {
			t.Fatal(err)
		}
		_, volume, found := p.mounted(mount.MountPath + "/x")
		if !found {
			t.Fatalf("%s: the volume %s is not there", p.name, mount.Name)
		}
		if volume.Secret != nil {
			for key, text := range contents {
				write(mount, key, text)
			}
		}
		for _, m := range all[*corev1.ConfigMap](objects) {
			if volume.ConfigMap != nil && volume.ConfigMap.Name == m.Name {
				for key, text := range m.Data {
					write(mount, key, text)
				}
			}
		}
	}
	cmd = exec.CommandContext(t.Context(), filepath.Join(programs, p.program()), container.Command[1:]...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = time.Minute
	for _, variable := range container.Env {
		value := variable.Value
		if strings.HasPrefix(value, "/") {
			value = root + value
		}
		if strings.HasSuffix(variable.Name, "LISTEN") { // the ports may be taken here
			value = "127.0.0.1:0"
		}
		cmd.Env = append(cmd.Env, variable.Name+"="+value)
	}
	return cmd, root
}

// TestRun runs each pod with the variables and files that it has. The programs accept all of them, answer each probe, spool to
// the volume, and stop by themselves. There is no database: receivers are ready with their spools alone, issuers are not ready.
func TestRun(t *testing.T) {
	t.Parallel()
	programs := build(t)
	for name, texts := range map[string][]string{"least": {least}, "everything": {least, everything}} {
		objects, _ := objectsOf(t, "upcall", texts...)
		for _, p := range pods(objects) {
			t.Run(name+" "+p.name, func(t *testing.T) {
				t.Parallel()
				cmd, root := command(t, p, objects, programs)
				if p.serves() {
					serve(t, p, cmd, root)
				} else if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "127.0.0.1:1") ||
					strings.Contains(string(out), "UPCALL_") {
					t.Errorf("%v: %s; want that the database of the Secret cannot be reached", err, out)
				}
			})
		}
	}
}

func serve(t *testing.T, p pod, cmd *exec.Cmd, root string) {
	t.Helper()
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	started := struct {
		Msg   string
		Admin string `json:"admin_listen"`
	}{}
	var said strings.Builder
	lines := bufio.NewScanner(stderr)
	for started.Msg != "serving" && lines.Scan() {
		said.WriteString(lines.Text() + "\n")
		_ = json.Unmarshal(lines.Bytes(), &started) // warnings are lines of text
	}
	if started.Msg != "serving" {
		t.Fatalf("it does not serve: %v: %s", cmd.Wait(), said.String())
	}
	drained := make(chan struct{})
	go func() { _, _ = io.Copy(&said, stderr); close(drained) }()
	container, status := p.spec.Containers[0], http.StatusOK
	ask(t, started.Admin, container.StartupProbe, http.StatusOK)
	ask(t, started.Admin, container.LivenessProbe, http.StatusOK)
	if p.program() == "issuer" {
		status = http.StatusServiceUnavailable
	} else if _, err := os.Stat(filepath.Join(root, "var/lib/upcall/spool/spool.db")); err != nil {
		t.Error(err)
	}
	ask(t, started.Admin, container.ReadinessProbe, status)
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	<-drained
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v: %s", err, said.String())
	}
}

// ask asks for what a probe asks for, until the answer has that status; a path that is not there has 404.
func ask(t *testing.T, address string, probe *corev1.Probe, status int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		got, err := get(ctx, fmt.Sprintf("http://%s%s", address, probe.HTTPGet.Path))
		switch {
		case err == nil && got == status:
			return
		case err != nil || got == http.StatusNotFound:
			t.Fatalf("%s: %d, %v", probe.HTTPGet.Path, got, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func get(ctx context.Context, url string) (status int, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err
	}
	return answer.StatusCode, answer.Body.Close()
}
