package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"upcall/internal/cli"
	"upcall/internal/testing/clitest"
	"upcall/internal/testing/ossclient"
	"upcall/internal/testing/ossfake"
)

// refused checks that there is one line for each of want, status 2 and no standard output.
func refused(t *testing.T, want []string, stdout, stderr string, status int) {
	t.Helper()
	if status != 2 || stdout != "" {
		t.Errorf("status %d, want 2; stdout %q", status, stdout)
	}
	checkLines(t, stderr, want)
}

// createArgs returns a valid multipart command line with args appended.
func createArgs(args ...string) []string {
	good := []string{"multipart", "create", "--bucket", "demo", "--key", "video.mp4"}
	return slices.Concat(good, []string{"--callback-url", "https://uploads.example.com/oss/callback"}, args)
}

// created initiates an upload of two parts and returns its manifest.
func created(t *testing.T, env clitest.Env) string {
	t.Helper()
	stdout, stderr, status := execute(t, env, createArgs("--parts", "2")...)
	if status != 0 {
		t.Fatal(stderr)
	}
	return stdout
}

func saved(t *testing.T, text string) string {
	t.Helper()
	return clitest.WriteFile(t, "manifest.json", text)
}

// openUploads counts the uploads that were neither completed nor aborted.
func openUploads(t *testing.T, gate *ossfake.Gate) int {
	t.Helper()
	client := ossclient.New(gate.URL, ossfake.Region, ossfake.AccessKeyID, ossfake.AccessKeySecret)
	return len(ossclient.OpenUploads(t, client, ossfake.Bucket))
}

// TestMultipartCreateBadInput checks that no upload is initiated.
func TestMultipartCreateBadInput(t *testing.T) {
	t.Parallel()
	env, gate := emulated(t)
	tests := []struct {
		name string
		args []string
		env  map[string]string
		want []string
	}{
		{"neither size nor parts", nil, nil, []string{"size: is not given"}},
		{"size and parts", []string{"--size", "1000", "--parts", "3"}, nil, []string{"parts: is given along with the size"}},
		{"size in words", []string{"--size", "5GB"}, nil, []string{`--size: "5GB" is not a number of bytes`}},
		{"size 0", []string{"--size", "0"}, nil, []string{"size: 0 is out of range"}},
		{"size negative", []string{"--size=-1"}, nil, []string{"size: -1 is out of range"}},
		{"size over 48.8 TB", []string{"--size", "53687091200001"}, nil, []string{"1 to 53687091200000 bytes"}},
		{"part size in words", []string{"--parts", "3", "--part-size", "8MiB"}, nil, []string{"--part-size:"}},
		{"part size 0", []string{"--parts", "3", "--part-size", "0"}, nil, []string{"--part-size: 0 is too small"}},
		{"part size under 100 KB", []string{"--parts", "3", "--part-size", "102399"}, nil, []string{"part-size: 102399 is out of range"}},
		{"part size over 5 GB", []string{"--parts", "3", "--part-size", "5368709121"}, nil, []string{"part-size: 5368709121 is out of range"}},
		{"part size negative", []string{"--parts", "3", "--part-size=-8"}, nil, []string{"part-size: -8 is out of range"}},
		{"part size under 100 KB with a size", []string{"--size", "1000", "--part-size", "10"}, nil, []string{"part-size: 10 is out of range"}},
		{"too many parts of a size", []string{"--size", "1024000001", "--part-size", "102400"}, nil,
			[]string{"102400 bytes make 10001 parts of 1024000001 bytes"}},
		{"parts in words", []string{"--parts", "many"}, nil, []string{"--parts:"}},
		{"parts 0", []string{"--parts", "0"}, nil, []string{"--parts:"}},
		{"parts negative", []string{"--parts=-1"}, nil, []string{"--parts:"}},
		{"parts over 10000", []string{"--parts", "10001"}, nil, []string{"parts: 10001 is out of range"}},
		{"format", []string{"--parts", "1", "--format", "yaml"}, nil, []string{"--format:"}},
		{"a language", []string{"--parts", "1", "--format", "python"}, nil, []string{"--format:"}},
		{"text without a file", []string{"--parts", "1", "--format", "text"}, nil, []string{"--format: text holds no URLs"}},
		{"manifest in a missing directory", []string{"--parts", "1", "--manifest", "/nonexistent/m.json"}, nil, []string{"--manifest:"}},
		{"settings of a single PUT", []string{"--parts", "1", "--content-length", "1"}, nil, []string{"--content-length"}},
		{"bucket", []string{"--parts", "1", "--bucket", "Demo"}, nil, []string{"bucket:"}},
		{"expires", []string{"--parts", "1", "--expires", "8d"}, nil, []string{"1s to 7d"}},
		{"callback", []string{"--parts", "1", "--callback-url", "ftp://x"}, nil, []string{"callbackUrl:"}},
		{"variable", []string{"--parts", "1", "--var", "UID=1"}, nil, []string{"x:UID:"}},
		{"header", []string{"--parts", "1", "--header", "x-oss-date=1"}, nil, []string{"header x-oss-date:"}},
		{"no secret", []string{"--parts", "1"}, map[string]string{"OSS_ACCESS_KEY_SECRET": ""}, []string{"OSS_ACCESS_KEY_SECRET"}},
		{"all at once", []string{"--size", "x", "--parts", "y", "--part-size", "z", "--format", "w"}, map[string]string{"OSS_REGION": ""},
			[]string{"region:", "--size:", "--part-size:", "--parts:", "--format:"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			env := maps.Clone(env)
			maps.Copy(env, tt.env)
			stdout, stderr, status := execute(t, env, createArgs(tt.args...)...)
			refused(t, tt.want, stdout, stderr, status)
		})
	}
	if seen := gate.Seen(); len(seen) != 0 {
		t.Errorf("OSS got the requests %v", seen)
	}
}

