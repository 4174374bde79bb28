package ossemu

import (
	"crypto/md5"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	sdk "github.com/aliyun/alibabacloud-oss-go-sdk-v2/oss"
	"github.com/aliyun/alibabacloud-oss-go-sdk-v2/oss/credentials"

	"upcall/internal/callbackspec"
)

// sdkClient is the official client, pointed at the emulator.
func sdkClient(base, id, secret string) *sdk.Client {
	return sdk.NewClient(sdk.LoadDefaultConfig().
		WithCredentialsProvider(credentials.NewStaticCredentialsProvider(id, secret)).
		WithRegion(testRegion).WithEndpoint(base).WithUsePathStyle(true).WithRetryMaxAttempts(1))
}

// serviceError is the SDK's view of a refusal.
func serviceError(t *testing.T, err error) *sdk.ServiceError {
	t.Helper()
	var e *sdk.ServiceError
	if !errors.As(err, &e) {
		t.Fatalf("not an OSS error: %v", err)
	}
	return e
}

func TestSDKObjects(t *testing.T) {
	t.Parallel()
	for _, dir := range []string{"", t.TempDir()} {
		_, base := start(t, func(c *Config) { c.DataDir = dir })
		client, ctx := sdkClient(base, testKeyID, testSecret), t.Context()
		key := "a//ü ~+.txt"
		sum := md5.Sum([]byte("hello"))
		put, err := client.PutObject(ctx, &sdk.PutObjectRequest{Bucket: sdk.Ptr(testBucket), Key: sdk.Ptr(key), Body: strings.NewReader("hello"),
			ContentType: sdk.Ptr("text/plain"), ContentMD5: sdk.Ptr(base64.StdEncoding.EncodeToString(sum[:])), CacheControl: sdk.Ptr("no-store"),
			Metadata: map[string]string{"who": "me"}, Tagging: sdk.Ptr("a=1&b=2"), StorageClass: sdk.StorageClassIA})
		if err != nil {
			t.Fatal(err)
		}
		if got := *put.ETag; got != `"5D41402ABC4B2A76B9719D911017C592"` {
			t.Errorf("ETag %s", got)
		}
		get, err := client.GetObject(ctx, &sdk.GetObjectRequest{Bucket: sdk.Ptr(testBucket), Key: sdk.Ptr(key)})
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(get.Body)
		if string(body) != "hello" || *get.ContentType != "text/plain" || get.Metadata["who"] != "me" ||
			get.Headers.Get("Cache-Control") != "no-store" || get.TaggingCount != 2 {
			t.Errorf("got %q %+v", body, get)
		}
		get, err = client.GetObject(ctx, &sdk.GetObjectRequest{Bucket: sdk.Ptr(testBucket), Key: sdk.Ptr(key), Range: sdk.Ptr("bytes=1-3")})
		if err != nil {
			t.Fatal(err)
		}
		if body, _ := io.ReadAll(get.Body); string(body) != "ell" || *get.ContentRange != "bytes 1-3/5" {
			t.Errorf("range: %q %v", body, *get.ContentRange)
		}
		head, err := client.HeadObject(ctx, &sdk.HeadObjectRequest{Bucket: sdk.Ptr(testBucket), Key: sdk.Ptr(key)})
		if err != nil || head.ContentLength != 5 || *head.StorageClass != "IA" || *head.HashCRC64 != *put.HashCRC64 {
			t.Errorf("head: %+v, %v", head, err)
		}
		if _, err := client.DeleteObject(ctx, &sdk.DeleteObjectRequest{Bucket: sdk.Ptr(testBucket), Key: sdk.Ptr(key)}); err != nil {
			t.Error(err)
		}
		_, err = client.HeadObject(ctx, &sdk.HeadObjectRequest{Bucket: sdk.Ptr(testBucket), Key: sdk.Ptr(key)})
		if e := serviceError(t, err); e.Code != "NoSuchKey" || e.StatusCode != 404 || e.EC != "0026-00000001" {
			t.Errorf("head of nothing: %+v", e)
		}
	}
}

