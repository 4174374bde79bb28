package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
)

// A service logs its settings and starts.
type service struct {
	Listen  string   `setting:"UPCALL_LISTEN" default:":8080"`
	Buckets []string `setting:"UPCALL_BUCKETS"`
	Reply   string   `setting:"UPCALL_REPLY_URL"`
	Broken  string   `setting:"UPCALL_PUBLIC_URL"`
	Process string   `setting:"UPCALL_CREDENTIALS_PROCESS"`
	Most    int      `setting:"UPCALL_MAX_EVENTS_PER_UPLOAD"`
	SNI     *bool    `setting:"UPCALL_CALLBACK_SNI"`
	Unset   string   `setting:"UPCALL_RETENTION"`
	Keys    string   `name:"token-keys"`
	LogFlags
}

func (s *service) Run(ctx context.Context, std Stdio, settings Settings) error {
	logger, err := s.Logger(std.Err)
	if err != nil {
		return Usage(err)
	}
	defer Started(ctx, logger, settings)()
	logger.Debug("at debug")
	return nil
}

// started runs the service and returns its log.
func started(t *testing.T, env Env, args ...string) string {
	t.Helper()
	var log bytes.Buffer
	err := Program{Name: "receiver"}.Run(t.Context(), &service{}, args, env, Stdio{Err: &log})
	if err != nil {
		t.Fatal(err)
	}
	return log.String()
}

func TestStarted(t *testing.T) {
	t.Parallel()
	env := Env{"UPCALL_BUCKETS": "a,b", "UPCALL_REPLY_URL": "https://user:hunter@app.example.com/hook?key=hunter2#hunter", "UPCALL_MAX_EVENTS_PER_UPLOAD": "0",
		"UPCALL_CREDENTIALS_PROCESS": "echo hunter3", "UPCALL_DATABASE_URL": "postgres://u:hunter@h/d", "UPCALL_TOKEN_KEYS_FILE": "/run/hunter",
		"UPCALL_NOTIFY_TOKEN": "hunter", "UPCALL_REPLY_SECRET": "hunter", "OSS_ACCESS_KEY_SECRET": "hunter", "OSS_SESSION_TOKEN": "",
		"UPCALL_PUBLIC_URL": "https://h:unter/%zz", "UPCALL_STREAM_URL": "nats://u:hunter@a,nats://u:hunter@b", "UPCALL_TEST_TOKEN": "hunter", "HOME": "/hunter"}
	log := started(t, env, "--token-keys", "k:hunter")
	if strings.Contains(log, "hunter") || strings.Contains(log, "at debug") {
		t.Errorf("it says a secret: %s", log)
	}
	first, last, _ := strings.Cut(strings.TrimSpace(log), "\n")
	var line struct {
		Msg      string
		Build    map[string]string
		Settings map[string]string
		Secrets  []string
	}
	if err := json.Unmarshal([]byte(first), &line); err != nil {
		t.Fatalf("%v in %s", err, first)
	}
	if got := line.Settings; line.Msg != "starting" || got["UPCALL_LISTEN"] != ":8080" || got["UPCALL_BUCKETS"] != "a,b" || len(got) != 6 ||
		got["UPCALL_MAX_EVENTS_PER_UPLOAD"] != "0" || got["UPCALL_LOG_LEVEL"] != "info" || got["UPCALL_PUBLIC_URL"] != "(unreadable)" ||
		!strings.HasPrefix(got["UPCALL_REPLY_URL"], "https://user:xxxxx@app.example.com/hook?xxxxx") {
		t.Errorf("settings %v", got)
	}
	const secrets = "UPCALL_CREDENTIALS_PROCESS --token-keys OSS_ACCESS_KEY_SECRET UPCALL_DATABASE_URL UPCALL_NOTIFY_TOKEN UPCALL_REPLY_SECRET " +
		"UPCALL_STREAM_URL UPCALL_TEST_TOKEN UPCALL_TOKEN_KEYS_FILE"
	if got := strings.Join(line.Secrets, " "); got != secrets {
		t.Errorf("secrets %s", got)
	}
	if line.Build["version"] == "" || line.Build["commit"] == "" || !strings.HasPrefix(line.Build["go"], "go") {
		t.Errorf("build %v", line.Build)
	}
	if !strings.Contains(last, `"msg":"stopped","ran_ms":`) {
		t.Errorf("the last line is %s", last)
	}
}

func TestLogLevel(t *testing.T) {
	t.Parallel()
	if log := started(t, Env{"UPCALL_LOG_LEVEL": "debug"}); !strings.Contains(log, "at debug") {
		t.Errorf("debug: %s", log)
	}
	if log := started(t, nil, "--log-level", "warn"); log != "" {
		t.Errorf("warn: %s", log)
	}
	for _, bad := range []string{"", "INFO", "verbose", "info+1", "-4", " debug"} {
		err := Program{Name: "receiver"}.Run(t.Context(), &service{}, []string{"--log-level=" + bad}, nil, Stdio{Err: &bytes.Buffer{}})
		if !errors.Is(err, ErrUsage) || !strings.Contains(err.Error(), "UPCALL_LOG_LEVEL: ") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestVersion(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	err := Program{Name: "receiver"}.Run(t.Context(), &service{}, []string{"--version"}, Env{"UPCALL_NOPE": "x"}, Stdio{Out: &out})
	if err != nil || !strings.HasPrefix(out.String(), "receiver ") || !strings.Contains(out.String(), "(commit ") || strings.Count(out.String(), "\n") != 1 {
		t.Errorf("%q, %v", &out, err)
	}
}

func TestOnHangup(t *testing.T) {
	// Not parallel: the signal goes to the whole process.
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	calls := make(chan struct{}, 10)
	OnHangup(ctx, func() { calls <- struct{}{} })
	for range 2 {
		if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		<-calls
	}
}
