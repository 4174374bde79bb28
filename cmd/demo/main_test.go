package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"upcall/internal/cli"
	"upcall/internal/dbtest"
	"upcall/internal/manifest"
	"upcall/internal/testing/servetest"
	"upcall/internal/testing/wait"
)

func TestDemo(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	if err := run(t.Context(), nil, cli.Environ(), cli.Stdio{Out: &out, Err: io.Discard}); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	for _, want := range []string{
		`answer   200 {"status":"ok","event_id":"`,
		`photos/sunset.png  460   image/png   320    200`,
		`{"uid": "42", "album": "summer 2026"}`,
		"   issued  uploaded\n   2       2\n",
		`403 {"error":{"code":"bad_signature"`,
		`403 {"error":{"code":"untrusted_key"`,
		`403 {"error":{"code":"bad_token"`,
		"   webhook-signature: v1,",
		` verified recorded: photos/sunset.png in demo, 460 bytes, image/png, album="summer 2026", uid=42, event `,
		" verified recorded: notes/hello.txt in demo, 12 bytes, text/plain, uid=43, event ",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the output lacks %s:\n%s", want, &out)
		}
	}
}

// TestStay: everything stays up until it is told to stop, and data and keys are still there the
// next time. Each upload has a line for its callback and one for its hook, and the console shows both.
func TestStay(t *testing.T) {
	t.Parallel()
	dir := dbtest.Dir(t)
	var keys []string
	for range 2 {
		ctx, stop := context.WithCancel(t.Context())
		out, printed := io.Pipe()
		ended := make(chan error, 1)
		go func() {
			err := run(ctx, []string{"--stay", "--data-dir", dir, "--receiver-port", "0", "--receiver-admin-port", "0", "--ossemu-port", "0",
				"--issuer-port", "0", "--app-port", "0"}, cli.Environ(), cli.Stdio{Out: printed, Err: io.Discard})
			printed.Close()
			ended <- err
		}()
		lines := bufio.NewReader(out)
		said := ""
		for !strings.HasSuffix(said, "\nCallbacks and hooks:\n\n") {
			line, err := lines.ReadString('\n')
			if said += line; err != nil {
				t.Fatalf("%v, %s, %v", err, said, <-ended)
			}
		}
		found := regexp.MustCompile(`upload page +(\S+)/ +API key (\S+)\n +console +(\S+/console/) +key +(\S+)\n`).FindStringSubmatch(said)
		if found == nil {
			t.Fatalf("no URLs and keys in %s", said)
		}
		upload := uploadOnPage(t, found[1], found[2])
		for _, want := range []string{` callback 200 recorded: "uploads/`, " verified recorded: uploads/"} {
			if line, err := lines.ReadString('\n'); err != nil || !strings.Contains(line, want) {
				t.Errorf("%v, %s; want %s", err, line, want)
			}
		}
		browser := logIn(t, found[3], found[4])
		wait.Until(t, "the console shows the delivery", func() bool {
			page := look(t, browser, found[3]+"uploads/"+upload)
			return strings.Contains(page, "hello.txt") && strings.Contains(page, `<span class="state delivered">`)
		})
		keys = append(keys, found[2], found[4])
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	if keys[0] != keys[2] || keys[1] != keys[3] {
		t.Error("the keys are not those of the first time")
	}
}

// TestListen: another program's port is not taken, unless it was asked for by its number.
func TestListen(t *testing.T) {
	t.Parallel()
	other := servetest.Listen(t)
	defer other.Close()
	taken := other.Addr().(*net.TCPAddr).Port
	listener, err := listen("tests", nil, taken)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	if port := listener.Addr().(*net.TCPAddr).Port; port == taken || port == 0 {
		t.Errorf("listens on %d, and %d is taken", port, taken)
	}
	if listener, err := listen("tests", &taken, 0); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("got %v, %v", listener, err)
	}
}

// TestCallbackLine: a line says what was refused, and why, and nothing in it moves the terminal's cursor.
func TestCallbackLine(t *testing.T) {
	t.Parallel()
	lines := newTold()
	logger := slog.New(callbackLines{slog.DiscardHandler, lines}).With("program", "receiver")
	logger.Info("serving")
	logger.Debug("callback", "status", 404)
	logger.Warn("callback", "status", 403, "outcome", "bad_token", "took_ms", 1.25, "reason", "token_missing", "bucket", "demo",
		"object_key", "a\x1b[2J")
	const want = ` callback 403 bad_token (token_missing): "a\x1b[2J" in demo, 1.3ms` + "\n"
	if line := <-lines.lines; !strings.HasSuffix(line, want) || len(lines.lines) != 0 {
		t.Errorf("got %q, and %d more", line, len(lines.lines))
	}
	for range 200 { // more than fit: the receiver does not wait
		logger.Info("callback", "status", 200)
	}
}

// uploadOnPage issues an upload and uploads as the page does, and returns its id.
func uploadOnPage(t *testing.T, issuer, key string) string {
	t.Helper()
	headers := map[string]string{"Authorization": "Bearer " + key, "Content-Type": "application/json"}
	wanted := `{"filename":"hello.txt","content_type":"text/plain","size":5}`
	status, answer, err := send(t.Context(), "POST", issuer+"/v1/uploads", headers, []byte(wanted))
	var issued manifest.Upload
	if status != http.StatusCreated || json.Unmarshal([]byte(answer), &issued) != nil {
		t.Fatalf("%d %s, %v", status, answer, err)
	}
	if status, answer, err := send(t.Context(), issued.Method, issued.URL, issued.Headers, []byte("hello")); status != http.StatusOK {
		t.Fatalf("%d %s, %v", status, answer, err)
	}
	status, page, err := send(t.Context(), "GET", issuer+"/", nil, nil)
	if status != http.StatusOK || !strings.Contains(page, "<!doctype html>") {
		t.Errorf("the upload page: %d, %v", status, err)
	}
	return issued.ID.String()
}

func logIn(t *testing.T, console, key string) *http.Client {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	browser := &http.Client{Jar: jar}
	response, err := browser.PostForm(console+"login", url.Values{"key": {key}})
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK || response.Request.URL.Path != "/console/" {
		t.Fatalf("logging in leads to %d at %s", response.StatusCode, response.Request.URL)
	}
	return browser
}

func look(t *testing.T, browser *http.Client, url string) string {
	t.Helper()
	response, err := browser.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	page, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(page)
}
