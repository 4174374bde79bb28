package main

import (
	"bytes"
	"fmt"
	"hash/crc64"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	sdk "github.com/aliyun/alibabacloud-oss-go-sdk-v2/oss"
	"github.com/aliyun/alibabacloud-oss-go-sdk-v2/oss/credentials"

	"upcall/internal/manifest"
)

// createArgs is a good multipart command line against a world's emulator.
func (w world) createArgs(args ...string) []string {
	return slices.Concat([]string{"multipart", "create", "--bucket", "demo", "--key", "video.mp4", "--callback-url", w.receiver + "/oss/callback"}, args)
}

// create runs a command that is to succeed and returns the manifest and its text.
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
	result, err := w.client().ListMultipartUploads(t.Context(), &sdk.ListMultipartUploadsRequest{Bucket: sdk.Ptr("demo")})
	if err != nil {
		t.Fatal(err)
	}
	return len(result.Uploads)
}

// abortAll aborts those uploads.
func (w world) abortAll(t *testing.T) {
	t.Helper()
	result, err := w.client().ListMultipartUploads(t.Context(), &sdk.ListMultipartUploadsRequest{Bucket: sdk.Ptr("demo")})
	if err != nil || len(result.Uploads) == 0 {
		t.Fatalf("%d uploads, %v", len(result.Uploads), err)
	}
	for _, u := range result.Uploads {
		if _, err := w.client().AbortMultipartUpload(t.Context(), &sdk.AbortMultipartUploadRequest{Bucket: sdk.Ptr("demo"), Key: u.Key, UploadId: u.UploadId}); err != nil {
			t.Fatal(err)
		}
	}
}

// client is an administrator's.
func (w world) client() *sdk.Client {
	return sdk.NewClient(sdk.NewConfig().WithRegion("cn-hangzhou").WithEndpoint(w.env["OSS_ENDPOINT"]).
		WithCredentialsProvider(credentials.NewStaticCredentialsProvider("ak", "hunter-sk")))
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

// askAs sends the body's own length in place of the signed one, as net/http does.
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
	path := filepath.Join(t.TempDir(), "manifest.json")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
