package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"upcall/internal/admission"
	"upcall/internal/dbtest"
	"upcall/internal/ossemu"
	"upcall/internal/receiver"
	"upcall/internal/testing/clitest"
	"upcall/internal/testing/ossfake"
	"upcall/internal/testing/receiverfake"
	"upcall/internal/testing/servetest"
	"upcall/internal/uploadtoken"
)

// A checkReport is the JSON that users rely on, declared here independently of the program.
type checkReport struct {
	Failed string
	Links  []struct{ Link, Status, Detail string }
	Key    string
	Left   string
}

// checkJSON runs issuer check and returns its report.
func checkJSON(t *testing.T, env clitest.Env, args ...string) (checkReport, int) {
	t.Helper()
	stdout, stderr, status := execute(t, env, slices.Concat([]string{"check", "--bucket", "demo", "--format", "json"}, args)...)
	var r checkReport
	if err := json.Unmarshal([]byte(stdout), &r); err != nil {
		t.Fatalf("%v in %q, %s", err, stdout, stderr)
	}
	if strings.Contains(stdout+stderr, "hunter") || strings.Contains(stdout+stderr, "x-oss-signature") {
		t.Errorf("a secret is shown: %s%s", stdout, stderr)
	}
	return r, status
}

// answering is a receiver that answers so.
func answering(status int, body string) func(*testing.T, clitest.Env, *ossfake.Gate) string {
	return func(t *testing.T, _ clitest.Env, _ *ossfake.Gate) string {
		r := receiverfake.New(t)
		r.AnswerWith(func(w http.ResponseWriter, _ *http.Request) { receiverfake.Respond(w, status, body) })
		return r.URL
	}
}

// refusing has OSS answer requests of a method so.
func refusing(method string, status int, body string) func(*testing.T, clitest.Env, *ossfake.Gate) string {
	return func(t *testing.T, _ clitest.Env, gate *ossfake.Gate) string {
		gate.Between(func(w http.ResponseWriter, r *http.Request, serve http.Handler) {
			if r.Method == method {
				w.Header().Set("x-oss-request-id", "65A0")
				w.WriteHeader(status)
				io.WriteString(w, body)
				return
			}
			serve.ServeHTTP(w, r)
		})
		return receiverfake.New(t).URL
	}
}

// with sets a variable.
func with(name, value string) func(*testing.T, clitest.Env, *ossfake.Gate) string {
	return func(t *testing.T, env clitest.Env, _ *ossfake.Gate) string {
		env[name] = value
		return receiverfake.New(t).URL
	}
}

