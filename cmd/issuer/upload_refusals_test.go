package main

import (
	"bytes"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"upcall/internal/cli"
	"upcall/internal/testing/clitest"
	"upcall/internal/testing/receiverfake"
)

// TestUploadBadInput sets each flag wrongly. It checks that each mistake gets one line, that
// the status is 2, and that nothing is sent.
func TestUploadBadInput(t *testing.T) {
	t.Parallel()
	env, gate := emulated(t)
	ten := strings.Repeat("x", 10)
	cat, dog := clitest.WriteFile(t, "cat.jpg", ten), clitest.WriteFile(t, "dog.jpg", ten)
	big := clitest.WriteFile(t, "big.bin", strings.Repeat("x", 200_000))
	other := clitest.WriteFile(t, "cat.jpg", "x")
	put, _, status := execute(t, env, "put", "--bucket", "demo", "--key", "cat.jpg", "--content-length", "11", "--format", "json")
	if status != 0 {
		t.Fatal("no manifest")
	}
	multipart, _, status := execute(t, env, "multipart", "create", "--bucket", "demo", "--key", "cat.jpg",
		"--size", "200001", "--part-size", "102400")
	if status != 0 {
		t.Fatal("no manifest")
	}
	counted, _, _ := execute(t, env, "multipart", "create", "--bucket", "demo", "--key", "cat.jpg", "--parts", "2")
	gate.Open() // forgets the earlier requests
	object := []string{"--bucket", "demo", "--key", "in/"}
	tests := []struct {
		name  string
		args  []string
		env   map[string]string
		stdin string
		want  []string // a part of each line
	}{
		{"no file", nil, nil, "", []string{`expected "<file> ..."`}},
		{"no such file", append([]string{"none.jpg"}, object...), nil, "", []string{"none.jpg"}},
		{"a directory", append([]string{filepath.Dir(cat)}, object...), nil, "", []string{"is a directory; pass the files in it"}},
		{"a device", append([]string{os.DevNull}, object...), nil, "", []string{"is not a regular file"}},
		{"two files are missing", append([]string{"none.jpg", "no.jpg"}, object...), nil, "", []string{"none.jpg", "no.jpg"}},
		{"no bucket, no key", []string{cat}, nil, "", []string{"bucket: is empty", "key: is empty"}},
		{"no key for two files", []string{cat, dog, "--bucket", "demo"}, nil, "", []string{"key: is empty"}},
		{"one key for two files", []string{cat, dog, "--bucket", "demo", "--key", "cat.jpg"}, nil, "", []string{"end it in /"}},
		{"two files with the same name", append([]string{cat, other}, object...), nil, "", []string{"the same key"}},
		{"a file twice", append([]string{cat, cat}, object...), nil, "", []string{"the same key"}},
		{"bad key", []string{cat, "--bucket", "demo", "--key", "/x"}, nil, "", []string{"key:"}},
		{"bad bucket", []string{cat, "--bucket", "Demo", "--key", "x"}, nil, "", []string{"bucket:"}},
		{"no region", append([]string{cat}, object...), map[string]string{"OSS_REGION": ""}, "", []string{"region: is empty"}},
		{"no credentials", append([]string{cat}, object...),
			map[string]string{"OSS_ACCESS_KEY_ID": "", "OSS_ACCESS_KEY_SECRET": ""}, "",
			[]string{"OSS_ACCESS_KEY_ID", "OSS_ACCESS_KEY_SECRET"}},
		{"bad token keys", append([]string{cat}, object...), map[string]string{"UPCALL_TOKEN_KEYS": "hunter2"}, "",
			[]string{"UPCALL_TOKEN_KEYS"}},
		{"expires", append([]string{cat, "--expires", "8d"}, object...), nil, "", []string{"1s to 7d"}},
		{"callback host alone", append([]string{cat, "--callback-host", "a.example.com"}, object...), nil, "", []string{"--callback-host"}},
		{"callback URL", append([]string{big, "--part-size", "102400", "--callback-url", "ftp://a"}, object...), nil, "",
			[]string{"callbackUrl"}},
		{"meta", append([]string{cat, "--meta", "x"}, object...), nil, "", []string{"--meta"}},
		{"part size in words", append([]string{cat, "--part-size", "1M"}, object...), nil, "", []string{"--part-size"}},
		{"part size 0", append([]string{cat, "--part-size", "0"}, object...), nil, "", []string{"--part-size: 0 is out of range"}},
		{"part size too small", append([]string{cat, "--part-size", "102399"}, object...), nil, "", []string{"102399 is out of range"}},
		{"part size too large", append([]string{cat, "--part-size", "5368709121"}, object...), nil, "", []string{"is out of range"}},
		{"parallel 0", append([]string{cat, "--parallel", "0"}, object...), nil, "", []string{"--parallel: 0"}},
		{"parallel 65", append([]string{cat, "--parallel", "65"}, object...), nil, "", []string{"--parallel: 65 is out of range; give 1 to 64"}},
		{"parallel by variable", append([]string{cat}, object...), map[string]string{"UPCALL_PARALLEL": "-1"}, "", []string{"--parallel: -1"}},
		{"parallel in words", append([]string{cat, "--parallel", "all"}, object...), nil, "", []string{"--parallel"}},
		{"attempts 0", append([]string{cat, "--attempts", "0"}, object...), nil, "", []string{"--attempts: 0"}},
		{"attempts 101", append([]string{cat, "--attempts", "101"}, object...), nil, "", []string{"--attempts: 101"}},
		{"both", append([]string{cat, "--attempts", "101", "--parallel", "0"}, object...), nil, "", []string{"--parallel: 0", "--attempts: 101"}},
		{"no state directory", append([]string{big, "--part-size", "102400"}, object...),
			map[string]string{"UPCALL_STATE_DIR": ""}, "", []string{"--state-dir: HOME is not set"}},

		{"missing manifest", []string{cat, "--manifest", "none.json"}, nil, "", []string{"--manifest: open none.json"}},
		{"manifest that is a directory", []string{cat, "--manifest", os.TempDir()}, nil, "", []string{"--manifest: "}},
		{"empty manifest", []string{cat, "--manifest", "-"}, nil, "",
			[]string{"--manifest: bad manifest: it is neither a URL nor a JSON object"}},
		{"an OSS answer as a manifest", []string{cat, "--manifest", "-"}, nil, "<Error/>", []string{"--manifest: bad manifest"}},
		{"a manifest for two files", []string{cat, dog, "--manifest", "-"}, nil, counted, []string{"it is for one file, but there are 2"}},
		{"a manifest of another size", []string{cat, "--manifest", "-"}, nil, put, []string{`it allows "11" bytes, but there are 10 to send`}},
		{"a manifest of parts of another size", []string{big, "--manifest", "-"}, nil, multipart,
			[]string{"it is for 200001 bytes, but the file has 200000"}},
		{"a manifest and an object", []string{cat, "--manifest", "-", "--bucket", "demo", "--content-type", "image/jpeg", "--endpoint", "x.example.com"}, nil, counted,
			[]string{"--bucket: the manifest says that already", "--content-type:", "--endpoint:"}},
		{"a manifest without a state directory", []string{cat, "--manifest", "-"},
			map[string]string{"UPCALL_STATE_DIR": ""}, counted, []string{"--state-dir: HOME is not set"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			env := maps.Clone(env)
			maps.Copy(env, tt.env)
			stdout, stderr, status := feed(t, env, tt.stdin, append([]string{"upload"}, tt.args...)...)
			refused(t, tt.want, stdout, stderr, status)
			if strings.Contains(stderr, "x-oss-signature") {
				t.Errorf("a signature is shown: %s", stderr)
			}
		})
	}
	if seen := gate.Seen(); len(seen) != 0 {
		t.Errorf("OSS got the requests %v", seen)
	}
	if _, err := os.Stat(env["UPCALL_STATE_DIR"]); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("state was kept: %v", err)
	}
}

