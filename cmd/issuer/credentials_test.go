package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"upcall/internal/testing/proc"
)

// profiles is a file as the aliyun command line writes it.
const profiles = `{"current": "work", "profiles": [
	{"name": "work", "mode": "AK", "access_key_id": "work-ak", "access_key_secret": "hunter-work", "sts_token": "stale",
		"sts_expiration": 1, "region_id": "cn-beijing"},
	{"name": "sts", "mode": "StsToken", "access_key_id": "STS.ak", "access_key_secret": "hunter-sts",
		"sts_token": "hunter-token", "sts_expiration": %d},
	{"name": "sso", "mode": "CloudSSO", "access_key_id": "STS.ak", "access_key_secret": "hunter-sso", "sts_token": "hunter-token"},
	{"name": "signed out", "mode": "CloudSSO"},
	{"name": "ended", "mode": "StsToken", "access_key_id": "STS.ak", "access_key_secret": "hunter-sts",
		"sts_token": "hunter-token", "sts_expiration": 1700000000},
	{"name": "arn", "mode": "RamRoleArn", "access_key_id": "arn-ak", "access_key_secret": "hunter-arn", "ram_role_arn": "acs:ram::1:role/r"},
	{"name": "half", "mode": "AK", "access_key_id": "half-ak", "access_key_secret": ""},
	{"name": "broken", "mode": "AK", "access_key_id": "broken-ak", "access_key_secret": "hunter\n2"}]}`

