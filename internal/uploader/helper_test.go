package uploader_test

import (
	"bytes"
	"hash/crc64"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	sdk "github.com/aliyun/alibabacloud-oss-go-sdk-v2/oss"

	"upcall/internal/issue"
	"upcall/internal/manifest"
	"upcall/internal/oss"
	"upcall/internal/ossrule"
	"upcall/internal/testing/ossclient"
	"upcall/internal/testing/ossfake"
	"upcall/internal/testing/receiverfake"
	"upcall/internal/uploader"
	"upcall/internal/uploadtoken"
)

const partSize = ossrule.MinPart

// A world is an emulator behind a gate, a receiver of its callbacks, and an issuer of its
// manifests.
type world struct {
	t        *testing.T
	gate     *ossfake.Gate
	issuer   *issue.Issuer
	client   *sdk.Client // does not go through the gate
	receiver *receiverfake.Receiver
}

func newWorld(t *testing.T) *world {
	t.Helper()
	emulator := ossfake.NewEmulator(t)
	w := &world{t: t, gate: ossfake.NewGate(t, emulator), receiver: receiverfake.New(t)}
	w.client = ossclient.New(ossfake.Serve(t, emulator), ossfake.Region, ossfake.AccessKeyID, ossfake.AccessKeySecret)
	client, err := oss.New(oss.Config{Region: ossfake.Region, Endpoint: w.gate.URL,
		AccessKeyID: ossfake.AccessKeyID, AccessKeySecret: ossfake.AccessKeySecret})
	if err != nil {
		t.Fatal(err)
	}
	tokens, err := uploadtoken.ParseKeys("k1:0123456789abcdef")
	if err != nil {
		t.Fatal(err)
	}
	if w.issuer, err = issue.New(issue.Config{OSS: client, Tokens: tokens}); err != nil {
		t.Fatal(err)
	}
	return w
}

// callback returns a callback to the receiver.
func (w *world) callback() *issue.CallbackSpec {
	return &issue.CallbackSpec{URLs: []string{w.receiver.URL + "/oss/callback"}}
}

func (w *world) put(change ...func(*issue.Request)) manifest.Manifest {
	w.t.Helper()
	r := issue.Request{Object: oss.Object{Bucket: "demo", Key: "a b/猫.bin"}, Expires: time.Hour}
	for _, f := range change {
		f(&r)
	}
	upload, _, err := w.issuer.Issue(w.t.Context(), r)
	if err != nil {
		w.t.Fatal(err)
	}
	return manifest.Manifest{Put: &upload}
}

func (w *world) multipart(size int64, change ...func(*issue.MultipartRequest)) manifest.Manifest {
	w.t.Helper()
	r := issue.MultipartRequest{Object: oss.Object{Bucket: "demo", Key: "a b/猫.bin"}, Expires: time.Hour, Size: &size, PartSize: partSize}
	for _, f := range change {
		f(&r)
	}
	m, _, err := w.issuer.IssueMultipart(w.t.Context(), r)
	if err != nil {
		w.t.Fatal(err)
	}
	return manifest.Manifest{Multipart: &m}
}

// stored returns the object's content, or nil if there is none.
func (w *world) stored() []byte {
	w.t.Helper()
	result, err := w.client.GetObject(w.t.Context(), &sdk.GetObjectRequest{Bucket: sdk.Ptr("demo"), Key: sdk.Ptr("a b/猫.bin")})
	if err != nil {
		if !strings.Contains(err.Error(), "NoSuchKey") {
			w.t.Fatal(err)
		}
		return nil
	}
	defer result.Body.Close()
	content, err := io.ReadAll(result.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return content
}

func (w *world) wantStored(want []byte) {
	w.t.Helper()
	if got := w.stored(); got == nil || !bytes.Equal(got, want) {
		w.t.Errorf("%d bytes are stored, want the %d of the file", len(got), len(want))
	}
}

// someBytes returns n bytes, always the same ones.
func someBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{7}).Read(b) // never fails
	return b
}

func fileOf(t *testing.T, content []byte) (path string, source *uploader.Source) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path, open(t, path)
}

func open(t *testing.T, path string) *uploader.Source {
	t.Helper()
	source, err := uploader.OpenSource(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { source.Close() })
	return source
}

// newUploader returns an uploader with short pauses.
func newUploader(t *testing.T, change ...func(*uploader.Config)) *uploader.Uploader {
	t.Helper()
	cfg := uploader.Config{Parallel: 4, Attempts: 3, Pause: time.Millisecond}
	for _, f := range change {
		f(&cfg)
	}
	u, err := uploader.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// A log is a Watcher that keeps what it is told.
type log struct {
	mu      sync.Mutex
	sent    int64
	remarks []string
}

func (l *log) Sent(n int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sent += n
}

func (l *log) Kept(n int64) { l.Sent(n) }

func (l *log) Remark(line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.remarks = append(l.remarks, line)
}

// cut ends the connection without an answer.
func cut(t *testing.T, w http.ResponseWriter) {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		t.Error(err)
		return
	}
	conn.Close()
}

// answerLost carries out the request and ends the connection without an answer.
func answerLost(t *testing.T, w http.ResponseWriter, r *http.Request, serve http.Handler) {
	serve.ServeHTTP(httptest.NewRecorder(), r)
	cut(t, w)
}

// refuse answers as OSS does.
func refuse(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("x-oss-request-id", "65A0")
	w.WriteHeader(status)
	io.WriteString(w, "<Error><Code>"+code+"</Code><Message>"+message+"</Message><RequestId>65A0</RequestId></Error>")
}

func crcOf(content []byte) uint64 {
	return crc64.Checksum(content, crc64.MakeTable(crc64.ECMA))
}