// TestMultipartRefusedByOSS checks that OSS's answer is shown on one line and is not a usage
// error.
func TestMultipartRefusedByOSS(t *testing.T) {
	t.Parallel()
	env, _ := emulated(t)
	for _, tt := range []struct {
		args []string
		env  map[string]string
		want string
	}{
		{[]string{"--bucket", "absent"}, nil, "initiate multipart upload: OSS answers 404 NoSuchBucket"},
		{nil, map[string]string{"OSS_ACCESS_KEY_SECRET": "hunter-other"}, "403 SignatureDoesNotMatch"},
		{nil, map[string]string{"OSS_ACCESS_KEY_ID": "other"}, "403 InvalidAccessKeyId"},
		{nil, map[string]string{"OSS_ENDPOINT": "http://127.0.0.1:1"}, "initiate multipart upload: "},
	} {
		env := maps.Clone(env)
		maps.Copy(env, tt.env)
		path := filepath.Join(t.TempDir(), "m.json")
		stdout, stderr, status := execute(t, env, createArgs(append(tt.args, "--parts", "1", "--manifest", path)...)...)
		if status != 1 || stdout != "" || !strings.Contains(stderr, tt.want) || strings.Count(stderr, "\n") != 1 ||
			strings.Contains(stderr, "hunter") {
			t.Errorf("status %d: %s%s", status, stdout, stderr)
		}
		if _, err := os.Stat(path); !os.IsNotExist(err) {
			t.Errorf("the file was not removed: %v", err)
		}
	}
}

