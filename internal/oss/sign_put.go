package oss

import (
	"context"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
	"time"

	sdk "github.com/aliyun/alibabacloud-oss-go-sdk-v2/oss"

	"upcall/internal/fault"
	"upcall/internal/ossrule"
)

// A Put is the upload of one object by one request.
type Put struct {
	Object Object

	// Expires is how long the upload may begin for, 1 s to 7 days in whole seconds.
	Expires time.Duration

	// ContentLength is the exact size in bytes, 0 to 5 GiB. OSS rejects any other because
	// the header is signed. nil leaves the size to the uploader.
	ContentLength *int64

	// ContentMD5 is the Base64 of the content's MD5, or "". OSS rejects other content.
	ContentMD5 string

	Callback CallbackHeaders
}

// Put presigns one PutObject. The error joins all mistakes in u.
func (c *Client) Put(ctx context.Context, u Put) (Signed, error) {
	if err := u.Check(); err != nil {
		return Signed{}, err
	}
	return c.sign(ctx, &sdk.PutObjectRequest{
		Bucket:        sdk.Ptr(u.Object.Bucket),
		Key:           sdk.Ptr(u.Object.Key),
		RequestCommon: u.Callback.with(u.headers()),
	}, u.Expires)
}

// Check returns all mistakes, joined.
func (u Put) Check() error {
	return fault.Join(u.Object.Check(), checkExpires(u.Expires), u.checkContent(), u.Callback.check())
}

// checkExpires runs before signing, because the SDK checks only the upper limit, and only
// after signing.
func checkExpires(d time.Duration) error {
	switch {
	case d%time.Second != 0:
		return fault.New(ErrExpires, "expires", "give whole seconds", "%s is not a whole number of seconds", d)
	case d < ossrule.MinExpiry, d > ossrule.MaxExpiry:
		return fault.New(ErrExpires, "expires", "OSS allows 1s to 7d", "%s is out of range", d)
	}
	return nil
}

func (u Put) checkContent() error {
	var faults fault.List
	if n := u.ContentLength; n != nil && (*n < 0 || *n > ossrule.MaxPut) {
		fix := fmt.Sprintf("one PUT takes 0 to %d bytes; upload more in parts", int64(ossrule.MaxPut))
		faults.AddNew(ErrContentLength, "content-length", fix, "%d is out of range", *n)
	}
	if u.ContentMD5 != "" {
		sum, err := base64.StdEncoding.Strict().DecodeString(u.ContentMD5)
		if err != nil || len(sum) != 16 || strings.ContainsAny(u.ContentMD5, "\r\n") {
			faults.AddNew(ErrContentMD5, "content-md5", "give the 24 characters of openssl md5 -binary FILE | base64",
				"%q is not the Base64 of an MD5", u.ContentMD5)
		}
	}
	return faults.Err()
}

// headers returns the signed headers but those of the callback. u has been checked.
func (u Put) headers() map[string]string {
	headers := u.Object.headers()
	if u.ContentMD5 != "" {
		headers["content-md5"] = u.ContentMD5
	}
	if u.ContentLength != nil {
		headers["content-length"] = strconv.FormatInt(*u.ContentLength, 10)
	}
	return headers
}
