// Package e2e tests whole programs together: the built issuer, the emulator and receivers.
package e2e

import (
	"bytes"
	"context"
	"fmt"
	"hash/crc64"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	sdk "github.com/aliyun/alibabacloud-oss-go-sdk-v2/oss"

	"upcall/internal/callbackspec"
	"upcall/internal/issuer"
	"upcall/internal/manifest"
	"upcall/internal/oss"
	"upcall/internal/ossemu"
	"upcall/internal/policy"
	"upcall/internal/testing/clitest"
	"upcall/internal/testing/ossclient"
	"upcall/internal/testing/ossfake"
	"upcall/internal/testing/proc"
	"upcall/internal/testing/receiverfake"
	"upcall/internal/testing/servetest"
	"upcall/internal/uploadtoken"
)

func TestMain(m *testing.M) {
	proc.Main(map[string]func(){"receiver": beReceiver})
	os.Exit(runTests(m))
}

// bin is the directory of the programs.
var bin string

func runTests(m *testing.M) int {
	var err error
	if bin, err = os.MkdirTemp("", "upcall-e2e-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(bin)
	return m.Run()
}

// build builds the programs once, with the race detector if the tests have it.
var build = sync.OnceValue(func() error {
	args := []string{"build", "-o", bin}
	if info, ok := debug.ReadBuildInfo(); ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		args = append(args, "-race")
	}
	if output, err := exec.Command("go", append(args, "upcall/cmd/issuer", "upcall/cmd/receiver", "upcall/examples/go-app")...).CombinedOutput(); err != nil {
		return fmt.Errorf("build: %w: %s", err, output)
	}
	return nil
})

// programs returns the directory of the built issuer and receiver.
func programs(t *testing.T) string {
	t.Helper()
	if err := build(); err != nil {
		t.Fatal(err)
	}
	return bin
}

// command returns a command that runs the issuer with only the given environment.
func command(t *testing.T, env clitest.Env, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(programs(t), "issuer"), args...)
	cmd.Env = []string{proc.QuickExit} // without the environment of the test
	for name, value := range env {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	return cmd
}

// execute runs the issuer and returns what it wrote and its exit status.
func execute(t *testing.T, env clitest.Env, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	return output(t, command(t, env, args...))
}

func output(t *testing.T, cmd *exec.Cmd) (stdout, stderr string, status int) {
	t.Helper()
	var out, remarks bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &remarks
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return out.String(), contentTypeNote.ReplaceAllString(remarks.String(), ""), cmd.ProcessState.ExitCode()
}

// contentTypeNote is about clients that add a Content-Type; these tests send what was signed.
var contentTypeNote = regexp.MustCompile(`(?m)^issuer: note: without --content-type .*\n`)

// put issues an upload by one PUT.
func put(t *testing.T, env clitest.Env, args ...string) manifest.Upload {
	t.Helper()
	stdout, stderr, status := execute(t, env, slices.Concat([]string{"put", "--format", "json"}, args)...)
	if status != 0 || stderr != "" {
		t.Fatalf("status %d: %s", status, stderr)
	}
	m, err := manifest.Read(strings.NewReader(stdout))
	if err != nil {
		t.Fatal(err)
	}
	return *m.Put
}

// answer is the answer of the receivers in these tests, which an uploader must get.
const answer = receiverfake.Answer

// A world is an emulator behind a gate, a receiver that checks nothing, and an
// environment that points at them.
type world struct {
	env      clitest.Env
	emulator string // its URL, not through the gate
	gate     *ossfake.Gate
	receiver *receiverfake.Receiver
}

func newWorld(t *testing.T, change ...func(*ossemu.Config)) world {
	t.Helper()
	emulator := ossfake.NewEmulator(t, change...)
	w := world{emulator: ossfake.Serve(t, emulator), gate: ossfake.NewGate(t, emulator), receiver: receiverfake.New(t)}
	w.env = clitest.Env{
		"OSS_ACCESS_KEY_ID": ossfake.AccessKeyID, "OSS_ACCESS_KEY_SECRET": ossfake.AccessKeySecret, "OSS_REGION": ossfake.Region,
		"OSS_ENDPOINT": w.gate.URL, "UPCALL_TOKEN_KEYS": "k1:hunter-0123456789abcdef",
		"UPCALL_STATE_DIR": filepath.Join(t.TempDir(), "state"),
	}
	return w
}

// callback returns the one callback that came, whose token must be for the key.
func (w world) callback(t *testing.T, key string) callbackspec.Callback {
	t.Helper()
	r := w.receiver.One(t)
	callback, content, err := callbackspec.Read(r.Header.Get("Content-Type"), []byte(r.Body), nil)
	if err != nil {
		t.Fatalf("%v in %s", err, r.Body)
	}
	ring, err := uploadtoken.ParseKeys(w.env["UPCALL_TOKEN_KEYS"])
	if err != nil {
		t.Fatal(err)
	}
	says := uploadtoken.Callback{Bucket: "demo", Object: key, MimeType: callback.MimeType, Size: callback.Size, Fields: content}
	if _, err := ring.Check(callback.Token, says, time.Now()); err != nil {
		t.Errorf("token: %v", err)
	}
	if callback.Bucket != "demo" || callback.Object != key {
		t.Errorf("callback for %s in %s, want %s in demo", callback.Object, callback.Bucket, key)
	}
	return callback
}

