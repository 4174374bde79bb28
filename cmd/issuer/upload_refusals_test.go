package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

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
		{"limit-rate in words", append([]string{cat, "--limit-rate", "fast"}, object...), nil, "", []string{`--limit-rate: "fast" is not a number of`}},
		{"limit-rate of bits", append([]string{cat, "--limit-rate", "2Mbit"}, object...), nil, "", []string{`--limit-rate: "2Mbit" is not`}},
		{"limit-rate 0", append([]string{cat, "--limit-rate", "0"}, object...), nil, "", []string{`--limit-rate: "0" is out of range`}},
		{"limit-rate below one", append([]string{cat, "--limit-rate", "0.9"}, object...), nil, "", []string{`--limit-rate: "0.9" is out of range`}},
		{"limit-rate below zero", append([]string{cat, "--limit-rate=-1"}, object...), nil, "", []string{`--limit-rate: "-1" is not`}},
		{"limit-rate too low", append([]string{cat, "--limit-rate", "1023"}, object...), nil, "", []string{"--limit-rate: 1023 bytes a second"}},
		{"a folder that is missing", append([]string{"-r", "none"}, object...), nil, "", []string{"none"}},
		{"one key for a folder", []string{"-r", filepath.Dir(cat), "--bucket", "demo", "--key", "in"}, nil, "", []string{"one key for a folder; end it in /"}},
		{"a folder and a file with the same name", append([]string{"-r", filepath.Dir(cat), other}, object...), nil, "", []string{"the same key"}},
		{"a folder without a key", []string{"-r", filepath.Dir(cat), "--bucket", "demo"}, nil, "", []string{"key: is empty"}},
		{"a manifest for a folder", []string{"-r", cat, "--manifest", "-"}, nil, counted, []string{"--manifest: it is for one file; leave out --recursive"}},
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
	now := time.Now()
	m = newMeter(&lines, 40_000_000, true)
	m.now = func() time.Time { return now }
	cat = m.file("cat\x1b[2J.jpg") // a name that would clear the screen
	cat.Kept(20_000_000)           // does not count as speed
	for range 50 {
		now = now.Add(100 * time.Millisecond)
		cat.Sent(200_000)
	}
	if got := lines.String(); !strings.Contains(got, "30.0 of 40.0 MB, 2.0 MB/s, 5 s left") {
		t.Errorf("%q", got)
	}
	lines.Reset()
	if err := m.print(&lines, map[string]int{"a": 1}); err != nil || !strings.HasSuffix(lines.String(), "\r{\"a\":1}\n") {
		t.Errorf("the answer is beside the bar: %q, %v", &lines, err)
	}
	now = now.Add(time.Second)
	cat.Sent(10_000_000)
	cat.Sent(-10_000_000)
	cat.Remark("once more")
	m.resize(-10_000_000)
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

func TestAmounts(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		there, total int64
		perSecond    float64
		want         string
	}{
		{0, 0, 0, "0 of 0 bytes"},
		{10, 999, 0.5, "10 of 999 bytes"},
		{999, 1000, 1, "1.0 of 1.0 kB, 1 bytes/s, 1 s left"},
		{34_000_000, 140_000_000, 8_100_000, "34.0 of 140.0 MB, 8.1 MB/s, 14 s left"},
		{0, 2_000_000_000, 10_000_000, "0.0 of 2.0 GB, 10.0 MB/s, 3 min 20 s left"},
		{0, 100_000_000_000_000, 10_000_000_000, "0.0 of 100.0 TB, 10.0 GB/s, 2 h 46 min left"},
		{0, 1 << 62, 1, "0.0 of 4611686.0 TB, 1 bytes/s, days left"},
		{20, 10, 5, "20 of 10 bytes, 5 bytes/s, 0 s left"},
	} {
		if got := amounts(tt.there, tt.total, tt.perSecond); got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}

// TestSpeed checks that what was long ago no longer counts, and that little is kept.
func TestSpeed(t *testing.T) {
	t.Parallel()
	var s speed
	now := time.Now()
	if got := s.perSecond(now); got != 0 {
		t.Errorf("at the start: %v", got)
	}
	for range 10_000 {
		now = now.Add(10 * time.Millisecond)
		s.add(now, 10_000)
	}
	for range 2000 {
		now = now.Add(10 * time.Millisecond)
		s.add(now, 1000)
	}
	if got := s.perSecond(now); got < 99_000 || got > 101_000 || len(s.samples) > 200 {
		t.Errorf("%v bytes a second from %d samples", got, len(s.samples))
	}
	if s.add(now.Add(time.Second), -10_000_000); s.perSecond(now.Add(time.Second)) != 0 {
		t.Error("a negative speed")
	}
}

func TestParseRate(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int64{
		"": 0, "1": 1, "2048": 2048, "500k": 500_000, "500K": 500_000, "500kB/s": 500_000, "2M": 2_000_000, "1.5MB": 1_500_000, "2G": 2e9,
		"10MiB": 10 << 20, "64Ki": 64 << 10, "1GiB/s": 1 << 30, "10B": 10, ".5M": 500_000,
	} {
		if got, err := parseRate("--limit-rate", text); err != nil || got != want {
			t.Errorf("%q: %d, %v, want %d", text, got, err, want)
		}
	}
	for _, bad := range []string{"0", "-1", "k", ".", "1..2", "1e3", "2m", "2Mbit", "2 M", "1T", "0x10", "inf", "NaN", "99999999999999999999G",
		"1/s/s", "1,5M", "２M"} {
		if got, err := parseRate("--limit-rate", bad); err == nil || got != 0 || !strings.HasPrefix(err.Error(), "--limit-rate: ") {
			t.Errorf("%q: %d, %v", bad, got, err)
		}
	}
}

func FuzzParseRate(f *testing.F) {
	f.Add("1.5MiB/s")
	f.Fuzz(func(t *testing.T, text string) {
		got, err := parseRate("--limit-rate", text)
		if got < 0 || got > 1<<50 || (got == 0) != (text == "" || err != nil) {
			t.Errorf("%q: %d, %v", text, got, err)
		}
	})
}

// TestNamed adds a file's name to whatever a receiver answers.
func TestNamed(t *testing.T) {
	t.Parallel()
	for answer, want := range map[string]string{
		`{"status":"ok"}`:              `{"file":"a \"b\"","status":"ok"}`,
		" {\n \"id\": 1 }\n":           `{"file":"a \"b\"","id":1}`,
		`{"big":12345678901234567890}`: `{"file":"a \"b\"","big":12345678901234567890}`,
		`{}`:                           `{"file":"a \"b\""}`,
		`{"file":"/etc/passwd"}`:       `{"file":"a \"b\"","answer":{"file":"/etc/passwd"}}`,
		`{"fil\u0065":null}`:           `{"file":"a \"b\"","answer":{"fil\u0065":null}}`,
		`[1]`:                          `{"file":"a \"b\"","answer":[1]}`,
		`"ok"`:                         `{"file":"a \"b\"","answer":"ok"}`,
		`null`:                         `{"file":"a \"b\"","answer":null}`,
	} {
		var out bytes.Buffer
		if err := printJSON(&out, named(`a "b"`, json.RawMessage(answer))); err != nil || out.String() != want+"\n" {
			t.Errorf("%s: %s, %v, want %s", answer, &out, err, want)
		}
	}
}