// TestCheckBroken breaks each link once. The check names it, and says of no link after it that it is right.
func TestCheckBroken(t *testing.T) {
	t.Parallel()
	const uploaded = `{"status":"ok","event_id":"e","upload_id":null,"durable":"postgres"}`
	for name, tt := range map[string]struct {
		arrange func(*testing.T, clitest.Env, *ossfake.Gate) (callbackURL string)
		args    []string
		link    string
		says    string
	}{
		"nothing listens": {with("OSS_ENDPOINT", "http://127.0.0.1:1"), nil, "endpoint", "check --endpoint"},
		"not OSS": {func(t *testing.T, env clitest.Env, _ *ossfake.Gate) string {
			env["OSS_ENDPOINT"] = ossfake.Serve(t, http.NotFoundHandler())
			return receiverfake.New(t).URL
		}, nil, "endpoint", "is not OSS"},
		"a certificate that is not trusted": {func(t *testing.T, env clitest.Env, _ *ossfake.Gate) string {
			server := httptest.NewTLSServer(http.NotFoundHandler())
			t.Cleanup(server.Close)
			env["OSS_ENDPOINT"] = server.URL
			return receiverfake.New(t).URL
		}, nil, "endpoint", "certificate is not trusted"},
		"no answer to the upload": {func(t *testing.T, _ clitest.Env, gate *ossfake.Gate) string {
			gate.Between(func(w http.ResponseWriter, r *http.Request, serve http.Handler) {
				if r.Method == http.MethodPut {
					panic(http.ErrAbortHandler)
				}
				serve.ServeHTTP(w, r)
			})
			return receiverfake.New(t).URL
		}, nil, "endpoint", "the upload got no answer"},
		"OSS fails": {refusing("PUT", 500, "<Error><Code>InternalError</Code><Message>try later</Message></Error>"), nil, "endpoint", "InternalError"},
		"a clock that is an hour off": {func(t *testing.T, _ clitest.Env, gate *ossfake.Gate) string {
			gate.Between(func(w http.ResponseWriter, r *http.Request, serve http.Handler) {
				w.Header().Set("Date", time.Now().Add(time.Hour).UTC().Format(http.TimeFormat))
				serve.ServeHTTP(w, r)
			})
			return receiverfake.New(t).URL
		}, nil, "clock", "off by -"},
		"a clock that OSS refuses": {refusing("PUT", 403, "<Error><Code>RequestTimeTooSkewed</Code><Message>skewed</Message></Error>"), nil, "clock", "correct the clock"},
		"wrong secret":             {with("OSS_ACCESS_KEY_SECRET", "wrong"), nil, "credentials", "check OSS_ACCESS_KEY_SECRET"},
		"wrong id":                 {with("OSS_ACCESS_KEY_ID", "wrong"), nil, "credentials", "check OSS_ACCESS_KEY_ID"},
		"a command without any":    {with("UPCALL_CREDENTIALS_PROCESS", "false"), nil, "credentials", "check where the credentials come from"},
		"wrong region":             {with("OSS_REGION", "cn-beijing"), nil, "region", "check --region"},
		"a bucket elsewhere": {refusing("PUT", 403, "<Error><Code>AccessDenied</Code><Message>The bucket you are attempting to access must be "+
			"addressed using the specified endpoint.</Message></Error>"), nil, "region", "the bucket is in another region"},
		"no such bucket": {with("", ""), []string{"--bucket", "absent"}, "bucket", "there is no such bucket"},
		"no right":       {refusing("PUT", 403, "<Error><Code>AccessDenied</Code><Message>no right</Message></Error>"), nil, "permission", "RAM policy"},
		"no CORS rule":   {refusing("OPTIONS", 403, ""), []string{"--origin", "https://app.example.com"}, "CORS", "no CORS rule"},
		"a callback that OSS does not take": {refusing("PUT", 400, "<Error><Code>InvalidArgument</Code><Message>The callback configuration is not json format."+
			"</Message></Error>"), nil, "callback URL", "InvalidArgument"},
		"nothing listens at the callback URL": {func(*testing.T, clitest.Env, *ossfake.Gate) string { return "http://127.0.0.1:1/oss/callback" },
			nil, "callback URL", "cannot be reached from here either"},
		"wrong path":                 {answering(404, ""), nil, "callback URL", "UPCALL_CALLBACK_PATH"},
		"a redirect":                 {answering(301, ""), nil, "callback URL", "does not follow redirects"},
		"an answer that is not JSON": {answering(200, "<html>"), nil, "receiver", "is not an Upcall receiver"},
		"a certificate that OSS does not trust": {func(t *testing.T, _ clitest.Env, _ *ossfake.Gate) string {
			r := receiverfake.NewUnstarted(t)
			r.StartTLS()
			return r.URL
		}, nil, "TLS and SNI", "the TLS handshake fails from here, too"},
		"a server that needs the server name": {func(t *testing.T, _ clitest.Env, _ *ossfake.Gate) string {
			r := receiverfake.NewUnstarted(t)
			r.TLS = &tls.Config{MinVersion: tls.VersionTLS12, GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
				if hello.ServerName == "" {
					return nil, errors.New("no server name")
				}
				return nil, nil
			}}
			r.StartTLS()
			return strings.Replace(r.URL, "127.0.0.1", "localhost", 1) // addresses are not sent as names
		}, []string{"--no-callback-sni"}, "TLS and SNI", "may need the name: leave out --no-callback-sni"},
		"a refusal without a reason": {answering(403, ""), nil, "receiver", "most likely UPCALL_TOKEN_KEYS differ"},
		"a refusal without keys": {func(t *testing.T, env clitest.Env, g *ossfake.Gate) string {
			env["UPCALL_TOKEN_KEYS"] = ""
			return answering(403, "")(t, env, g)
		}, nil, "token keys", "set UPCALL_TOKEN_KEYS"},
		"a receiver that takes no tokens":  {answering(200, uploaded), nil, "token keys", "without its token"},
		"another server":                   {answering(200, `{"hello":"world"}`), nil, "receiver", "is not an Upcall receiver"},
		"a receiver that fails":            {answering(500, ""), nil, "receiver", "log of the receiver"},
		"a receiver without its database":  {answering(503, ""), nil, "database", "cannot record"},
		"a receiver that spools":           {answering(200, strings.Replace(uploaded, "postgres", "spool", 1)), nil, "token keys", "without its token"},
		"a receiver behind a dead gateway": {answering(502, ""), nil, "receiver", "proxy in front"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			env, gate := emulated(t)
			env = maps.Clone(env)
			target := tt.arrange(t, env, gate)
			delete(env, "")
			r, status := checkJSON(t, env, slices.Concat([]string{"--callback-url", target}, tt.args)...)
			at := slices.IndexFunc(r.Links, func(l struct{ Link, Status, Detail string }) bool { return l.Link == r.Failed })
			if status != 1 || r.Failed != tt.link || !strings.Contains(r.Links[at].Detail, tt.says) {
				t.Fatalf("status %d, failed %q: %+v", status, r.Failed, r.Links)
			}
			if r.Left != "" {
				t.Errorf("the object was not deleted: %s", r.Left)
			}
		})
	}
}

