package oss

import (
	"context"

	sdk "github.com/aliyun/alibabacloud-oss-go-sdk-v2/oss"
)

// Delete deletes an object, if there is one. It needs the right oss:DeleteObject.
func (c *Client) Delete(ctx context.Context, bucket, key string) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if _, err := c.sdk.DeleteObject(ctx, &sdk.DeleteObjectRequest{Bucket: &bucket, Key: &key}); err != nil {
		return failed("delete object", err)
	}
	return nil
}
