package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"upcall/internal/cli"
	"upcall/internal/dbtest"
	"upcall/internal/testing/clitest"
)

const captures = "testdata/doctor/"

// statusOf returns main's exit status for an error.
func statusOf(err error) int {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, cli.ErrUsage):
		return 2
	}
	return 1
}

func TestDoctor(t *testing.T) {
	t.Parallel()
	const key = "../../internal/verify/testdata/testkey_512.pub.pem"
	tests := []struct {
		name    string
		args    []string
		env     clitest.Env
		status  int
		verdict string
		cause   string // kinds, or reasons of refusals
	}{
		{"genuine", []string{"genuine.http"}, nil, 0, "verifies", ""},
		{"explicit format", []string{"genuine.http", "--format", "raw"}, nil, 0, "verifies", ""},
		{"token required", []string{"genuine.http"}, clitest.Env{"UPCALL_TOKEN_KEYS": "k1:0123456789abcdef"}, 1, "verifies", "token_missing"},
		{"token optional", []string{"genuine.http"},
			clitest.Env{"UPCALL_TOKEN_KEYS": "k1:0123456789abcdef", "UPCALL_TOKEN": "optional"}, 0, "verifies", ""},
		{"token off", []string{"genuine.http"}, clitest.Env{"UPCALL_TOKEN_KEYS": "k1:0123456789abcdef",
			"UPCALL_TOKEN": "off"}, 0, "verifies", ""},
		{"bucket of the header", []string{"genuine.http"}, clitest.Env{"UPCALL_BUCKETS": "mine"}, 1, "verifies", "bucket_not_allowed"},
		{"path", []string{"genuine.http"}, clitest.Env{"UPCALL_CALLBACK_PATH": "/oss/callback"}, 1, "verifies", "path"},
		{"stripped", []string{"stripped.http"}, nil, 1, "repaired", "path_prefix_stripped"},
		{"stripped, with the public URL", []string{"stripped.http"},
			clitest.Env{"UPCALL_PUBLIC_URL": "https://h/api/AliYunOssCallback"}, 0, "verifies", ""},
		{"decoded", []string{"decoded.http"}, nil, 1, "repaired", "body_newline_added body_reencoded"},
		{"archive", []string{"lost-query.har", "--entry", "2"}, nil, 1, "refused", ""},
		{"archive with the callback URL", []string{"lost-query.har", "--callback-url", "https://h/index.php?id=1&index=2"},
			nil, 1, "repaired", "query_lost"},
		{"curl without the body", []string{"verbose.txt"}, nil, 1, "cannot_check", ""},
		{"curl with the body", []string{"verbose.txt", "--body", captures + "verbose-body.txt"}, nil, 0, "verifies", ""},
		{"trace", []string{"trace.txt"}, nil, 1, "repaired", "body_newline_added"},
		{"emulator, not trusted", []string{"expired.http"}, nil, 1, "refused", ""},
		{"emulator's key", []string{"expired.http", "--key-file", key}, nil, 0, "verifies", ""},
		{"expired", []string{"expired.http", "--key-file", key}, clitest.Env{"UPCALL_TOKEN_KEYS": "k1:0123456789abcdef"}, 1,
			"verifies", "token_expired"},
		{"not yet expired", []string{"expired.http", "--key-file", key, "--at", "2026-11-01T11:00:00Z"},
			clitest.Env{"UPCALL_TOKEN_KEYS": "k1:0123456789abcdef"}, 0, "verifies", ""},

		{"no such file", []string{"absent.http"}, nil, 2, "", ""},
		{"wrong format", []string{"genuine.http", "--format", "har"}, nil, 2, "", ""},
		{"unknown format", []string{"genuine.http", "--format", "pcap"}, nil, 2, "", ""},
		{"no such entry", []string{"lost-query.har", "--entry", "3"}, nil, 2, "", ""},
		{"no such body", []string{"verbose.txt", "--body", "absent"}, nil, 2, "", ""},
		{"not a key", []string{"genuine.http", "--key-file", "doctor.go"}, nil, 2, "", ""},
		{"not a URL", []string{"genuine.http", "--public-url", "h"}, nil, 2, "", ""},
		{"not a time", []string{"genuine.http", "--at", "yesterday"}, nil, 2, "", ""},
		{"bad token keys", []string{"genuine.http"}, clitest.Env{"UPCALL_TOKEN_KEYS": "hunter2"}, 2, "", ""},
		{"bad fields", []string{"genuine.http"}, clitest.Env{"UPCALL_FIELDS": "a=b"}, 2, "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			args := append([]string{"doctor", captures + tt.args[0], "--json"}, tt.args[1:]...)
			out, _, err := program.Execute(t, tt.env, args...)
			if statusOf(err) != tt.status {
				t.Errorf("status %d, want %d: %v", statusOf(err), tt.status, err)
			}
			said := fmt.Sprint(out, err)
			if strings.Contains(said, "0123456789abcdef") || strings.Contains(said, "hunter2") {
				t.Errorf("a secret is printed: %s", said)
			}
			if tt.status == 2 {
				if out != "" {
					t.Errorf("printed %s", out)
				}
				return
			}
			var report struct {
				Verdict  string
				Accepted bool
				Causes   []struct{ Kind, Fix string }
				Refusals []struct{ Code, Reason string }
			}
			if err := json.Unmarshal([]byte(out), &report); err != nil {
				t.Fatal(err)
			}
			var found []string
			for _, c := range report.Causes {
				found = append(found, c.Kind)
			}
			for _, r := range report.Refusals {
				found = append(found, r.Reason)
			}
			if report.Verdict != tt.verdict || strings.Join(found, " ") != tt.cause || report.Accepted != (tt.status == 0) {
				t.Errorf("%s", out)
			}
		})
	}
}

// TestCapturesAreListed checks that the README describes every capture.
func TestCapturesAreListed(t *testing.T) {
	t.Parallel()
	list, err := os.ReadFile(captures + "README.md")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(captures + "*")
	if err != nil || len(files) < 8 {
		t.Fatalf("%d captures: %v", len(files), err)
	}
	for _, file := range files {
		if name := filepath.Base(file); name != "README.md" && name[0] != '.' && !strings.Contains(string(list), "`"+name+"`") {
			t.Errorf("%s is not described", name)
		}
	}
}

// TestDoctorDatabase: a line for each finding, and a status that scripts can use.
func TestDoctorDatabase(t *testing.T) {
	t.Parallel()
	stdout, _, err := program.Execute(t, clitest.Env{"UPCALL_DATABASE_URL": dbtest.URL(t)}, "doctor", "--database")
	if statusOf(err) != 1 || !strings.Contains(stdout, "synchronous_standby_names: ") || !strings.Contains(stdout, "months: ") {
		t.Errorf("status %d: %v\n%s", statusOf(err), err, stdout)
	}
	if _, _, err := program.Execute(t, clitest.Env{}, "doctor", "--database"); statusOf(err) != 2 {
		t.Errorf("without a database: %v", err)
	}
	_, _, err = program.Execute(t, clitest.Env{"UPCALL_DATABASE_URL": "postgres://u:p@127.0.0.1:1/none"}, "doctor", "--database")
	if statusOf(err) != 1 {
		t.Errorf("no server: %v", err)
	}
}
