// Package ossfake plays OSS in a test: its storage, with the emulator over real HTTP, and its
// signed callbacks.
package ossfake

import (
	"context"
	"encoding/base64"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"upcall/internal/loadgen"
	"upcall/internal/ossemu"
)

// The default configuration of an emulator. The secret holds the word that tests look for in
// everything that a program prints.
const (
	AccessKeyID     = "ak"
	AccessKeySecret = "hunter-sk"
	Region          = "cn-hangzhou"
	Bucket          = "demo"
)

// NewEmulator returns an emulator that is closed when the test ends.
func NewEmulator(t testing.TB, change ...func(*ossemu.Config)) *ossemu.Server {
	t.Helper()
	cfg := ossemu.Config{AccessKeyID: AccessKeyID, AccessKeySecret: AccessKeySecret, Region: Region, Buckets: []string{Bucket},
		Logger: slog.New(slog.DiscardHandler)}
	for _, f := range change {
		f(&cfg)
	}
	emulator, err := ossemu.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(emulator.Close)
	return emulator
}

// Start serves an emulator and returns its URL, which is the endpoint of its buckets.
func Start(t testing.TB, change ...func(*ossemu.Config)) string {
	t.Helper()
	return Serve(t, NewEmulator(t, change...))
}

// Serve serves a handler until the test ends, and returns its URL.
func Serve(t testing.TB, handler http.Handler) string {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return server.URL
}

// KeyURL serves the public key for the callbacks that [Callback] signs, and returns its URL.
func KeyURL(t testing.TB) string {
	t.Helper()
	server := loadgen.NewKeyServer()
	t.Cleanup(server.Close)
	return server.KeyURL
}

// Callback returns a signed callback for base + target, whose key is at keyURL.
func Callback(ctx context.Context, base, target, contentType, body, keyURL string) (*http.Request, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, base+target, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header = http.Header{
		"Authorization":           {ossemu.SignCallback(target, []byte(body))},
		"Content-Type":            {contentType},
		"X-Oss-Bucket":            {Bucket},
		"X-Oss-Pub-Key-Url":       {base64.StdEncoding.EncodeToString([]byte(keyURL))},
		"X-Oss-Request-Id":        {"5C3D9175B6FC201293AD0001"},
		"X-Oss-Signature-Version": {"1.0"},
	}
	return r, nil
}
