// Package oss wraps the OSS SDK: the connection, presigned V4 requests, and requests to OSS
// itself. No other package uses the SDK, and no type of the SDK leaves this one.
//
// Everything is checked before anything is signed, because OSS would report most mistakes
// only at the upload, and the SDK misses some. An error joins one [fault.Fault] for each
// mistake, whose Rule is a sentinel of this package or of ossrule.
package oss

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	sdk "github.com/aliyun/alibabacloud-oss-go-sdk-v2/oss"
	"github.com/aliyun/alibabacloud-oss-go-sdk-v2/oss/credentials"

	"upcall/internal/ossrule"
)

// The rules that a [Config], a [Put] and a [MultipartPlan] are checked against.
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

// A Client signs for one account, region and endpoint. Signing needs no network, unless the
// credentials do. Of OSS itself the client asks to initiate and abort multipart uploads of
// others, to store and read objects of its own, and what objects there are. Several goroutines
// may use it.
//
// Its clock is the system's, because the SDK accepts no other for x-oss-date.
type Client struct {
	sdk    *sdk.Client
	source Source
	host   string
	region string

	// plain is sdk for requests without any of additionalHeaders, which most are: the SDK
	// spends a twentieth of its time looking for those.
	plain *sdk.Client
}

// callTimeout limits a request to OSS, including the SDK's retries.
const callTimeout = 30 * time.Second

// partTimeout limits a request that carries data.
const partTimeout = 5 * time.Minute

// New checks cfg and returns a client. The error joins all mistakes.
func New(cfg Config) (*Client, error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	source := cfg.source()
	c := sdk.NewConfig().
		WithRegion(cfg.Region).
		WithUseInternalEndpoint(cfg.Internal).
		WithUseAccelerateEndpoint(cfg.Accelerate).
		WithUseCName(cfg.CName).
		WithUsePathStyle(cfg.PathStyle).
		WithAdditionalHeaders(additionalHeaders).
		WithProxyFromEnvironment(true).
		WithReadWriteTimeout(callTimeout).
		WithCredentialsProvider(credentials.CredentialsProviderFunc(func(ctx context.Context) (credentials.Credentials, error) {
			got, err := source(ctx, false)
			return credentials.Credentials{
				AccessKeyID: got.AccessKeyID, AccessKeySecret: got.AccessKeySecret, SecurityToken: got.SessionToken,
			}, err
		}))
	if cfg.Endpoint != "" {
		c.Endpoint = &cfg.Endpoint
	}
	full := sdk.NewClient(c)
	c.AdditionalHeaders = nil
	return &Client{sdk: full, plain: sdk.NewClient(c), source: source, host: cfg.Host(), region: cfg.Region}, nil
}

// Refresh takes fresh credentials from where they come from, if that has others. OSS may refuse
// credentials before they expire by this machine's clock, and not all say when they do.
func (c *Client) Refresh(ctx context.Context) error {
	_, err := c.source(ctx, true)
	return err
}

// Host is the host name of the configured endpoint, without bucket and port, or "" if the
// endpoint follows from the region.
func (c *Client) Host() string { return c.host }

// Origin returns the origin that uploads to a bucket go to, as in
// https://bucket.oss-cn-hangzhou.aliyuncs.com, for the policy of a page that uploads.
func (c *Client) Origin(ctx context.Context, bucket string) (string, error) {
	signed, err := c.Put(ctx, Put{Object: Object{Bucket: bucket, Key: "origin"}, Expires: ossrule.MinExpiry})
	if err != nil {
		return "", err
	}
	u, err := url.Parse(signed.URL)
	if err != nil {
		return "", fmt.Errorf("read presigned URL: %w", err)
	}
	return u.Scheme + "://" + u.Host, nil
}

// parseEndpoint adds the scheme that the SDK adds.
func parseEndpoint(endpoint string) (*url.URL, error) {
	if !strings.Contains(endpoint, "://") {
		endpoint = "https://" + endpoint
	}
	return url.Parse(endpoint)
}