func TestSDKRefusals(t *testing.T) {
	t.Parallel()
	_, base := start(t, func(c *Config) { c.MaxObjectSize = 100 })
	client, ctx := sdkClient(base, testKeyID, testSecret), t.Context()
	put := func(c *sdk.Client, change func(*sdk.PutObjectRequest)) error {
		r := &sdk.PutObjectRequest{Bucket: sdk.Ptr(testBucket), Key: sdk.Ptr("k"), Body: strings.NewReader("x")}
		change(r)
		_, err := c.PutObject(ctx, r)
		return err
	}
	if err := put(client, func(*sdk.PutObjectRequest) {}); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		err  error
		code string
	}{
		"no bucket": {put(client, func(r *sdk.PutObjectRequest) { r.Bucket = sdk.Ptr("nowhere") }), "NoSuchBucket"},
		"overwrite": {put(client, func(r *sdk.PutObjectRequest) { r.ForbidOverwrite = sdk.Ptr("true") }), "FileAlreadyExists"},
		"wrong md5": {put(client, func(r *sdk.PutObjectRequest) { r.ContentMD5 = sdk.Ptr("1B2M2Y8AsgTpgAmY7PhCfg==") }), "InvalidDigest"},
		"too large": {put(client, func(r *sdk.PutObjectRequest) {
			r.Body = strings.NewReader(strings.Repeat("x", 101))
		}), "EntityTooLarge"},
		"wrong secret":     {put(sdkClient(base, testKeyID, "x"), func(*sdk.PutObjectRequest) {}), "SignatureDoesNotMatch"},
		"wrong key id":     {put(sdkClient(base, "x", testSecret), func(*sdk.PutObjectRequest) {}), "InvalidAccessKeyId"},
		"leading slash":    {put(client, func(r *sdk.PutObjectRequest) { r.Key = sdk.Ptr("/k") }), "InvalidObjectName"},
		"long key":         {put(client, func(r *sdk.PutObjectRequest) { r.Key = sdk.Ptr(strings.Repeat("k", 1024)) }), "InvalidObjectName"},
		"not UTF-8":        {put(client, func(r *sdk.PutObjectRequest) { r.Key = sdk.Ptr("a\xff") }), "InvalidObjectName"},
		"storage class":    {put(client, func(r *sdk.PutObjectRequest) { r.StorageClass = "Cheap" }), "InvalidArgument"},
		"acl":              {put(client, func(r *sdk.PutObjectRequest) { r.Acl = "everybody" }), "InvalidArgument"},
		"callback no json": {put(client, func(r *sdk.PutObjectRequest) { r.Callback = sdk.Ptr("eA==") }), "InvalidArgument"},
	} {
		if e := serviceError(t, tc.err); e.Code != tc.code {
			t.Errorf("%s: %s, want %s", name, e.Code, tc.code)
		}
	}
	_, err := client.CopyObject(ctx, &sdk.CopyObjectRequest{Bucket: sdk.Ptr(testBucket), Key: sdk.Ptr("copy"), SourceKey: sdk.Ptr("k")})
	if e := serviceError(t, err); e.Code != "NotImplemented" {
		t.Errorf("copy: %s", e.Code)
	}
	_, err = client.PutSymlink(ctx, &sdk.PutSymlinkRequest{Bucket: sdk.Ptr(testBucket), Key: sdk.Ptr("link"), Target: sdk.Ptr("k")})
	if e := serviceError(t, err); e.Code != "NotImplemented" {
		t.Errorf("symlink: %s", e.Code)
	}
}

func TestSDKPresignedPut(t *testing.T) {
	t.Parallel()
	rec := receive(t, nil)
	_, base := start(t)
	client := sdkClient(base, testKeyID, testSecret)
	callback := encode(t, callbackspec.Parameter{URLs: []string{rec.url + "/cb"}, Body: "object=${object}&who=${x:who}"})
	vars, err := callbackspec.Vars{"x:who": "a b"}.Document()
	if err != nil {
		t.Fatal(err)
	}
	signed, err := client.Presign(t.Context(), &sdk.PutObjectRequest{Bucket: sdk.Ptr(testBucket), Key: sdk.Ptr("dir/k"),
		ContentType: sdk.Ptr("text/plain"),
		Callback:    sdk.Ptr(callback), CallbackVar: sdk.Ptr(vars.Base64())}, sdk.PresignExpires(10*time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(t.Context(), signed.Method, signed.URL, strings.NewReader("data"))
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range signed.SignedHeaders {
		r.Header.Set(k, v)
	}
	got := send(t, r)
	if got.status != 200 || got.body != `{"Status":"OK"}` || got.header.Get("ETag") != `"8D777F385D3DFEC8815D20F7496026DC"` {
		t.Errorf("answer: %+v", got)
	}
	if calls := rec.requests(); len(calls) != 1 || calls[0].body != "object=dir%2Fk&who=a%20b" {
		t.Errorf("callbacks: %+v", calls)
	}
	r.Header.Del("x-oss-callback")
	r.Body = http.NoBody
	r.ContentLength = 0
	wantError(t, send(t, r), 403, "SignatureDoesNotMatch")
}

func TestSDKVirtualHost(t *testing.T) {
	t.Parallel()
	_, base := start(t, func(c *Config) { c.PublicURL = "http://oss.example" })
	transport := &http.Transport{Proxy: func(*http.Request) (*url.URL, error) { return url.Parse(base) }}
	client := sdk.NewClient(sdk.LoadDefaultConfig().WithCredentialsProvider(credentials.NewStaticCredentialsProvider(testKeyID, testSecret)).
		WithRegion(testRegion).WithEndpoint("http://oss.example").WithHttpClient(&http.Client{Transport: transport}))
	if _, err := client.PutObject(t.Context(), &sdk.PutObjectRequest{Bucket: sdk.Ptr(testBucket),
		Key: sdk.Ptr("_ossemu/faults"), Body: strings.NewReader("x")}); err != nil {
		t.Fatal(err)
	}
	if got := fetch(t, base+"/_ossemu/faults"); strings.TrimSpace(got.body) != "{}" {
		t.Errorf("faults: %s", got.body)
	}
	if location, err := client.GetBucketLocation(t.Context(),
		&sdk.GetBucketLocationRequest{Bucket: sdk.Ptr(testBucket)}); err != nil ||
		*location.LocationConstraint != "oss-cn-hangzhou" {
		t.Errorf("location: %+v, %v", location, err)
	}
}
