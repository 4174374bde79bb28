package oss

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	sdk "github.com/aliyun/alibabacloud-oss-go-sdk-v2/oss"
)

// ErrThrottled says that OSS asks for fewer requests: an account has a limit on requests per second,
// which uploads need, too. The wrapped [ServiceError] may say for how long, in Delay.
var ErrThrottled = errors.New("OSS throttles requests")

// MaxPage is the most objects that a page of a listing has.
const MaxPage = 1000

// A Listing says which objects [Client.List] lists.
type Listing struct {
	Bucket string
	Prefix string // only keys that begin with it; default all
	After  string // only keys that come after it by their bytes; default all
	Limit  int    // at most so many, up to [MaxPage], which is the default
}

// A Page is objects in the order of the bytes of their keys.
type Page struct {
	Objects []Listed
	More    bool          // there are objects after these
	Delay   time.Duration // how long OSS held the request back, because there are too many; 0 if it did not
}

// A Listed is what a listing says of an object.
type Listed struct {
	Key          string
	ETag         string // in capitals, without quotes
	Size         int64
	LastModified time.Time // UTC
}

// List returns one page of a bucket. It sends one request and does not repeat it, so that the caller
// can limit their number. The error is a [ServiceError], which wraps [ErrThrottled] if OSS throttles,
// or about the network. It needs the right oss:ListObjects.
func (c *Client) List(ctx context.Context, l Listing) (Page, error) {
	request := &sdk.ListObjectsV2Request{Bucket: &l.Bucket, MaxKeys: MaxPage}
	if l.Limit > 0 {
		request.MaxKeys = int32(min(l.Limit, MaxPage))
	}
	if l.Prefix != "" {
		request.Prefix = &l.Prefix
	}
	if l.After != "" {
		request.StartAfter = &l.After
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	result, err := c.sdk.ListObjectsV2(ctx, request, once)
	if err != nil {
		return Page{}, lookupFailed("list objects", err)
	}
	page := Page{More: result.IsTruncated, Delay: delay(result.Headers), Objects: make([]Listed, len(result.Contents))}
	for i, o := range result.Contents {
		page.Objects[i] = Listed{sdk.ToString(o.Key), plainETag(sdk.ToString(o.ETag)), o.Size, sdk.ToTime(o.LastModified).UTC()}
	}
	if page.More && len(page.Objects) == 0 {
		return Page{}, errors.New("list objects: OSS answers that there are more objects, but with none")
	}
	return page, nil
}

// A Head is what OSS says of an object without its content.
type Head struct {
	Size         int64
	ETag         string    // in capitals, without quotes
	CRC64        *uint64   // nil if OSS does not know it, as for parts that were copied
	LastModified time.Time // UTC, whole seconds
	ContentType  string
	Delay        time.Duration // as that of a [Page]
}

// Head asks for an object. Like [Client.List] it sends one request. The error wraps [ErrNoObject] if
// there is none, or [ErrThrottled]. It needs the right oss:GetObject.
func (c *Client) Head(ctx context.Context, bucket, key string) (Head, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	result, err := c.sdk.HeadObject(ctx, &sdk.HeadObjectRequest{Bucket: &bucket, Key: &key}, once)
	if err != nil {
		return Head{}, lookupFailed("head object", err)
	}
	head := Head{Size: result.ContentLength, ETag: plainETag(sdk.ToString(result.ETag)),
		LastModified: sdk.ToTime(result.LastModified).UTC(), ContentType: sdk.ToString(result.ContentType), Delay: delay(result.Headers)}
	if text := sdk.ToString(result.HashCRC64); text != "" {
		sum, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return Head{}, fmt.Errorf("head object: read CRC-64: %w", err)
		}
		head.CRC64 = &sum
	}
	return head, nil
}

// once keeps the SDK from repeating a request: repetitions would evade the caller's limit.
func once(o *sdk.Options) { o.RetryMaxAttempts = sdk.Ptr(1) }

// plainETag spells an ETag as callbacks have it: listings have quotes around it.
func plainETag(s string) string { return strings.ToUpper(strings.Trim(s, `"`)) }

// delay reads how many milliseconds OSS held a request back, or asks to wait.
func delay(h http.Header) time.Duration {
	ms, err := strconv.ParseUint(h.Get("x-oss-qos-delay-time"), 10, 31)
	if err != nil {
		return 0
	}
	return time.Duration(ms) * time.Millisecond
}

// lookupFailed is failed with the reason that callers branch on. An answer to HEAD may come without
// a code.
func lookupFailed(operation string, err error) error {
	err = failed(operation, err)
	answer, ok := errors.AsType[*ServiceError](err)
	switch {
	case !ok:
		return err
	case answer.Status == http.StatusNotFound && answer.Code != "NoSuchBucket":
		return fmt.Errorf("%w: %w", ErrNoObject, err)
	case answer.Status == http.StatusServiceUnavailable || answer.Status == http.StatusTooManyRequests:
		return fmt.Errorf("%w: %w", ErrThrottled, err)
	}
	return err
}
