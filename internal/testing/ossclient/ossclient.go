// Package ossclient is the official OSS client, with which tests compare this module.
package ossclient

import (
	"io"
	"testing"

	"github.com/aliyun/alibabacloud-oss-go-sdk-v2/oss"
	"github.com/aliyun/alibabacloud-oss-go-sdk-v2/oss/credentials"
)

// New returns a client for an emulator at the endpoint. It does not retry.
func New(endpoint, region, accessKeyID, accessKeySecret string) *oss.Client {
	return oss.NewClient(oss.NewConfig().WithRegion(region).WithEndpoint(endpoint).WithUsePathStyle(true).WithRetryMaxAttempts(1).
		WithCredentialsProvider(credentials.NewStaticCredentialsProvider(accessKeyID, accessKeySecret)))
}

// Get returns an object and its content.
func Get(t testing.TB, client *oss.Client, bucket, key string) (*oss.GetObjectResult, []byte) {
	t.Helper()
	result, err := client.GetObject(t.Context(), &oss.GetObjectRequest{Bucket: oss.Ptr(bucket), Key: oss.Ptr(key)})
	if err != nil {
		t.Fatal(err)
	}
	defer result.Body.Close()
	content, err := io.ReadAll(result.Body)
	if err != nil {
		t.Fatal(err)
	}
	return result, content
}

// OpenUploads returns the multipart uploads that were neither completed nor aborted.
func OpenUploads(t testing.TB, client *oss.Client, bucket string) []oss.Upload {
	t.Helper()
	result, err := client.ListMultipartUploads(t.Context(), &oss.ListMultipartUploadsRequest{Bucket: oss.Ptr(bucket)})
	if err != nil {
		t.Fatal(err)
	}
	return result.Uploads
}
