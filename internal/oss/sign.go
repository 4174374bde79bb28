package oss

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	sdk "github.com/aliyun/alibabacloud-oss-go-sdk-v2/oss"

	"upcall/internal/fault"
	"upcall/internal/manifest"
	"upcall/internal/ossrule"
)

// A Signed is a presigned request. Its headers are the signed headers, by lower-case names.
// The uploader must send each unchanged: a missing or changed one breaks the signature. Host
// is not among them, because V4 does not sign it.
type Signed struct {
	manifest.PresignedRequest
	ExpiresAt   time.Time // UTC, whole seconds
	ExpiryCause ExpiryCause
}

// An ExpiryCause says why a URL expires when it does.
type ExpiryCause int

const (
	// ExpiryRequested is the time that was asked for.
	ExpiryRequested ExpiryCause = iota
	// ExpiryOfCredentials is that of temporary credentials, which expire before that. OSS
	// rejects the URL from then on, whatever it says itself.
	ExpiryOfCredentials
	// ExpiryUnknown is for temporary credentials whose expiry is not known. OSS may
	// reject the URL before its time.
	ExpiryUnknown
)

// end returns when a URL expires that should be valid for expires from start, and why.
func (c *Client) end(ctx context.Context, start time.Time, expires time.Duration) (time.Time, ExpiryCause, error) {
	credentials, err := c.source(ctx, false)
	if err != nil {
		return time.Time{}, 0, err
	}
	asked := start.Add(expires).UTC()
	theirs := credentials.Expires.UTC().Truncate(time.Second)
	switch {
	case credentials.Expires.IsZero() && credentials.SessionToken != "":
		return asked, ExpiryUnknown, nil
	case credentials.Expires.IsZero() || !theirs.Before(asked):
		return asked, ExpiryRequested, nil
	case theirs.Sub(start) < ossrule.MinExpiry:
		return time.Time{}, 0, fault.New(ErrCredentials, "credentials", "get new ones", "have expired at %s",
			credentials.Expires.UTC().Format(time.RFC3339))
	}
	return theirs, ExpiryOfCredentials, nil
}

// sign presigns any request that the SDK can presign. The URL ends expires from now, or with
// the credentials if they end earlier.
func (c *Client) sign(ctx context.Context, request sdk.RequestCommonInterface, expires time.Duration) (Signed, error) {
	for {
		// x-oss-date counts whole seconds, so the expiry is a whole second too. The SDK
		// takes the end and reads the clock again for the start: if the second changed
		// between the two, the URL would be one second short, and one of a single
		// second invalid from the beginning. Such a URL is signed again.
		start := time.Now().Truncate(time.Second)
		end, cause, err := c.end(ctx, start, expires)
		if err != nil {
			return Signed{}, err
		}
		signed, err := c.signUntil(ctx, request, end)
		if err != nil {
			return Signed{}, err
		}
		if time.Now().Truncate(time.Second).Equal(start) {
			signed.ExpiryCause = cause
			return signed, nil
		}
	}
}

// signUntil presigns a request to end at a whole second. Its headers are all among the
// common ones, by lower-case names; the result has the same map.
func (c *Client) signUntil(ctx context.Context, request sdk.RequestCommonInterface, end time.Time) (Signed, error) {
	headers, _, _ := request.GetCommonFileds()
	client := c.plain
	if slices.ContainsFunc(additionalHeaders, func(name string) bool { return headers[name] != "" }) {
		client = c.sdk
	}
	result, err := client.Presign(ctx, request, sdk.PresignExpiration(end))
	if err != nil {
		return Signed{}, fmt.Errorf("presign request: %w", err)
	}
	// The uploader must be told to send exactly what is signed: otherwise OSS would reject
	// it or, worse, accept something else.
	if !sameNames(result.SignedHeaders, headers) {
		return Signed{}, fmt.Errorf("presign request: the SDK signed other headers than the %d that are to be sent", len(headers))
	}
	if headers == nil {
		headers = make(map[string]string)
	}
	presigned := manifest.PresignedRequest{Method: result.Method, URL: result.URL, Headers: headers}
	return Signed{PresignedRequest: presigned, ExpiresAt: end}, nil
}

// sameNames compares the SDK's header names, as it spells them, with ours in lower case.
// There are only a few, and lower-casing each would allocate.
func sameNames(signed, headers map[string]string) bool {
	same := 0
	for name := range signed {
		for ours := range headers {
			if strings.EqualFold(name, ours) {
				same++
			}
		}
	}
	return same == len(headers) && same == len(signed)
}
