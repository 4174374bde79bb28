package e2e

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"upcall/internal/dbtest"
	"upcall/internal/issuer"
	"upcall/internal/manifest"
	"upcall/internal/ossemu"
	"upcall/internal/testing/ossfake"
	"upcall/internal/testing/proc"
	"upcall/internal/testing/receiverfake"
	"upcall/internal/testing/toolchain"
	"upcall/internal/uploadtoken"
)

// docs/uploads.md lists tasks in tables. The last cell of a row has the commands for its task,
// each in its own code span and one line of POSIX shell. If a row's first command starts with
// issuer, perhaps after assignments of variables, or with curl, the test runs the commands of
// the row in order. All rows run in one directory.
//
// That directory holds exampleobject.txt, a file of three parts; aliyun.json and
// .aliyun/config.json with the profiles default and sts; credentials.json; and policies.yaml,
// which is the page's block of YAML. The bucket, the callback URL and the rest of the
// environment are set. All host names of OSS and example.com lead to emulators and a receiver
// of this test, except down.example.com, which cannot be reached. issuer serve runs at $API
// with the same environment.
//
// After each command the test uses what was printed, or written to a file that ends in .json,
// as an uploader would:
//   - JSON of issuer form or of the API: it posts exampleobject.txt with those fields;
//   - JSON of issuer put or of the API: it sends exampleobject.txt with those headers twice. OSS rejects
//     the second upload if overwriting is forbidden;
//   - a manifest of issuer multipart create: it sends the parts;
//   - text with a curl command: it runs that.
//
// To document another task, add a row and increase the number below. Every command must end
// with the status 0.
const (
	uploadsPage    = "../../docs/uploads.md"
	documented     = 59 // rows
	documentedKeys = "k1:hunter-0123456789abcdef"
)

var (
	codeSpan      = regexp.MustCompile("`([^`]+)`")
	policyBlock   = regexp.MustCompile("(?s)```yaml\n(.*?)```")
	runsIssuer    = regexp.MustCompile(`^(([A-Z_]+=\S* )*issuer|curl) `)
	temporaryKeys = `{"AccessKeyId":"ak","AccessKeySecret":"hunter-sk","SecurityToken":"token","Expiration":"%s","Code":"Success"}`
)

// documentedRows returns the commands of each row that runs issuer.
func documentedRows(t *testing.T) [][]string {
	t.Helper()
	page, err := os.ReadFile(uploadsPage)
	if err != nil {
		t.Fatal(err)
	}
	var rows [][]string
	for line := range strings.Lines(string(page)) {
		line = strings.TrimSuffix(strings.TrimSpace(strings.ReplaceAll(line, `\|`, "\x00")), "|")
		if !strings.HasPrefix(line, "|") {
			continue
		}
		cell := line[strings.LastIndexByte(line, '|')+1:]
		var commands []string
		for _, span := range codeSpan.FindAllStringSubmatch(cell, -1) {
			commands = append(commands, strings.ReplaceAll(span[1], "\x00", "|"))
		}
		if len(commands) > 0 && runsIssuer.MatchString(commands[0]) {
			rows = append(rows, commands)
		}
	}
	if len(rows) != documented {
		t.Fatalf("%s has %d rows with commands, but the test expects %d; does it read the page correctly?",
			uploadsPage, len(rows), documented)
	}
	return rows
}

// documentedPolicies returns the page's policy file.
func documentedPolicies(t *testing.T) string {
	t.Helper()
	page, err := os.ReadFile(uploadsPage)
	if err != nil {
		t.Fatal(err)
	}
	block := policyBlock.FindSubmatch(page)
	if block == nil {
		t.Fatalf("%s has no block of YAML", uploadsPage)
	}
	return string(block[1])
}