// checkedReceiver starts a real receiver for the environment's emulator and returns its callback URL.
func checkedReceiver(t *testing.T, env clitest.Env, database string, change ...func(*receiver.Config)) string {
	t.Helper()
	keys, err := uploadtoken.ParseKeys(env["UPCALL_TOKEN_KEYS"])
	if err != nil {
		t.Fatal(err)
	}
	cfg := receiver.Config{DatabaseURL: database, Admission: admission.Config{Tokens: keys}, Logger: slog.New(slog.DiscardHandler),
		TrustKeyURLs: []string{env["OSS_ENDPOINT"] + ossemu.PublicKeyPath}}
	for _, f := range change {
		f(&cfg)
	}
	return servetest.Start(t, func(ctx context.Context, public, admin net.Listener) error {
		return receiver.Run(ctx, cfg, public, admin)
	}).Public + "/oss/callback"
}

// TestCheck checks a chain in which everything is right, and then with a real receiver that refuses.
func TestCheck(t *testing.T) {
	t.Parallel()
	database := dbtest.URL(t)
	for name, tt := range map[string]struct {
		change func(*receiver.Config)
		store  string
		link   string
		says   string
	}{
		"right":              {func(*receiver.Config) {}, database, "", ""},
		"right, no database": {func(*receiver.Config) {}, "", "", ""},
		"other token keys": {func(c *receiver.Config) {
			c.Admission.Tokens, _ = uploadtoken.ParseKeys("k1:another-hunter-0123456789")
		}, database, "token keys", "the receiver's reason is token_"},
		"another bucket":   {func(c *receiver.Config) { c.Admission.Buckets = []string{"other"} }, database, "receiver", "add the bucket to UPCALL_BUCKETS"},
		"another key":      {func(c *receiver.Config) { c.TrustKeyURLs = nil }, database, "receiver", "the receiver's reason is "},
		"tokens are off":   {func(c *receiver.Config) { c.Admission.TokenPolicy, c.Admission.Tokens = admission.TokenOff, nil }, "", "token keys", "UPCALL_TOKEN=required"},
		"another database": {func(*receiver.Config) {}, dbtest.URL(t), "database", "the receiver uses another one"},
		"no such database": {func(*receiver.Config) {}, "postgres://upcall:hunter2@127.0.0.1:1/upcall", "database", "UPCALL_DATABASE_URL"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			emulator := ossfake.NewEmulator(t)
			gate, env := ossfake.NewGate(t, emulator), goodEnv()
			env["OSS_ENDPOINT"] = gate.URL
			target := checkedReceiver(t, env, database, tt.change)
			env["UPCALL_DATABASE_URL"] = tt.store
			r, status := checkJSON(t, env, "--callback-url", target, "--origin", "https://app.example.com")
			if r.Failed != tt.link || (status == 0) != (tt.link == "") || r.Left != "" {
				t.Fatalf("status %d, failed %q, left %q: %+v", status, r.Failed, r.Left, r.Links)
			}
			for _, link := range r.Links {
				if link.Link == tt.link && !strings.Contains(link.Detail, tt.says) {
					t.Errorf("%+v does not say %q", link, tt.says)
				}
				if tt.link == "" && link.Status != "ok" && link.Link != "TLS and SNI" { // the callback goes over plain HTTP
					t.Errorf("%+v", link)
				}
			}
			if gate.Count("DELETE") != 1 && tt.says != "UPCALL_DATABASE_URL" {
				t.Errorf("requests %v", gate.Seen())
			}
		})
	}
}

