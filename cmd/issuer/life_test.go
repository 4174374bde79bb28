package main

import (
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	sdk "github.com/aliyun/alibabacloud-oss-go-sdk-v2/oss"
	"github.com/aliyun/alibabacloud-oss-go-sdk-v2/oss/credentials"

	"upcall/internal/manifest"
	"upcall/internal/ossemu"
)

// stored reads an object back, with the credentials.
func (w world) stored(t *testing.T, key string) string {
	t.Helper()
	client := sdk.NewClient(sdk.NewConfig().WithRegion("cn-hangzhou").WithEndpoint(w.env["OSS_ENDPOINT"]).
		WithCredentialsProvider(credentials.NewStaticCredentialsProvider("ak", "hunter-sk")))
	result, err := client.GetObject(t.Context(), &sdk.GetObjectRequest{Bucket: sdk.Ptr("demo"), Key: sdk.Ptr(key)})
	if err != nil {
		t.Fatal(err)
	}
	defer result.Body.Close()
	text, err := io.ReadAll(result.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestURLLife uses one URL many times, with another content each time, until it expires
// by OSS's clock.
func TestURLLife(t *testing.T) {
	t.Parallel()
	var ahead atomic.Int64 // of the emulator's clock
	w := newWorld(t, func(c *ossemu.Config) {
		c.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	})
	u := executeJSON(t, w.env, "put", "--bucket", "demo", "--key", "cat.txt", "--expires", "1h")
	put := func(content string) (int, string) {
		status, body, _ := ask(t, manifest.PresignedRequest{Method: u.Method, URL: u.URL, Headers: u.Headers}, []byte(content))
		return status, body
	}
	for _, content := range []string{"first", "second", "", "fourth, and longer"} {
		if status, body := put(content); status != http.StatusOK || w.stored(t, "cat.txt") != content {
			t.Errorf("%q: status %d: %s; stored is %q", content, status, body, w.stored(t, "cat.txt"))
		}
	}
	ahead.Store(int64(59 * time.Minute))
	if status, body := put("in the last minute"); status != http.StatusOK {
		t.Errorf("status %d: %s", status, body)
	}
	ahead.Store(int64(time.Hour + time.Second))
	if status, body := put("too late"); status != http.StatusForbidden || !strings.Contains(body, "Request has expired.") {
		t.Errorf("status %d: %s", status, body)
	}
	ahead.Store(0)
	if got := w.stored(t, "cat.txt"); got != "in the last minute" {
		t.Errorf("stored is %q", got)
	}
}

// TestURLForbidsOverwrite: the first upload stays.
func TestURLForbidsOverwrite(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	u := executeJSON(t, w.env, "put", "--bucket", "demo", "--key", "once.txt", "--forbid-overwrite", "--callback-url", w.receiver+"/oss/callback")
	for i, want := range []int{http.StatusOK, http.StatusConflict, http.StatusConflict} {
		status, body, _ := ask(t, manifest.PresignedRequest{Method: u.Method, URL: u.URL, Headers: u.Headers}, []byte{byte('a' + i)})
		if status != want {
			t.Errorf("upload %d: status %d, want %d: %s", i, status, want, body)
		}
	}
	if got := w.stored(t, "once.txt"); got != "a" || len(w.bodies) != 1 {
		t.Errorf("stored is %q, %d callbacks came", got, len(w.bodies))
	}
	// Without the header that forbids it, the URL is worth nothing.
	delete(u.Headers, "x-oss-forbid-overwrite")
	if status, _, _ := ask(t, manifest.PresignedRequest{Method: u.Method, URL: u.URL, Headers: u.Headers}, nil); status != http.StatusForbidden {
		t.Errorf("status %d", status)
	}
}

// TestExactLength: OSS takes the signed size and no other.
func TestExactLength(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	u := executeJSON(t, w.env, "put", "--bucket", "demo", "--key", "exact.txt", "--content-length", "5")
	for content, want := range map[string]int{"": 403, "1234": 403, "12345": 200, "123456": 403, strings.Repeat("1", 100000): 403} {
		if status, body, _ := askAs(t, manifest.PresignedRequest{Method: u.Method, URL: u.URL, Headers: u.Headers}, []byte(content)); status != want {
			t.Errorf("%d bytes: status %d, want %d: %s", len(content), status, want, body)
		}
	}
	if got := w.stored(t, "exact.txt"); got != "12345" {
		t.Errorf("stored is %q", got)
	}
	empty := executeJSON(t, w.env, "put", "--bucket", "demo", "--key", "empty.txt", "--content-length", "0")
	for content, want := range map[string]int{"": 200, "1": 403} {
		if status, body, _ := askAs(t, manifest.PresignedRequest{Method: empty.Method, URL: empty.URL, Headers: empty.Headers}, []byte(content)); status != want {
			t.Errorf("%d bytes of 0: status %d, want %d: %s", len(content), status, want, body)
		}
	}
}
