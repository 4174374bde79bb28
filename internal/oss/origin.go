package oss

import (
	"context"
	"fmt"
	"net/url"

	"upcall/internal/ossrule"
)

// Origin returns the origin that uploads to a bucket go to, as in
// https://bucket.oss-cn-hangzhou.aliyuncs.com, for the policy of a page that uploads.
func (p *Presigner) Origin(ctx context.Context, bucket string) (string, error) {
	signed, err := p.Put(ctx, Put{Object: Object{Bucket: bucket, Key: "origin"}, Expires: ossrule.MinExpiry})
	if err != nil {
		return "", err
	}
	u, err := url.Parse(signed.URL)
	if err != nil {
		return "", fmt.Errorf("read presigned URL: %w", err)
	}
	return u.Scheme + "://" + u.Host, nil
}
