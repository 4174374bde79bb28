// Package ossclient makes the official OSS client for tests, to hold our code against.
package ossclient

import (
	"github.com/aliyun/alibabacloud-oss-go-sdk-v2/oss"
	"github.com/aliyun/alibabacloud-oss-go-sdk-v2/oss/credentials"
)

// New returns a client for an emulator at the endpoint. It tries once.
func New(endpoint, region, accessKeyID, accessKeySecret string) *oss.Client {
	return oss.NewClient(oss.NewConfig().WithRegion(region).WithEndpoint(endpoint).WithUsePathStyle(true).WithRetryMaxAttempts(1).
		WithCredentialsProvider(credentials.NewStaticCredentialsProvider(accessKeyID, accessKeySecret)))
}
