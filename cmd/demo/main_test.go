package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"regexp"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"upcall/internal/cli"
	"upcall/internal/dbtest"
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

// TestStay: everything stays up until it is told to stop, and the data is still there the
// next time. Each upload is told to the application, whose line is printed.
func TestStay(t *testing.T) {
	t.Parallel()
	dir := dbtest.Dir(t)
	for range 2 {
		ctx, stop := context.WithCancel(t.Context())
		out, printed := io.Pipe()
		ended := make(chan error, 1)
		go func() {
			err := run(ctx, []string{"--stay", "--data-dir", dir, "--listen", anyPort, "--admin-listen", anyPort, "--oss-listen", anyPort,
				"--api-listen", anyPort, "--app-listen", anyPort}, cli.Environ(), cli.Stdio{Out: printed, Err: io.Discard})
			printed.Close()
			ended <- err
		}()
		buf := make([]byte, 4096)
		n, err := out.Read(buf)
		if err != nil || !strings.HasPrefix(string(buf[:n]), "Everything is up") {
			t.Fatalf("%v, %s, %v", err, buf[:n], <-ended)
		}
		app := regexp.MustCompile(`an application at (\S+),`).FindStringSubmatch(string(buf[:n]))
		go deliver(t, app[1])
		if n, err = out.Read(buf); err != nil || !strings.HasSuffix(string(buf[:n]), " verified recorded: a in demo, event 1\n") {
			t.Errorf("%v, %s", err, buf[:n])
		}
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

// deliver tells the application of an upload, as the receiver does.
func deliver(t *testing.T, app string) {
	const body = `{"id":"1","type":"upcall.upload.recorded.v1","data":{"bucket":"demo","object_key":"a"}}`
	webhook, err := standardwebhooks.NewWebhook(hookSecret)
	if err != nil {
		t.Error(err)
		return
	}
	at := time.Now()
	signature, err := webhook.Sign("1", at, []byte(body))
	if err != nil {
		t.Error(err)
		return
	}
	headers := map[string]string{"Webhook-Id": "1", "Webhook-Timestamp": fmt.Sprint(at.Unix()), "Webhook-Signature": signature}
	if status, answer, err := send(t.Context(), "POST", app, headers, []byte(body)); status != 204 {
		t.Errorf("%d %s, %v", status, answer, err)
	}
}