func TestUploadOutputFails(t *testing.T) {
	t.Parallel()
	env, _ := emulated(t)
	err := program.IntoBrokenPipe(t, env, "upload", clitest.WriteFile(t, "a.bin", "a"), "--bucket", "demo", "--key", "a",
		"--callback-url", receiverfake.New(t).URL)
	if !errors.Is(err, clitest.ErrBrokenPipe) || cli.ExitCode(err) != 1 {
		t.Errorf("error %v", err)
	}
}

func TestMeter(t *testing.T) {
	t.Parallel()
	var lines bytes.Buffer
	m := newMeter(&lines, 1000, false)
	cat := m.file("cat.jpg")
	for range 10 {
		cat.Sent(100)
	}
	cat.Sent(-900) // failed, and is sent again
	cat.Sent(900)
	cat.Remark("done")
	m.end()
	want := ""
	for tenth := 1; tenth < 10; tenth++ {
		want += "issuer: " + string(rune('0'+tenth)) + "0 % of 1000 bytes\n"
	}
	if want += "issuer: cat.jpg: done\n"; lines.String() != want {
		t.Errorf("%q, want %q", &lines, want)
	}

	lines.Reset()
	m = newMeter(&lines, 1000, true)
	cat = m.file("cat\x1b[2J.jpg") // a name that would clear the screen
	cat.Sent(1000)
	cat.Sent(-500)
	cat.Remark("once more")
	cat.Sent(500)
	m.end()
	cat.Remark("done")
	if got := lines.String(); !strings.Contains(got, "%") || strings.Contains(got, "\x1b[2J") ||
		!strings.HasSuffix(got, "\r"+`issuer: "cat\x1b[2J.jpg": done`+"\n") {
		t.Errorf("%q", got)
	}

	lines.Reset()
	for _, terminal := range []bool{false, true} { // an empty file must not cause a division by zero
		m = newMeter(&lines, 0, terminal)
		m.file("empty").Sent(0)
		m.end()
	}
}