func TestMultipartManifestBadInput(t *testing.T) {
	t.Parallel()
	env, gate := emulated(t)
	good := created(t, env)
	gate.Open() // forgets that request
	put, _, _ := execute(t, env, "put", "--bucket", "demo", "--key", "a", "--format", "json")
	file, manifest := saved(t, "x"), saved(t, good)
	tests := []struct {
		name     string
		manifest string // saved to a file; "" leaves the flag out
		args     []string
		want     []string
	}{
		{"no manifest", "", nil, []string{"--manifest: is required"}},
		{"no such file", "", []string{"--manifest", "/nonexistent"}, []string{"--manifest:"}},
		{"a directory", "", []string{"--manifest", "/"}, []string{"--manifest:"}},
		{"empty standard input", "", []string{"--manifest", "-"}, []string{"--manifest: bad manifest: it is neither a URL nor a JSON object"}},
		{"not JSON", "hello", nil, []string{"--manifest: bad manifest: it is neither a URL nor a JSON object"}},
		{"two documents", good + good, nil, []string{"--manifest: bad manifest: it is neither a URL nor a JSON object"}},
		{"an array", "[]", nil, []string{"--manifest: bad manifest: it is neither a URL nor a JSON object"}},
		{"another object", "{}", nil, []string{"--manifest: bad manifest: it has neither a url nor parts"}},
		{"a single PUT", put, nil, []string{"--manifest: bad manifest: it is an upload by one PUT"}},
		{"no upload id of OSS", strings.Replace(good, `"oss_upload_id"`, `"id"`, 1), nil, []string{"no oss_upload_id"}},
		{"no parts", strings.Replace(good, `"parts"`, `"pieces"`, 1), nil, []string{"it has neither a url nor parts"}},
		{"parts out of order", strings.Replace(good, `"number":1`, `"number":3`, 1), nil,
			[]string{"the parts are not numbered 1, 2, 3 and so on: look at part 1"}},
		{"invalid upload id", strings.Replace(good, `"upload_id":"0`, `"upload_id":"x`, 1), nil,
			[]string{"--manifest: bad manifest: a value is malformed"}},
		{"variables without a callback", changed(t, good, "callback", nil), nil,
			[]string{"--manifest: bad manifest: it has variables of a callback, but no callback"}},
		{"an invalid callback", changed(t, good, "callback", "hello"), nil, []string{"--manifest: bad manifest: callback:"}},
		{"invalid variables", changed(t, good, "callback_var", []int{1}), nil, []string{"--manifest: bad manifest: callback_var:"}},
	}
	for _, command := range []string{"complete", "abort"} {
		for _, tt := range tests {
			t.Run(command+" "+tt.name, func(t *testing.T) {
				args := slices.Concat([]string{"multipart", command}, tt.args)
				if tt.manifest != "" {
					args = append(args, "--manifest", saved(t, tt.manifest))
				}
				stdout, stderr, status := execute(t, env, args...)
				refused(t, tt.want, stdout, stderr, status)
			})
		}
	}
	for _, tt := range []struct {
		args []string
		want []string
	}{
		{[]string{"--crc64", "0xff"}, []string{"--crc64:"}},
		{[]string{"--crc64", "18446744073709551616"}, []string{"--crc64:"}},
		{[]string{"--crc64=-1"}, []string{"--crc64:"}},
		{[]string{"--file", "/nonexistent"}, []string{"--file:"}},
		{[]string{"--file", "/"}, []string{"--file:"}},
		{[]string{"--file", file, "--crc64", "1"}, []string{"--crc64, --file: both are given"}},
		{[]string{"--format", "python"}, []string{"--format:"}},
		{[]string{"--region", "x y", "--format", "x", "--crc64", "x"}, []string{"region:", "--format:", "--crc64:"}},
	} {
		t.Run(fmt.Sprint(tt.args), func(t *testing.T) {
			stdout, stderr, status := execute(t, env, slices.Concat([]string{"multipart", "complete", "--manifest", manifest}, tt.args)...)
			refused(t, tt.want, stdout, stderr, status)
		})
	}
	if seen := gate.Seen(); len(seen) != 0 {
		t.Errorf("OSS got the requests %v", seen)
	}
}

// changed returns a JSON object with another value in one field.
func changed(t *testing.T, document, field string, value any) string {
	t.Helper()
	var fields map[string]any
	if err := json.Unmarshal([]byte(document), &fields); err != nil || fields[field] == nil {
		t.Fatalf("%v: there is no %s", err, field)
	}
	fields[field] = value
	text, err := json.Marshal(fields)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestMultipartFromStandardInput pipes create into abort.
func TestMultipartFromStandardInput(t *testing.T) {
	t.Parallel()
	env, gate := emulated(t)
	_, stderr, status := feed(t, env, created(t, env), "multipart", "abort", "--manifest", "-")
	if n := openUploads(t, gate); status != 0 || n != 0 {
		t.Errorf("status %d, %d uploads are open: %s", status, n, stderr)
	}
}

// TestMultipartNotPrinted checks that an upload is aborted if its manifest cannot be printed.
func TestMultipartNotPrinted(t *testing.T) {
	t.Parallel()
	env, gate := emulated(t)
	path := filepath.Join(t.TempDir(), "m.json")
	for _, args := range [][]string{{"--parts", "3"}, {"--parts", "3", "--manifest", path, "--format", "text"}} {
		err := program.IntoBrokenPipe(t, env, createArgs(args...)...)
		if n := openUploads(t, gate); !errors.Is(err, clitest.ErrBrokenPipe) || cli.ExitCode(err) != 1 || n != 0 {
			t.Errorf("error %v, %d uploads are open", err, n)
		}
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the file was not removed: %v", err)
	}
}
