package hooks

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"upcall/internal/testing/toolchain"
	"upcall/internal/webhook"
)

// readerJS verifies a request by one library and parses it by another. Neither knows of us.
const readerJS = `
const fs = require("fs");
const { Webhook } = require("standardwebhooks");
const { HTTP } = require("cloudevents");
const { secret, headers, body } = JSON.parse(fs.readFileSync(0, "utf8"));
new Webhook(secret).verify(body, headers);
const event = HTTP.toEvent({ headers, body });
event.validate();
let forged = false;
try { new Webhook(secret).verify(body + " ", headers); forged = true; } catch {}
console.log(JSON.stringify({ id: event.id, source: event.source, type: event.type, subject: event.subject ?? "", time: event.time,
  key: event.data.object_key, forged }));
`

// TestNode has deliveries verified and parsed by libraries from npm.
func TestNode(t *testing.T) {
	t.Parallel()
	toolchain.Need(t, "node")
	toolchain.Need(t, "npm")
	dir := t.TempDir()
	install := exec.CommandContext(t.Context(), "npm", "install", "--prefix", dir, "--no-audit", "--no-fund", "--ignore-scripts",
		"--prefer-offline",
		"standardwebhooks@1.0.0", "cloudevents@10.0.0")
	if out, err := install.CombinedOutput(); err != nil {
		toolchain.NotRun(t, fmt.Sprintf("npm install: %v: %s", err, out))
	}
	if err := os.WriteFile(filepath.Join(dir, "reader.js"), []byte(readerJS), 0o600); err != nil {
		t.Fatal(err)
	}
	secret, previous := webhook.NewSecret(), webhook.NewSecret()
	type input struct {
		Secret  string            `json:"secret"`
		Headers map[string]string `json:"headers"`
		Body    string            `json:"body"`
	}
	requests := make(chan input, 1)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		in := input{Body: string(body), Headers: make(map[string]string)}
		for name := range r.Header {
			in.Headers[http.CanonicalHeaderKey(name)] = r.Header.Get(name)
		}
		requests <- in
	}))
	defer server.Close()
	for key, subject := range map[string]string{
		"a/é 日本.jpg": "a/é 日本.jpg", "": "", "line\nbreak\u0085": "line%0Abreak%C2%85", `"quoted"\`: `"quoted"\`, "\u2028": "\u2028",
	} {
		e := anEvent()
		e.Callback.Object = key
		message := webhook.NewMessage(e)
		body, err := message.Body()
		if err != nil {
			t.Fatal(err)
		}
		r := request{url: server.URL, secrets: []webhook.Secret{webhook.NewSecret(), secret}, id: message.ID.String(), body: body}
		if key == "" {
			r.secrets = []webhook.Secret{secret, previous}
		}
		send(t, newSender(loopback, time.Now, nil), r)
		in := <-requests
		in.Secret = secret.Reveal()
		text, err := json.Marshal(in)
		if err != nil {
			t.Fatal(err)
		}
		node := exec.CommandContext(t.Context(), "node", filepath.Join(dir, "reader.js"))
		stdin, err := node.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		go func() { _, _ = stdin.Write(text); stdin.Close() }()
		out, err := node.CombinedOutput()
		if err != nil {
			t.Fatalf("%q: %v: %s", key, err, out)
		}
		var got struct {
			ID, Source, Type, Subject, Time string
			Key                             *string
			Forged                          bool
		}
		if err := json.Unmarshal(out, &got); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if got.Forged || got.ID != e.ID.String() || got.Source != "/oss/photos" || got.Type != "upcall.upload.recorded.v1" ||
			got.Subject != subject || (got.Key == nil) != (key == "") || key != "" && *got.Key != key {
			t.Errorf("%q: %+v", key, got)
		}
	}
}
