// Package oss makes presigned V4 URLs for OSS. It is the only user of the OSS SDK's
// presigner, and no type of the SDK leaves it.
//
// Everything is checked before anything is signed: OSS would refuse most mistakes only
// when somebody uploads, and the SDK some of them not at all. An error joins one
// [fault.Fault] for each mistake, whose Rule is a sentinel of this package.
package oss

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	sdk "github.com/aliyun/alibabacloud-oss-go-sdk-v2/oss"
	"github.com/aliyun/alibabacloud-oss-go-sdk-v2/oss/credentials"

	"upcall/internal/manifest"
)

// The rules that a [Config], a [Put] and a [Multipart] are checked against.
var (
	ErrRegion        = errors.New("region")
	ErrEndpoint      = errors.New("endpoint")
	ErrCredentials   = errors.New("credentials")
	ErrExpires       = errors.New("expiry")
	ErrContentLength = errors.New("content length")
	ErrContentMD5    = errors.New("content MD5")
	ErrContentType   = errors.New("content type")
	ErrStorageClass  = errors.New("storage class")
	ErrACL           = errors.New("ACL")
	ErrMeta          = errors.New("user metadata")
	ErrTag           = errors.New("object tag")
	ErrHeader        = errors.New("header")
	ErrCallback      = errors.New("callback")
	ErrSize          = errors.New("size")
	ErrPartSize      = errors.New("part size")
	ErrPartCount     = errors.New("number of parts")
)

// A Presigner signs for one account, region and endpoint. It needs no network to sign
// but what its credentials need, and may be used by several goroutines. What it asks of
// OSS itself is to begin and to end multipart uploads.
//
// Its clock is the system's: the SDK reads that itself when it writes x-oss-date and
// takes no other.
type Presigner struct {
	client *sdk.Client
	source Source
	host   string

	// plain is client for the requests, most of them, that have none of
	// additionalHeaders: the SDK spends a twentieth of its time on looking for those.
	plain *sdk.Client
}

// New checks c and returns a presigner. The error joins all mistakes.
func New(c Config) (*Presigner, error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	cfg := sdk.NewConfig()
	cfg.Region = sdk.Ptr(c.Region)
	if c.Endpoint != "" {
		cfg.Endpoint = sdk.Ptr(c.Endpoint)
	}
	cfg.UseInternalEndpoint = sdk.Ptr(c.Internal)
	cfg.UseAccelerateEndpoint = sdk.Ptr(c.Accelerate)
	cfg.UseCName = sdk.Ptr(c.CName)
	cfg.UsePathStyle = sdk.Ptr(c.PathStyle)
	cfg.AdditionalHeaders = additionalHeaders
	cfg.ProxyFromEnvironment = sdk.Ptr(true)
	// The SDK binds a timeout to a connection, for whichever request dials it. The
	// longest is for all, therefore, and shorter ones come with the contexts.
	cfg.ReadWriteTimeout = sdk.Ptr(completeTimeout)
	source := c.source()
	cfg.CredentialsProvider = credentials.CredentialsProviderFunc(func(ctx context.Context) (credentials.Credentials, error) {
		got, err := source(ctx)
		return credentials.Credentials{AccessKeyID: got.AccessKeyID, AccessKeySecret: got.AccessKeySecret, SecurityToken: got.SessionToken}, err
	})
	p := &Presigner{client: sdk.NewClient(cfg), source: source, host: c.Host()}
	cfg.AdditionalHeaders = nil
	p.plain = sdk.NewClient(cfg)
	return p, nil
}

// Host is the host name of the configured endpoint, without bucket and port. It is ""
// where the endpoint follows from the region.
func (p *Presigner) Host() string { return p.host }

// Signed is a presigned request. Its headers are all that the signature covers, by their
// lower-case names: the uploader must send each as it is, as a missing or a changed one
// breaks the signature. Host is not among them, as V4 does not sign it.
type Signed struct {
	manifest.PresignedRequest
	ExpiresAt time.Time // UTC, whole seconds
	Bound     Bound     // what ExpiresAt follows from
}

// Put presigns one PutObject. The error joins all mistakes in u.
func (p *Presigner) Put(ctx context.Context, u Put) (Signed, error) {
	if err := u.Check(); err != nil {
		return Signed{}, err
	}
	return p.sign(ctx, &sdk.PutObjectRequest{
		Bucket:        sdk.Ptr(u.Object.Bucket),
		Key:           sdk.Ptr(u.Object.Key),
		RequestCommon: sdk.RequestCommon{Headers: u.headers(), Parameters: u.Callback.parameters()},
	}, u.Expires)
}

// sign presigns any request the SDK can presign, to end expires from now, or with the
// credentials if those end before.
func (p *Presigner) sign(ctx context.Context, request sdk.RequestCommonInterface, expires time.Duration) (Signed, error) {
	for {
		// x-oss-date counts whole seconds, so the expiry is a whole second too. The SDK
		// takes the end and reads the clock again for the start: if the second changed
		// between the two, the URL would be one second short, and one of a single
		// second refused from the beginning. Such a URL is signed again.
		start := time.Now().Truncate(time.Second)
		end, bound, err := p.end(ctx, start, expires)
		if err != nil {
			return Signed{}, err
		}
		signed, err := p.signUntil(ctx, request, end)
		if err != nil {
			return Signed{}, err
		}
		if time.Now().Truncate(time.Second).Equal(start) {
			signed.Bound = bound
			return signed, nil
		}
	}
}

// hasAdditional reports whether one of the headers, by lower-case names, is signed only
// if the client names it.
func hasAdditional(headers map[string]string) bool {
	for name := range headers {
		if slices.Contains(additionalHeaders, name) {
			return true
		}
	}
	return false
}

// signUntil presigns a request to end at a whole second. Its headers are all among the
// common ones, by lower-case names; the result has the same map.
func (p *Presigner) signUntil(ctx context.Context, request sdk.RequestCommonInterface, end time.Time) (Signed, error) {
	headers, _, _ := request.GetCommonFileds()
	client := p.plain
	if hasAdditional(headers) {
		client = p.client
	}
	result, err := client.Presign(ctx, request, sdk.PresignExpiration(end))
	if err != nil {
		return Signed{}, fmt.Errorf("presign request: %w", err)
	}
	// What the uploader is told to send is what is signed: else OSS would refuse it, or,
	// worse, would let him send something else.
	if !sameNames(result.SignedHeaders, headers) {
		return Signed{}, fmt.Errorf("presign request: the SDK signed other headers than the %d that are to be sent", len(headers))
	}
	if headers == nil {
		headers = make(map[string]string)
	}
	presigned := manifest.PresignedRequest{Method: result.Method, URL: result.URL, Headers: headers}
	return Signed{PresignedRequest: presigned, ExpiresAt: end}, nil
}

// sameNames compares header names: the SDK's, as it spells them, with ours in lower
// case. There are a handful, and lower-casing would take the heap for each.
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

// parseEndpoint adds the scheme that the SDK adds.
func parseEndpoint(endpoint string) (*url.URL, error) {
	if !strings.Contains(endpoint, "://") {
		endpoint = "https://" + endpoint
	}
	return url.Parse(endpoint)
}