// TestDocumentedCommands runs docs/uploads.md.
func TestDocumentedCommands(t *testing.T) {
	t.Parallel()
	for _, tool := range []string{"curl", "jq", "openssl"} {
		toolchain.Need(t, tool)
	}
	r := newReader(t)
	for _, commands := range documentedRows(t) {
		for _, command := range commands {
			r.run(t, command)
		}
	}
	if came := len(r.receiver.Callbacks()); came < 40 {
		t.Errorf("%d callbacks came", came)
	}
}

// A reader runs the commands of the page.
type reader struct {
	dir      string
	env      []string
	content  []byte
	client   *http.Client
	seen     map[string]bool // manifests that were uploaded already
	receiver *receiverfake.Receiver
}

func newReader(t *testing.T) *reader {
	t.Helper()
	r := &reader{dir: t.TempDir(), content: content(250_000), seen: make(map[string]bool)}
	r.receiver = receiverfake.NewUnstarted(t)
	r.receiver.StartTLS()
	permanent := documentedOSS(t, r.receiver, "")
	temporary := documentedOSS(t, r.receiver, "token")
	metadata := ossfake.Serve(t, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if strings.HasSuffix(req.URL.Path, "/") {
			io.WriteString(w, "uploads")
			return
		}
		fmt.Fprintf(w, temporaryKeys, time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
	}))
	r.client = &http.Client{Transport: toEmulators{permanent, temporary}}
	r.fill(t)
	database := dbtest.URL(t)
	r.env = []string{proc.QuickExit, "PATH=" + programs(t) + ":" + os.Getenv("PATH"), "HOME=" + r.dir, "HTTP_PROXY=" + metadata,
		"OSS_REGION=cn-hangzhou", "OSS_ENDPOINT=" + permanent, "OSS_ACCESS_KEY_ID=ak", "OSS_ACCESS_KEY_SECRET=hunter-sk",
		"UPCALL_BUCKET=examplebucket", "UPCALL_TOKEN_KEYS=" + documentedKeys,
		"UPCALL_CALLBACK_URL=https://uploads.example.com/oss/callback",
		"UPCALL_DATABASE_URL=" + database, "UPCALL_POLICIES=" + filepath.Join(r.dir, "policies.yaml")}
	tokens, err := uploadtoken.ParseKeys(documentedKeys)
	if err != nil {
		t.Fatal(err)
	}
	api := startIssuer(t, issuer.Config{DatabaseURL: database, Tokens: tokens}, permanent, documentedPolicies(t))
	r.env = append(r.env, "API="+api)
	return r
}

// documentedOSS starts an emulator that resolves every host name to the receiver.
func documentedOSS(t *testing.T, receiver *receiverfake.Receiver, token string) string {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AddCert(receiver.Certificate())
	return ossfake.Start(t, func(c *ossemu.Config) {
		c.SecurityToken, c.Buckets, c.CallbackRootCAs = token, []string{"examplebucket"}, roots
		c.CallbackDial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			if strings.HasPrefix(addr, "down.") {
				return nil, &net.OpError{Op: "dial", Err: os.ErrDeadlineExceeded}
			}
			return new(net.Dialer).DialContext(ctx, network, receiver.Listener.Addr().String())
		}
	})
}

