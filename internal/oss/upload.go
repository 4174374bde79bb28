package oss

import (
	"context"
	"errors"
	"fmt"
	"time"

	sdk "github.com/aliyun/alibabacloud-oss-go-sdk-v2/oss"

	"upcall/internal/fault"
	"upcall/internal/ossrule"
)

// An UploadRef names a multipart upload that was initiated.
type UploadRef struct{ Bucket, Key, ID string }

// A ServiceError is an answer of OSS other than success.
type ServiceError struct {
	Operation string // as in "initiate multipart upload"
	Status    int    // HTTP
	Code      string // OSS's, as in NoSuchUpload
	Message   string
	RequestID string
	Delay     time.Duration // how long OSS asks to wait; 0 if it does not say
}

func (e *ServiceError) Error() string {
	text := fmt.Sprintf("%s: OSS answers %d %s: %s (request %s)", e.Operation, e.Status, e.Code, fault.Line(e.Message), e.RequestID)
	if advice := ossrule.Advice(e.Code, e.Message); advice != "" {
		text += "; " + advice
	}
	return text
}

// failed returns the SDK's error in one line. The SDK's own text has eight lines and shows
// the signed URL.
func failed(operation string, err error) error {
	if service, ok := errors.AsType[*sdk.ServiceError](err); ok {
		return &ServiceError{operation, service.StatusCode, service.Code, service.Message, service.RequestID, delay(service.Headers)}
	}
	if own, ok := errors.AsType[*sdk.OperationError](err); ok {
		err = own.Unwrap()
	}
	return fmt.Errorf("%s: %w", operation, err)
}

// Initiate initiates a multipart upload. If o has no content type, it follows from the
// extension of the key. The error joins all mistakes in o, or is a [ServiceError] or about
// the network.
func (c *Client) Initiate(ctx context.Context, o Object) (UploadRef, error) {
	if err := o.Check(); err != nil {
		return UploadRef{}, err
	}
	headers := o.sent()
	delete(headers, "x-oss-object-acl") // sent with the completion
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	result, err := c.sdk.InitiateMultipartUpload(ctx, &sdk.InitiateMultipartUploadRequest{
		Bucket: &o.Bucket, Key: &o.Key, RequestCommon: sdk.RequestCommon{Headers: headers},
	})
	if err != nil {
		return UploadRef{}, failed("initiate multipart upload", err)
	}
	if sdk.ToString(result.UploadId) == "" {
		return UploadRef{}, errors.New("initiate multipart upload: OSS answers without an upload id")
	}
	return UploadRef{Bucket: o.Bucket, Key: o.Key, ID: *result.UploadId}, nil
}

// sent returns the headers of a request that the SDK sends. The SDK finds the content type only
// under this spelling, and otherwise adds one that follows from the key: which of the two is sent
// would be a matter of chance.
func (o Object) sent() map[string]string {
	headers := o.headers()
	if kind, ok := headers["content-type"]; ok {
		delete(headers, "content-type")
		headers[sdk.HTTPHeaderContentType] = kind
	}
	return headers
}

// Abort aborts a multipart upload. OSS discards its parts.
func (c *Client) Abort(ctx context.Context, upload UploadRef) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err := c.sdk.AbortMultipartUpload(ctx,
		&sdk.AbortMultipartUploadRequest{Bucket: &upload.Bucket, Key: &upload.Key, UploadId: &upload.ID})
	if err != nil {
		return failed("abort multipart upload", err)
	}
	return nil
}
