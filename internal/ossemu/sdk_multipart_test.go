package ossemu

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	sdk "github.com/aliyun/alibabacloud-oss-go-sdk-v2/oss"

	"upcall/internal/callbackspec"
)

func TestSDKMultipart(t *testing.T) {
	t.Parallel()
	for _, dir := range []string{"", t.TempDir()} {
		_, base := start(t, func(c *Config) { c.DataDir = dir })
		client, ctx := sdkClient(base, testKeyID, testSecret), t.Context()
		bucket, key := sdk.Ptr(testBucket), sdk.Ptr("big file.bin")
		data := make([]byte, 250<<10)
		for i := range data {
			data[i] = byte(rand.Uint32())
		}
		init, err := client.InitiateMultipartUpload(ctx, &sdk.InitiateMultipartUploadRequest{Bucket: bucket, Key: key,
			ContentType: sdk.Ptr("x/y")})
		if err != nil {
			t.Fatal(err)
		}
		var parts []sdk.UploadPart
		for i, chunk := range [][]byte{data[:120<<10], data[120<<10 : 240<<10], data[240<<10:]} {
			p, err := client.UploadPart(ctx, &sdk.UploadPartRequest{Bucket: bucket, Key: key, UploadId: init.UploadId,
				PartNumber: int32(i + 1), Body: bytes.NewReader(chunk)})
			if err != nil {
				t.Fatal(err)
			}
			parts = append(parts, sdk.UploadPart{PartNumber: int32(i + 1), ETag: p.ETag})
		}
		list, err := client.ListParts(ctx, &sdk.ListPartsRequest{Bucket: bucket, Key: key, UploadId: init.UploadId, MaxParts: 2})
		if err != nil || len(list.Parts) != 2 || !list.IsTruncated || list.NextPartNumberMarker != 2 {
			t.Errorf("list parts: %+v, %v", list, err)
		}
		uploads, err := client.ListMultipartUploads(ctx, &sdk.ListMultipartUploadsRequest{Bucket: bucket})
		if err != nil || len(uploads.Uploads) != 1 || *uploads.Uploads[0].UploadId != *init.UploadId || *uploads.Uploads[0].Key != *key {
			t.Errorf("list uploads: %+v, %v", uploads, err)
		}
		complete := func(parts ...sdk.UploadPart) (*sdk.CompleteMultipartUploadResult, error) {
			return client.CompleteMultipartUpload(ctx, &sdk.CompleteMultipartUploadRequest{Bucket: bucket, Key: key, UploadId: init.UploadId,
				CompleteMultipartUpload: &sdk.CompleteMultipartUpload{Parts: parts}})
		}
		for code, wrong := range map[string][]sdk.UploadPart{
			"InvalidPart":    {parts[0], {PartNumber: 9, ETag: parts[0].ETag}},
			"EntityTooSmall": {parts[0], parts[2], {PartNumber: 4, ETag: parts[2].ETag}},
		} {
			if code == "EntityTooSmall" {
				if _, err := client.UploadPart(ctx, &sdk.UploadPartRequest{Bucket: bucket, Key: key, UploadId: init.UploadId,
					PartNumber: 4, Body: bytes.NewReader(data[240<<10:])}); err != nil {
					t.Fatal(err)
				}
			}
			_, err := complete(wrong...)
			if e := serviceError(t, err); e.Code != code {
				t.Errorf("%s, want %s", e.Code, code)
			}
		}
		done, err := complete(parts...)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(*done.ETag, `-3"`) {
			t.Errorf("ETag %s", *done.ETag)
		}
		get, err := client.GetObject(ctx, &sdk.GetObjectRequest{Bucket: bucket, Key: key})
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := io.ReadAll(get.Body); !bytes.Equal(got, data) || *get.ContentType != "x/y" || *get.ObjectType != "Multipart" {
			t.Errorf("joined object differs: %d bytes, %+v", len(got), get)
		}
		_, err = complete(parts...)
		if e := serviceError(t, err); e.Code != "NoSuchUpload" {
			t.Errorf("second complete: %s", e.Code)
		}
		if dir != "" {
			if blobs, _ := filepath.Glob(filepath.Join(dir, "blobs", "*")); len(blobs) != 1 {
				t.Errorf("%d blobs are left, want 1", len(blobs))
			}
		}
	}
}

func TestSDKAbort(t *testing.T) {
	t.Parallel()
	_, base := start(t)
	client, ctx := sdkClient(base, testKeyID, testSecret), t.Context()
	bucket, key := sdk.Ptr(testBucket), sdk.Ptr("k")
	init, err := client.InitiateMultipartUpload(ctx, &sdk.InitiateMultipartUploadRequest{Bucket: bucket, Key: key})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.AbortMultipartUpload(ctx, &sdk.AbortMultipartUploadRequest{Bucket: bucket, Key: key,
		UploadId: init.UploadId}); err != nil {
		t.Fatal(err)
	}
	_, err = client.UploadPart(ctx, &sdk.UploadPartRequest{Bucket: bucket, Key: key, UploadId: init.UploadId,
		PartNumber: 1, Body: strings.NewReader("x")})
	if e := serviceError(t, err); e.Code != "NoSuchUpload" {
		t.Errorf("part after abort: %s", e.Code)
	}
}

func TestSDKUploader(t *testing.T) {
	t.Parallel()
	rec := receive(t, nil)
	_, base := start(t, func(c *Config) { c.DataDir = t.TempDir() })
	client := sdkClient(base, testKeyID, testSecret)
	data := bytes.Repeat([]byte("0123456789"), 50<<10)
	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	callback := encode(t, callbackspec.Parameter{URLs: []string{rec.url}, Body: "size=${size}&op=${operation}&md5=${contentMd5}"})
	uploader := client.NewUploader(func(o *sdk.UploaderOptions) { o.PartSize = 128 << 10; o.ParallelNum = 3 })
	_, err := uploader.UploadFile(t.Context(), &sdk.PutObjectRequest{Bucket: sdk.Ptr(testBucket), Key: sdk.Ptr("up"),
		Callback: sdk.Ptr(callback)}, file)
	if err != nil {
		t.Fatal(err)
	}
	got := rec.requests()
	if len(got) != 1 || got[0].body != fmt.Sprintf("size=%d&op=CompleteMultipartUpload&md5=", len(data)) {
		t.Errorf("callbacks: %+v", got)
	}
}