// TestCheckText checks the lines, and that an object which must not be deleted is named.
func TestCheckText(t *testing.T) {
	t.Parallel()
	env, gate := emulated(t)
	target := refusing("DELETE", 403, "<Error><Code>AccessDenied</Code></Error>")(t, env, gate)
	stdout, stderr, status := execute(t, env, "check", "--bucket", "demo", "--callback-url", target+receiverfake.RefusePath)
	if status != 1 || !strings.Contains(stdout, "ok       endpoint ") || !strings.Contains(stdout, "FAILED   receiver ") ||
		!strings.Contains(stdout, "unknown  database\n") || strings.Count(stdout, "\n") != 12 ||
		!strings.Contains(stderr, "note: the object upcall-check/") || !strings.HasSuffix(stderr, "issuer: the check failed at the link \"receiver\"\n") {
		t.Errorf("status %d: %s%s", status, stdout, stderr)
	}
}

func TestCheckBadInput(t *testing.T) {
	t.Parallel()
	env, gate := emulated(t)
	for name, tt := range map[string]struct {
		args []string
		want []string
	}{
		"nothing":      {nil, []string{"--callback-url: is missing", "bucket: is empty"}},
		"origin":       {[]string{"--bucket", "demo", "--callback-url", "http://127.0.0.1/", "--origin", "https://app.example.com/x"}, []string{"--origin: "}},
		"no scheme":    {[]string{"--bucket", "demo", "--callback-url", "http://127.0.0.1/", "--origin", "app.example.com"}, []string{"--origin: "}},
		"format":       {[]string{"--bucket", "demo", "--callback-url", "http://127.0.0.1/", "--format", "yaml"}, []string{"--format: "}},
		"key":          {[]string{"--bucket", "demo", "--callback-url", "http://127.0.0.1/", "--key-prefix", "/x/"}, []string{"key: starts with"}},
		"callback URL": {[]string{"--bucket", "demo", "--callback-url", "ftp://127.0.0.1/"}, []string{"callbackUrl"}},
	} {
		stdout, stderr, status := execute(t, env, append([]string{"check"}, tt.args...)...)
		if status != 2 || stdout != "" {
			t.Errorf("%s: status %d: %s%s", name, status, stdout, stderr)
		}
		checkLines(t, stderr, tt.want)
	}
	if seen := gate.Seen(); len(seen) != 0 {
		t.Errorf("OSS got the requests %v", seen)
	}
}