func profileFile(t *testing.T, end time.Time) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.json")
	if err := os.WriteFile(path, fmt.Appendf(nil, profiles, end.Unix()), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// signedBy returns the access key id and the session token of an upload.
func (u upload) signedBy(t *testing.T) (id, token string) {
	t.Helper()
	query := u.query(t)
	id, _, _ = strings.Cut(query.Get("x-oss-credential"), "/")
	return id, query.Get("x-oss-security-token")
}

// TestCredentialSources checks that each flag's credentials replace those of the environment.
func TestCredentialSources(t *testing.T) {
	t.Parallel()
	end := time.Now().Add(30 * time.Minute).UTC().Truncate(time.Second)
	file := profileFile(t, end)
	home := t.TempDir()
	if err := os.MkdirAll(filepath.Join(home, ".aliyun"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(home, ".aliyun", "config.json"), fmt.Appendf(nil, profiles, end.Unix()), 0o600); err != nil {
		t.Fatal(err)
	}
	printing := func(s string) string { return "printf %s '" + s + "'" }
	tests := []struct {
		name      string
		args      []string
		env       map[string]string
		id, token string
		bound     bool   // the URL ends with the credentials, at end
		remark    string // on standard error; "" means none
	}{
		{"environment", nil, nil, "ak", "", false, ""},
		{"environment with a token", nil, map[string]string{"OSS_SESSION_TOKEN": "tok"}, "ak", "tok", false, "give --sts-expiration"},
		{"environment with an ending token", []string{"--sts-expiration", end.Format(time.RFC3339)},
			map[string]string{"OSS_SESSION_TOKEN": "tok"}, "ak", "tok", true, "the credentials end at"},
		{"token that outlives the URL", []string{"--sts-expiration", end.Add(time.Hour).Format(time.RFC3339)},
			map[string]string{"OSS_SESSION_TOKEN": "tok"}, "ak", "tok", false, ""},
		{"token that ends with the URL, in another time zone",
			[]string{"--sts-expiration", time.Now().Add(70 * time.Minute).In(time.FixedZone("", 8*3600)).Format(time.RFC3339)},
			map[string]string{"OSS_SESSION_TOKEN": "tok"}, "ak", "tok", false, ""},
		{"expiration by variable", nil,
			map[string]string{"OSS_SESSION_TOKEN": "tok", "UPCALL_STS_EXPIRATION": end.Format(time.RFC3339)}, "ak", "tok",
			true, "the credentials end at"},
		{"current profile", []string{"--credentials-file", file}, nil, "work-ak", "", false, ""},
		{"named profile", []string{"--credentials-file", file, "--profile", "work"}, nil, "work-ak", "", false, ""},
		{"profile in the home directory", []string{"--profile", "sts"}, map[string]string{"HOME": home}, "STS.ak",
			"hunter-token", true, "the credentials end at"},
		{"profile with a token", []string{"--credentials-file", file, "--profile", "sts"}, nil, "STS.ak", "hunter-token",
			true, "the credentials end at"},
		{"profile with a token and a later flag",
			[]string{"--credentials-file", file, "--profile", "sts", "--sts-expiration", end.Add(time.Minute).Format(time.RFC3339)},
			nil, "STS.ak", "hunter-token", true, "the credentials end at"},
		{"profile with a token and an earlier flag",
			[]string{"--credentials-file", file, "--profile", "sso", "--sts-expiration", end.Format(time.RFC3339)}, nil,
			"STS.ak", "hunter-token", true, "the credentials end at"},
		{"signed in", []string{"--credentials-file", file, "--profile", "sso"}, nil, "STS.ak", "hunter-token", false, "give --sts-expiration"},
		{"by variables", nil,
			map[string]string{"UPCALL_PROFILE": "work", "UPCALL_CREDENTIALS_FILE": file, "OSS_ACCESS_KEY_ID": "", "OSS_ACCESS_KEY_SECRET": ""},
			"work-ak", "", false, ""},
		{"command", []string{"--credentials-process", printing(`{"AccessKeyId":"p-ak","AccessKeySecret":"hunter-p"}`)}, nil,
			"p-ak", "", false, ""},
		{"command with a token", []string{"--credentials-process", printing(`{"AccessKeyId":"p-ak","AccessKeySecret":"hunter-p","SecurityToken":"tok","Expiration":"` + end.Format(time.RFC3339) + `"}`)}, nil, "p-ak", "tok", true, "the credentials end at"},
		{"command with a token that has no expiry",
			[]string{"--credentials-process", printing(`{"AccessKeyId":"p-ak","AccessKeySecret":"hunter-p","SecurityToken":"tok"}`)},
			nil, "p-ak", "tok", false, "give --sts-expiration"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			env := goodEnv()
			maps.Copy(env, tt.env)
			stdout, stderr, status := execute(t, env, slices.Concat(good, tt.args, []string{"--format", "json", "--content-type", "image/jpeg"})...)
			if status != 0 || strings.Count(stderr, "\n") > 1 || !strings.Contains(stderr, tt.remark) || tt.remark == "" && stderr != "" {
				t.Fatalf("status %d: %s", status, stderr)
			}
			var u upload
			if err := json.Unmarshal([]byte(stdout), &u); err != nil {
				t.Fatal(err)
			}
			if id, token := u.signedBy(t); id != tt.id || token != tt.token {
				t.Errorf("signed by %s with the token %q", id, token)
			}
			start, err := time.Parse("20060102T150405Z", u.query(t).Get("x-oss-date"))
			if err != nil {
				t.Fatal(err)
			}
			seconds, err := time.ParseDuration(u.query(t).Get("x-oss-expires") + "s")
			if err != nil || !start.Add(seconds).Equal(u.ExpiresAt) {
				t.Errorf("from %s for %s, but expires at %s (%v)", start, seconds, u.ExpiresAt, err)
			}
			if tt.bound != u.ExpiresAt.Equal(end) || !tt.bound && seconds != time.Hour {
				t.Errorf("expires at %s after %s, the credentials at %s", u.ExpiresAt, seconds, end)
			}
			text, _, _ := execute(t, env, slices.Concat(good, tt.args)...)
			want := "as requested"
			if tt.bound {
				want = "when the credentials end"
			} else if tt.remark != "" {
				want = "or earlier, with the session token"
			}
			if !strings.Contains(text, want) {
				t.Errorf("the text does not say %q:\n%s", want, text)
			}
			if strings.Contains(stderr, "hunter") || strings.Contains(strings.ReplaceAll(stdout+text, "hunter-token", ""), "hunter") {
				t.Error("a secret is shown")
			}
		})
	}
}

func TestCredentialBadInput(t *testing.T) {
	t.Parallel()
	file := profileFile(t, time.Now().Add(time.Hour))
	profile := func(name string) []string { return []string{"--credentials-file", file, "--profile", name} }
	past := time.Now().Add(-time.Second).UTC().Format(time.RFC3339)
	tests := []struct {
		name string
		args []string
		env  map[string]string
		want []string
	}{
		{"expiration in words", []string{"--sts-expiration", "tomorrow"}, map[string]string{"OSS_SESSION_TOKEN": "t"},
			[]string{"--sts-expiration:"}},
		{"expiration without a zone", []string{"--sts-expiration", "2026-11-22T18:00:00"},
			map[string]string{"OSS_SESSION_TOKEN": "t"}, []string{"--sts-expiration:"}},
		{"expiration without a token", []string{"--sts-expiration", past}, nil,
			[]string{"session expiry: is given, but there is no session token"}},
		{"expiration in the past", []string{"--sts-expiration", past}, map[string]string{"OSS_SESSION_TOKEN": "t"},
			[]string{"credentials: have expired at " + past}},
		{"expiration of a role", []string{"--sts-expiration", past, "--ecs-role", "r"}, nil, []string{"--sts-expiration: credentials of a role"}},
		{"expiration of a command", []string{"--sts-expiration", past, "--credentials-process", "true"}, nil,
			[]string{"--sts-expiration: credentials of a role"}},
		{"over 7 days though the credentials end before", []string{"--sts-expiration", past, "--expires", "8d"},
			map[string]string{"OSS_SESSION_TOKEN": "t"}, []string{"1s to 7d"}},

		{"no such file", []string{"--credentials-file", "/nonexistent"}, nil, []string{`profile: the file "/nonexistent" cannot be read`}},
		{"a directory", []string{"--credentials-file", "/"}, nil, []string{"profile: the file"}},
		{"not JSON", []string{"--credentials-file", saved(t, "[default]\nsecret=hunter2")}, nil, []string{"is not a file of profiles"}},
		{"too long", []string{"--credentials-file", "/dev/zero"}, nil, []string{"is not a file of profiles"}},
		{"no such profile", profile("absent"), nil, []string{`there is no profile "absent"`}},
		{"no current profile", []string{"--credentials-file", saved(t, `{"profiles":[]}`)}, nil, []string{`there is no profile ""`}},
		{"no home directory", []string{"--profile", "work"}, map[string]string{"HOME": ""}, []string{"HOME is not set"}},
		{"no file in the home directory", []string{"--profile", "work"}, map[string]string{"HOME": t.TempDir()}, []string{"cannot be read"}},
		{"unknown mode", profile("arn"), nil, []string{"profile arn: has the mode RamRoleArn"}},
		{"signed out", profile("signed out"), nil, []string{"profile signed out: has no session token"}},
		{"ended", profile("ended"), nil, []string{"credentials: have expired at 2023-11-14T22:13:20Z"}},
		{"half a key", profile("half"), nil, []string{"access key secret: is not set; set the profile half"}},
		{"secret with a line break", profile("broken"), nil, []string{"access key secret: holds a space"}},
		{"two sources", []string{"--profile", "work", "--ecs-role", "r"}, nil, []string{"more than one is given"}},
		{"two other sources", []string{"--credentials-process", "true", "--ecs-role", "r"}, nil, []string{"more than one is given"}},
		{"three sources, and more",
			slices.Concat(profile("work"), []string{"--credentials-process", "true", "--ecs-role", "r", "--expires", "x"}),
			nil, []string{"more than one is given", "--expires:"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			env := goodEnv()
			maps.Copy(env, tt.env)
			stdout, stderr, status := execute(t, env, slices.Concat(good, tt.args)...)
			refused(t, tt.want, stdout, stderr, status)
		})
	}
}

// TestCredentialCommandFails checks that the error is one line, not a usage error, and holds
// no secret.
func TestCredentialCommandFails(t *testing.T) {
	t.Parallel()
	for command, want := range map[string]string{
		"exit 3":                               "exit status 3",
		"true":                                 "take credentials from the command: ",
		"echo hunter":                          "take credentials from the command: ",
		`echo '{"AccessKeyId":"a"}'`:           "missing AccessKeyId or AccessKeySecret",
		`echo '{"AccessKeySecret":"hunter2"}'`: "missing AccessKeyId or AccessKeySecret",
		`printf '{"AccessKeyId":"a","AccessKeySecret":"hunter\\n2"}'`:             "access key secret: holds a space",
		`echo '{"AccessKeyId":"a","AccessKeySecret":"b","Expiration":"hunting"}'`: "take credentials from the command: ",
	} {
		stdout, stderr, status := execute(t, goodEnv(), append(slices.Clone(good), "--credentials-process", command)...)
		if status == 0 || stdout != "" || !strings.Contains(stderr, want) || strings.Count(stderr, "\n") != 1 ||
			strings.Contains(stderr, "hunter2") {
			t.Errorf("%s: status %d: %s%s", command, status, stdout, stderr)
		}
	}
}

// issuerProcess runs the program in a separate process, whose requests all go through a proxy.
func issuerProcess(t *testing.T, proxy string, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	cmd := proc.Command(t.Context(), "issuer", args...)
	cmd.Env = append(cmd.Env, "HTTP_PROXY="+proxy, "OSS_REGION=cn-hangzhou", "UPCALL_TOKEN_KEYS=k1:hunter-0123456789abcdef")
	var out, remarks strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &remarks
	err = cmd.Run()
	return out.String(), remarks.String(), err
}

// TestECSRole takes credentials from a metadata service. Its address is fixed, so a proxy
// plays it.
func TestECSRole(t *testing.T) {
	t.Parallel()
	end := time.Now().Add(20 * time.Minute).UTC().Truncate(time.Second)
	const path = "http://100.100.100.200/latest/meta-data/ram/security-credentials/"
	answers := map[string]string{
		path: "uploads",
		path + "uploads": `{"AccessKeyId":"STS.ecs","AccessKeySecret":"hunter-ecs","SecurityToken":"tok","Expiration":"` +
			end.Format(time.RFC3339) + `","Code":"Success"}`,
		path + "refused":  `{"Code":"Forbidden"}`,
		path + "half":     `{"AccessKeySecret":"hunter-ecs","Code":"Success"}`,
		path + "expired":  `{"AccessKeyId":"STS.ecs","AccessKeySecret":"hunter-ecs","SecurityToken":"tok","Expiration":"2023-11-14T22:13:20Z","Code":"Success"}`,
		path + "scribble": "hunter",
	}
	metadata := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer, ok := answers[r.URL.String()]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
		}
		fmt.Fprint(w, answer)
	}))
	t.Cleanup(metadata.Close)
	for _, role := range []string{"uploads", "auto"} {
		stdout, stderr, err := issuerProcess(t, metadata.URL, slices.Concat(good, []string{"--format", "json", "--ecs-role", role})...)
		if err != nil {
			t.Fatalf("%s: %v: %s", role, err, stderr)
		}
		var u upload
		if err := json.Unmarshal([]byte(stdout), &u); err != nil {
			t.Fatal(err)
		}
		if id, token := u.signedBy(t); id != "STS.ecs" || token != "tok" || !u.ExpiresAt.Equal(end) ||
			!strings.Contains(stderr, "the credentials end at") {
			t.Errorf("%s: signed by %s with %s until %s: %s", role, id, token, u.ExpiresAt, stderr)
		}
	}
	for role, want := range map[string]string{
		"refused":  "take credentials from the metadata service of ECS: failed to fetch credentials, return code:Forbidden",
		"half":     "AccessKeyId or AccessKeySecret is empty",
		"absent":   "take credentials from the metadata service of ECS: ",
		"scribble": "take credentials from the metadata service of ECS: ",
		"expired":  "credentials: have expired at 2023-11-14T22:13:20Z",
	} {
		stdout, stderr, err := issuerProcess(t, metadata.URL, slices.Concat(good, []string{"--ecs-role", role})...)
		_, exited := errors.AsType[*exec.ExitError](err)
		if !exited || stdout != "" || !strings.Contains(stderr, want) || strings.Count(stderr, "\n") != 1 ||
			strings.Contains(stderr, "hunter-ecs") {
			t.Errorf("%s: %v: %s%s", role, err, stdout, stderr)
		}
	}
	// Outside Alibaba Cloud there is no metadata service.
	metadata.Close()
	if _, stderr, err := issuerProcess(t, metadata.URL, slices.Concat(good, []string{"--ecs-role", "auto"})...); err == nil ||
		strings.Count(stderr, "\n") != 1 {
		t.Errorf("%v: %s", err, stderr)
	}
}
