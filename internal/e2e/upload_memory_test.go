package e2e

import (
	"encoding/json"
	"fmt"
	"hash/crc64"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	sdk "github.com/aliyun/alibabacloud-oss-go-sdk-v2/oss"

	"upcall/internal/manifest"
	"upcall/internal/testing/ossfake"
)

const maxMemory = 64 << 20 // bytes that the program may use, whatever the file's size

// A sink answers like OSS and stores nothing. It expects a content of zeros.
type sink struct {
	url  string
	peak atomic.Int64 // memory of the uploader, in bytes, up to its last request
	pid  atomic.Int64
}

func newSink(t *testing.T) *sink {
	s := new(sink)
	s.url = ossfake.Serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		size, err := io.Copy(io.Discard, r.Body)
		if err != nil || r.Method == http.MethodPut && size != r.ContentLength {
			t.Errorf("%s: %d bytes: %v", r.Method, size, err)
		}
		query := r.URL.Query()
		w.Header().Set("x-oss-hash-crc64ecma", strconv.FormatUint(crcOfZeros(size), 10))
		w.Header().Set("ETag", `"0"`)
		switch {
		case r.Method == http.MethodGet:
			fmt.Fprintf(w, "<ListPartsResult><UploadId>%s</UploadId></ListPartsResult>", query.Get("uploadId"))
			return
		case query.Has("partNumber"):
			return
		case r.Method == http.MethodPost:
			w.Header().Set("x-oss-hash-crc64ecma", query.Get("crc"))
		}
		s.peak.Store(peakMemory(t, s.pid.Load())) // the last request: the program still runs
	}))
	return s
}

// crcOfZeros returns the CRC-64 of that many zeros, which it doubles step by step.
func crcOfZeros(size int64) uint64 {
	sum, known := uint64(0), int64(0)
	for bit := int64(1) << 40; bit > 0; bit >>= 1 {
		sum, known = sdk.CRC64Combine(sum, sum, uint64(known)), 2*known
		if size&bit != 0 {
			sum, known = crc64.Update(sum, crc64.MakeTable(crc64.ECMA), []byte{0}), known+1
		}
	}
	return sum
}

// peakMemory returns the peak memory of a process, in bytes. The value of wait4 would include
// the memory of the parent when it started the process.
func peakMemory(t *testing.T, pid int64) int64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Error(err)
		return 0
	}
	for line := range strings.Lines(string(status)) {
		if text, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kilobytes, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(text), "kB")), 10, 64)
			if err != nil {
				t.Error(err)
			}
			return kilobytes << 10
		}
	}
	t.Errorf("no VmHWM in %s", status)
	return 0
}

// manifest returns the manifest of an upload of zeros.
func (s *sink) manifest(size, partSize int64) manifest.Multipart {
	request := func(method, query string) manifest.PresignedRequest {
		padding := strings.Repeat("s", 500) // as long as presigned URLs are
		return manifest.PresignedRequest{Method: method, URL: s.url + "/demo/big.bin?uploadId=U&x-oss-signature=" + padding + query,
			Headers: map[string]string{"x-oss-a": "b"}}
	}
	m := manifest.Multipart{Bucket: "demo", Key: "big.bin", OSSUploadID: "U", Size: &size, PartSize: partSize,
		Complete: request("POST", "&crc="+strconv.FormatUint(crcOfZeros(size), 10)),
		Abort:    request("DELETE", ""), ListParts: request("GET", "")}
	for offset := int64(0); offset < size; offset += partSize {
		n, number := min(partSize, size-offset), len(m.Parts)+1
		m.Parts = append(m.Parts, manifest.Part{Number: int32(number), Size: &n,
			PresignedRequest: request("PUT", fmt.Sprintf("&partNumber=%d", number))})
	}
	return m
}

// TestUploadMemory uploads large files with a program built without the race detector, which
// needs memory itself. It does not run in parallel with other tests, because it keeps every
// processor busy.
func TestUploadMemory(t *testing.T) {
	program := filepath.Join(t.TempDir(), "issuer")
	if output, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, "upcall/cmd/issuer").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	tests := []struct {
		name           string
		size, partSize int64 // bytes; a part size of 0 means a single PUT
	}{
		{"one PUT", 1 << 30, 0},
		{"32 parts", 2 << 30, 64 << 20},
		{"10000 parts", 256 << 20, 256<<20/10_000 + 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newSink(t)
			dir := t.TempDir()
			file := filepath.Join(dir, "big.bin")
			if err := os.WriteFile(file, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(file, tt.size); err != nil { // a sparse file
				t.Fatal(err)
			}
			var document any = manifest.Upload{Method: "PUT", URL: s.url + "/demo/big.bin?x-oss-signature=s"}
			if tt.partSize > 0 {
				document = s.manifest(tt.size, tt.partSize)
			}
			text, err := json.Marshal(document)
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.CommandContext(t.Context(), program, "upload", file, "--manifest", "-", "--parallel", "16", "--state-dir", dir)
			cmd.Stdin = strings.NewReader(string(text))
			var output strings.Builder
			cmd.Stdout, cmd.Stderr = &output, &output
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			s.pid.Store(int64(cmd.Process.Pid))
			if err := cmd.Wait(); err != nil {
				t.Fatalf("%v\n%s", err, &output)
			}
			if peak := s.peak.Load(); peak == 0 || peak > maxMemory {
				t.Errorf("%d bytes of memory for %d bytes, want at most %d", peak, tt.size, maxMemory)
			} else {
				t.Logf("%d MiB of memory for a file of %d MiB", peak>>20, tt.size>>20)
			}
		})
	}
}
