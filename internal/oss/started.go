package oss

import (
	"bytes"
	"cmp"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	sdk "github.com/aliyun/alibabacloud-oss-go-sdk-v2/oss"

	"upcall/internal/fault"
)

// Started names a multipart upload that OSS has begun.
type Started struct{ Bucket, Key, ID string }

// UploadedPart is a part that OSS has.
type UploadedPart struct {
	Number int32
	Size   int64 // bytes
	ETag   string
	CRC64  *uint64 // nil where OSS does not say
}

// Completion is what goes along when the parts are merged.
type Completion struct {
	ACL             string // one of ossrule.ACLs; "" means the bucket's
	ForbidOverwrite bool
	Callback        Callback
}

// Completed is OSS's answer to a merge.
type Completed struct {
	ETag   string
	CRC64  *uint64 // of the whole object; nil where OSS does not say
	Answer []byte  // the callback receiver's answer, as it was sent; nil without a callback
}

// How long OSS may take. Merging terabytes and waiting for five callback URLs takes its
// time; all else is a matter of milliseconds.
const (
	completeTimeout = 5 * time.Minute
	callTimeout     = 30 * time.Second // with the SDK's retries
)

// maxAnswer is what OSS lets a callback receiver answer at most, in bytes.
const maxAnswer = 1 << 20

// ErrCallbackFailed means that the object is stored, but that its callback failed.
// OSS says so with the status 203, which looks like success.
var ErrCallbackFailed = errors.New("the object is stored, but its callback failed")

// A RefusedError is an answer of OSS that is no success.
type RefusedError struct {
	Operation string // as in "initiate multipart upload"
	Status    int    // HTTP
	Code      string // OSS's, as in NoSuchUpload
	Message   string
	RequestID string
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("%s: OSS answers %d %s: %s (request %s)", e.Operation, e.Status, e.Code, fault.Line(e.Message), e.RequestID)
}

// failed makes one line of what the SDK returns. Its own errors have eight, and show
// the signed URL.
func failed(operation string, err error) error {
	if refused, ok := errors.AsType[*sdk.ServiceError](err); ok {
		return &RefusedError{operation, refused.StatusCode, refused.Code, refused.Message, refused.RequestID}
	}
	if own, ok := errors.AsType[*sdk.OperationError](err); ok {
		err = own.Unwrap()
	}
	return fmt.Errorf("%s: %w", operation, err)
}

// Initiate begins a multipart upload. A content type that o leaves open is taken from
// the end of the key. The error joins all mistakes in o, or is a [RefusedError] or about
// the network.
func (p *Presigner) Initiate(ctx context.Context, o Object) (Started, error) {
	if err := o.Check(); err != nil {
		return Started{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	result, err := p.client.InitiateMultipartUpload(ctx, &sdk.InitiateMultipartUploadRequest{
		Bucket: &o.Bucket, Key: &o.Key, RequestCommon: sdk.RequestCommon{Headers: o.initiateHeaders()},
	})
	if err != nil {
		return Started{}, failed("initiate multipart upload", err)
	}
	if sdk.ToString(result.UploadId) == "" {
		return Started{}, errors.New("initiate multipart upload: OSS answers without an upload id")
	}
	return Started{Bucket: o.Bucket, Key: o.Key, ID: *result.UploadId}, nil
}

// Abort gives an upload up: OSS drops its parts.
func (p *Presigner) Abort(ctx context.Context, upload Started) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err := p.client.AbortMultipartUpload(ctx, &sdk.AbortMultipartUploadRequest{Bucket: &upload.Bucket, Key: &upload.Key, UploadId: &upload.ID})
	if err != nil {
		return failed("abort multipart upload", err)
	}
	return nil
}

// Parts lists what was uploaded, in the order of the numbers.
func (p *Presigner) Parts(ctx context.Context, upload Started) ([]UploadedPart, error) {
	pages := p.client.NewListPartsPaginator(&sdk.ListPartsRequest{Bucket: &upload.Bucket, Key: &upload.Key, UploadId: &upload.ID})
	var parts []UploadedPart
	for pages.HasNext() {
		bounded, cancel := context.WithTimeout(ctx, callTimeout)
		page, err := pages.NextPage(bounded)
		cancel()
		if err != nil {
			return nil, failed("list parts", err)
		}
		for _, part := range page.Parts {
			parts = append(parts, UploadedPart{Number: part.PartNumber, Size: part.Size, ETag: sdk.ToString(part.ETag), CRC64: parseCRC64(sdk.ToString(part.HashCRC64))})
		}
	}
	return parts, nil
}

func parseCRC64(s string) *uint64 {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return nil
	}
	return &n
}