// fill fills the directory.
func (r *reader) fill(t *testing.T) {
	t.Helper()
	end := time.Now().Add(time.Hour)
	aliyun := fmt.Sprintf(`{"current":"default","profiles":[{"name":"default","mode":"AK","access_key_id":"ak","access_key_secret":"hunter-sk"},
		{"name":"sts","mode":"StsToken","access_key_id":"ak","access_key_secret":"hunter-sk","sts_token":"token","sts_expiration":%d}]}`, end.Unix())
	for name, text := range map[string]string{
		"exampleobject.txt": string(r.content), "aliyun.json": aliyun, ".aliyun/config.json": aliyun,
		"policies.yaml":    documentedPolicies(t),
		"credentials.json": fmt.Sprintf(temporaryKeys, end.UTC().Format(time.RFC3339)),
	} {
		path := filepath.Join(r.dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
}

// run runs one command and uploads with what it printed.
func (r *reader) run(t *testing.T, command string) {
	t.Helper()
	sh := exec.CommandContext(t.Context(), "sh", "-eu", "-c", command)
	sh.Dir, sh.Env = r.dir, r.env
	var remarks strings.Builder
	sh.Stderr = &remarks
	out, err := sh.Output()
	if err != nil {
		t.Errorf("%s\n%v: %s%s", command, err, out, remarks.String())
		return
	}
	printed := [][]byte{out}
	files, err := filepath.Glob(filepath.Join(r.dir, "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if name := filepath.Base(file); name != "aliyun.json" && name != "credentials.json" && !r.seen[name] {
			r.seen[name] = true
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			printed = append(printed, text)
		}
	}
	for _, text := range printed {
		r.upload(t, command, text)
	}
}

func (r *reader) upload(t *testing.T, command string, printed []byte) {
	t.Helper()
	m, err := manifest.Read(bytes.NewReader(printed))
	switch many, one := m.Multipart, m.Put; {
	case err == nil && many != nil:
		for _, part := range many.Parts {
			start := min(int64(part.Number-1)*many.PartSize, int64(len(r.content)))
			if body := r.content[start:min(start+many.PartSize, int64(len(r.content)))]; len(body) > 0 {
				r.send(t, command, http.StatusOK, part.Method, part.URL, part.Headers, body)
			}
		}
	case err == nil:
		again := http.StatusOK
		if one.Headers["x-oss-forbid-overwrite"] != "" {
			again = http.StatusConflict
		}
		r.send(t, command, http.StatusOK, one.Method, one.URL, one.Headers, r.content)
		r.send(t, command, again, one.Method, one.URL, one.Headers, r.content)
	case bytes.Contains(printed, []byte(`"fields":{`)):
		var form manifest.Form
		if err := json.Unmarshal(printed, &form); err != nil {
			t.Fatal(err)
		}
		body, kind := formBody(form.Fields, "exampleobject.txt", string(r.content))
		r.send(t, command, http.StatusOK, form.Method, form.URL, map[string]string{"Content-Type": kind}, body)
	case bytes.Contains(printed, []byte("\ncurl ")):
		if out := runCurl(t, string(printed), string(r.content)); out != answer+"\n200\n" {
			t.Errorf("%s\ncurl printed %q", command, out)
		}
	}
}

// send sends a request with the headers that were printed and no others.
func (r *reader) send(t *testing.T, command string, want int, method, target string, headers map[string]string, body []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, target, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range headers {
		req.Header.Set(name, value)
	}
	resp, err := r.client.Do(req)
	if err != nil {
		t.Errorf("%s\n%v", command, err)
		return
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Error(err)
	}
	if resp.StatusCode != want {
		t.Errorf("%s\nstatus %d, want %d: %s", command, resp.StatusCode, want, text)
	}
}

// toEmulators sends all requests to the emulators; the credentials decide to which one. It puts
// the bucket into the path, because a custom domain does not name it. Neither is signed.
type toEmulators struct{ permanent, temporary string }

func (e toEmulators) RoundTrip(req *http.Request) (*http.Response, error) {
	to := e.permanent
	if req.URL.Query().Has("x-oss-security-token") {
		to = e.temporary
	}
	emulator, err := url.Parse(to)
	if err != nil {
		return nil, err
	}
	sent := req.Clone(req.Context())
	sent.URL.Scheme, sent.URL.Host, sent.Host = "http", emulator.Host, emulator.Host
	if !strings.HasPrefix(sent.URL.Path, "/examplebucket/") {
		sent.URL.Path = "/examplebucket" + sent.URL.Path
		sent.URL.RawPath = ""
	}
	return http.DefaultTransport.RoundTrip(sent)
}
