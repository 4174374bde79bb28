package cli

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

type checked struct {
	Buckets []string `setting:"UPCALL_BUCKETS"`
	Odd     string   `setting:"UPCALL_ODD_ONE"` // in no list
	ran     bool
}

func (c *checked) Check(env Env) error {
	if env["UPCALL_BUCKETS"] == "bad" {
		return errors.New("bad buckets")
	}
	return nil
}

func (c *checked) Run() error { c.ran = true; return nil }

func TestVariables(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		env  Env
		want []string // in the mistakes, in order; none: it runs
	}{
		{"none", Env{"PATH": "x", "OSS_REGION": "x", "DATABASE_URL": "x", "UPCALLS_NAME": "x", "XUPCALL_A": "x"}, nil},
		{"own", Env{"UPCALL_BUCKETS": "demo", "UPCALL_TOKEN_KEYS_FILE": "x", "UPCALL_ODD_ONE": "x"}, nil},
		{"another program's", Env{"UPCALL_CALLBACK_URL": "x", "OSSEMU_BUCKETS": "x", "UPCALL_API_LISTEN": "x", "UPCALL_POLICIES": "x"}, nil},
		{"of tests", Env{"UPCALL_TEST_DATABASE_URL": "x", "UPCALL_TEST_ANYTHING": "x"}, nil},
		{"of Kubernetes", Env{"UPCALL_SERVICE_HOST": "10.0.0.1", "UPCALL_SERVICE_PORT": "80", "UPCALL_RECEIVER_SERVICE_PORT_HTTP": "80",
			"UPCALL_RECEIVER_SERVICE_HOST": "10.0.0.1", "UPCALL_PORT": "tcp://10.0.0.1:80", "OSSEMU_PORT_9000_TCP_ADDR": "x",
			"UPCALL_RECEIVER_PORT_8080_TCP_PROTO": "tcp", "UPCALL_RECEIVER_PORT": "x"}, nil},
		{"empty is not set", Env{"UPCALL_BUCKET": "", "UPCALL_NOPE": ""}, nil},
		{"misspelt", Env{"UPCALL_RETENTON": "400d"}, []string{"UPCALL_RETENTON: there is no such variable; did you mean UPCALL_RETENTION?"}},
		{"in lower case", Env{"upcall_buckets": "demo", "Upcall_Callback_URL": "x"},
			[]string{"upcall_buckets: there is no such variable; did you mean UPCALL_BUCKETS?"}},
		{"another program's, and nearly our own", Env{"UPCALL_BUCKET": "demo"},
			[]string{"UPCALL_BUCKET: is a variable of issuer; set UPCALL_BUCKETS, which is this program's"}},
		{"misspelt, of the emulator", Env{"OSSEMU_BUKETS": "x"}, []string{"OSSEMU_BUKETS: there is no such variable; unset it"}},
		{"no secret", Env{"UPCALL_BUCKETS_FILE": "x"}, []string{"UPCALL_BUCKETS_FILE: "}},
		{"nothing like it", Env{"UPCALL_FROBNICATE": "x"}, []string{"UPCALL_FROBNICATE: there is no such variable; unset it; receiver --help"}},
		{"contains port", Env{"UPCALL_REPORTS": "x", "UPCALL_IMPORTANT": "x"}, []string{"UPCALL_IMPORTANT: ", "UPCALL_REPORTS: "}},
		{"with all other mistakes", Env{"UPCALL_BUKETS": "x", "UPCALL_BUCKETS": "bad"}, []string{"did you mean UPCALL_BUCKETS?", "bad buckets"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var c checked
			err := Program{Name: "receiver"}.Run(t.Context(), &c, nil, tt.env, Stdio{})
			if c.ran != (tt.want == nil) || errors.Is(err, ErrUsage) == c.ran {
				t.Fatalf("ran %t: %v", c.ran, err)
			}
			if err == nil {
				return
			}
			var report bytes.Buffer
			Report(&report, "receiver", err)
			lines := strings.Split(strings.TrimSpace(report.String()), "\n")
			if len(lines) != len(tt.want) {
				t.Fatalf("got %q", lines)
			}
			for i, want := range tt.want {
				if !strings.HasPrefix(lines[i], "receiver: ") || !strings.Contains(lines[i], want) {
					t.Errorf("got %s, want %s", lines[i], want)
				}
			}
		})
	}
}

// TestVariablesHelp: help is shown whatever the environment.
func TestVariablesHelp(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	err := Program{Name: "receiver"}.Run(context.Background(), &checked{}, []string{"--help"}, Env{"UPCALL_NOPE": "x"}, Stdio{Out: &out})
	if err != nil || !strings.Contains(out.String(), "--buckets") {
		t.Errorf("got %v, %s", err, &out)
	}
}

// TestVariablesOfAll holds the list against the flags and secrets of each program.
func TestVariablesOfAll(t *testing.T) {
	t.Parallel()
	setting, secret := regexp.MustCompile(`setting:"((?:UPCALL|OSSEMU)_\w+)"`), regexp.MustCompile(`Secret\([^)]*"((?:UPCALL|OSSEMU)_\w+)"\)`)
	shared := map[string][]string{
		"receiver": {"UPCALL_DATABASE_URL", "UPCALL_TOKEN_KEYS"}, "issuer": {"UPCALL_DATABASE_URL", "UPCALL_TOKEN_KEYS"}, // in this package
	}
	for program, list := range variables {
		files, err := filepath.Glob("../../cmd/" + program + "/*.go")
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: no files: %v", program, err)
		}
		var want []string
		if shares(t, files, "cli.OSSFlags") {
			files = append(files, "oss.go")
		}
		if shares(t, files, "cli.LogFlags") {
			files = append(files, "log.go")
		}
		for _, path := range files {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			for _, match := range setting.FindAllStringSubmatch(string(text), -1) {
				want = append(want, match[1])
			}
			for _, match := range secret.FindAllStringSubmatch(string(text), -1) {
				want = append(want, match[1], match[1]+fileSuffix)
			}
		}
		for _, name := range shared[program] {
			want = append(want, name, name+fileSuffix)
		}
		slices.Sort(want)
		if diff := cmp.Diff(slices.Compact(want), slices.Sorted(slices.Values(strings.Fields(list)))); diff != "" {
			t.Errorf("variables of %s (-flags +list):\n%s", program, diff)
		}
	}
}

// shares reports whether a text is in any of the files.
func shares(t *testing.T, files []string, text string) bool {
	t.Helper()
	return slices.ContainsFunc(files, func(path string) bool {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Contains(string(content), text)
	})
}