// Complete merges parts into the object and waits for its callback. It is tried once:
// the second of two attempts could not tell whether the first one had succeeded. With
// ErrCallbackFailed, which comes with OSS's reason, what is returned is valid.
func (p *Presigner) Complete(ctx context.Context, upload Started, parts []UploadedPart, c Completion) (Completed, error) {
	const doing = "complete multipart upload"
	if err := c.Callback.check(); err != nil {
		return Completed{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, completeTimeout)
	defer cancel()
	document, err := completeDocument(parts)
	if err != nil {
		return Completed{}, fmt.Errorf("%s: %w", doing, err)
	}
	parameters := map[string]string{"uploadId": upload.ID}
	for name, value := range c.Callback.parameters() {
		parameters[name] = value
	}
	output, err := p.client.InvokeOperation(ctx, &sdk.OperationInput{
		OpName: "CompleteMultipartUpload", Method: http.MethodPost, Bucket: &upload.Bucket, Key: &upload.Key,
		Headers: completeHeaders(c.ACL, c.ForbidOverwrite, c.Callback), Parameters: parameters, Body: bytes.NewReader(document),
	}, func(o *sdk.Options) { o.RetryMaxAttempts = sdk.Ptr(1) })
	if err != nil {
		return Completed{}, failed(doing, err)
	}
	defer output.Body.Close()
	body, err := io.ReadAll(io.LimitReader(output.Body, maxAnswer))
	if err != nil {
		return Completed{}, fmt.Errorf("%s: read answer: %w", doing, err)
	}
	done := Completed{ETag: output.Headers.Get("ETag"), CRC64: parseCRC64(output.Headers.Get("x-oss-hash-crc64ecma"))}
	if output.StatusCode == http.StatusNonAuthoritativeInfo {
		return done, fmt.Errorf("%w: %w", ErrCallbackFailed, refusal(doing, output, body))
	}
	if c.Callback.Parameter.Base64() != "" {
		done.Answer = body
	}
	return done, nil
}

// completeDocument is the body of a CompleteMultipartUpload.
func completeDocument(parts []UploadedPart) ([]byte, error) {
	type part struct {
		PartNumber int32
		ETag       string
	}
	list := struct {
		XMLName xml.Name `xml:"CompleteMultipartUpload"`
		Part    []part
	}{}
	for _, p := range parts {
		list.Part = append(list.Part, part{p.Number, p.ETag})
	}
	return xml.Marshal(list)
}

// refusal reads the error document of an answer whose status the SDK takes for success.
func refusal(operation string, output *sdk.OperationOutput, body []byte) error {
	var document struct{ Code, Message, RequestId string }
	if err := xml.Unmarshal(body, &document); err != nil {
		document.Message = "its reason cannot be read"
	}
	return &RefusedError{operation, output.StatusCode, cmp.Or(document.Code, "unknown"), document.Message,
		cmp.Or(document.RequestId, output.Headers.Get("x-oss-request-id"))}
}

// JoinCRC64 is the CRC-64 of the object that the parts make, unless OSS did not say it
// of all of them.
func JoinCRC64(parts []UploadedPart) (whole uint64, known bool) {
	for _, part := range parts {
		if part.CRC64 == nil {
			return 0, false
		}
		whole = sdk.CRC64Combine(whole, *part.CRC64, uint64(part.Size))
	}
	return whole, true
}