// startIssuer starts the issuer's service for an emulator, and returns its URL.
func startIssuer(t *testing.T, cfg issuer.Config, endpoint, policies string) string {
	t.Helper()
	var err error
	if cfg.Policies, err = policy.Parse([]byte(policies), callbackspec.AnyHost); err != nil {
		t.Fatal(err)
	}
	cfg.OSS = oss.Config{
		Region: ossfake.Region, Endpoint: endpoint, AccessKeyID: ossfake.AccessKeyID, AccessKeySecret: ossfake.AccessKeySecret,
	}
	cfg.Logger = slog.New(slog.DiscardHandler)
	return servetest.Start(t, func(ctx context.Context, api, admin net.Listener) error {
		return issuer.Run(ctx, cfg, api, admin)
	}).Public
}

// createArgs returns a valid multipart command line for the world's emulator.
func (w world) createArgs(args ...string) []string {
	good := []string{"multipart", "create", "--bucket", "demo", "--key", "video.mp4", "--callback-url", w.receiver.URL + "/oss/callback"}
	return slices.Concat(good, args)
}

// create creates an upload and returns its manifest, parsed and as text.
func (w world) create(t *testing.T, args ...string) (manifest.Multipart, string) {
	t.Helper()
	stdout, stderr, status := execute(t, w.env, w.createArgs(args...)...)
	if status != 0 || stderr != "" {
		t.Fatalf("status %d: %s", status, stderr)
	}
	m, err := manifest.Read(strings.NewReader(stdout))
	if err != nil {
		t.Fatal(err)
	}
	return *m.Multipart, stdout
}

// uploadParts sends the content in parts, as any HTTP client would, and returns their ETags.
func uploadParts(t *testing.T, m manifest.Multipart, content []byte) []string {
	t.Helper()
	var etags []string
	for _, part := range m.Parts {
		start := int64(part.Number-1) * m.PartSize
		if start >= int64(len(content)) {
			break
		}
		body := content[start:min(start+m.PartSize, int64(len(content)))]
		status, answer, header := ask(t, part.PresignedRequest, body)
		if status != http.StatusOK {
			t.Fatalf("part %d: status %d: %s", part.Number, status, answer)
		}
		etags = append(etags, header.Get("ETag"))
	}
	return etags
}

// send uploads "hello world".
func send(t *testing.T, r manifest.PresignedRequest) (status int, answer string) {
	t.Helper()
	status, answer, _ = ask(t, r, []byte("hello world"))
	return status, answer
}

// ask sends one presigned request with its headers and nothing else.
func ask(t *testing.T, r manifest.PresignedRequest, body []byte) (status int, answer string, header http.Header) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), r.Method, r.URL, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range r.Headers {
		req.Header.Set(name, value)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text), resp.Header
}

// openUploads counts the uploads that were neither completed nor aborted.
func (w world) openUploads(t *testing.T) int {
	t.Helper()
	return len(ossclient.OpenUploads(t, w.client(), ossfake.Bucket))
}

// abortAll aborts the open uploads.
func (w world) abortAll(t *testing.T) {
	t.Helper()
	uploads := ossclient.OpenUploads(t, w.client(), ossfake.Bucket)
	if len(uploads) == 0 {
		t.Fatal("no upload is open")
	}
	for _, u := range uploads {
		abort := &sdk.AbortMultipartUploadRequest{Bucket: sdk.Ptr(ossfake.Bucket), Key: u.Key, UploadId: u.UploadId}
		if _, err := w.client().AbortMultipartUpload(t.Context(), abort); err != nil {
			t.Fatal(err)
		}
	}
}

// stored reads an object with the account's credentials.
func (w world) stored(t *testing.T, key string) string {
	t.Helper()
	_, content := ossclient.Get(t, w.client(), ossfake.Bucket, key)
	return string(content)
}

// client returns a client with the account's credentials. It does not go through the gate.
func (w world) client() *sdk.Client {
	return ossclient.New(w.emulator, ossfake.Region, ossfake.AccessKeyID, ossfake.AccessKeySecret)
}

func content(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i * i >> 3)
	}
	return b
}

func crcOf(b []byte) uint64 { return crc64.Checksum(b, crc64.MakeTable(crc64.ECMA)) }

func completeXML(etags []string) []byte {
	var b strings.Builder
	b.WriteString("<CompleteMultipartUpload>")
	for i, etag := range etags {
		fmt.Fprintf(&b, "<Part><PartNumber>%d</PartNumber><ETag>%s</ETag></Part>", i+1, etag)
	}
	b.WriteString("</CompleteMultipartUpload>")
	return []byte(b.String())
}

// askAs sends the actual length of the body instead of the signed one, as net/http does.
func askAs(t *testing.T, r manifest.PresignedRequest, body []byte) (int, string, http.Header) {
	t.Helper()
	headers := map[string]string{}
	for name, value := range r.Headers {
		if name != "content-length" {
			headers[name] = value
		}
	}
	return ask(t, manifest.PresignedRequest{Method: r.Method, URL: r.URL, Headers: headers}, body)
}

// complete runs multipart complete on a manifest's text.
func (w world) complete(t *testing.T, manifest string, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	return execute(t, w.env, slices.Concat([]string{"multipart", "complete", "--manifest", saved(t, manifest)}, args)...)
}

func saved(t *testing.T, text string) string {
	t.Helper()
	return clitest.WriteFile(t, "manifest.json", text)
}
