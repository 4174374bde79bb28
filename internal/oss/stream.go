package oss

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	sdk "github.com/aliyun/alibabacloud-oss-go-sdk-v2/oss"
)

// ErrNoObject says that there is no object of that name.
var ErrNoObject = errors.New("no such object")

const (
	// streamPart is the size of the parts of a [Stream]. OSS takes 10,000 of them, 78 GiB.
	streamPart = 8 << 20
	// mostRead is how large an object [Client.Read] reads.
	mostRead = 16 << 20
)

// A Stream is an object that is written while it is made. There is no object, or the former one,
// until Commit: what is small becomes one request, and all else a multipart upload.
type Stream struct {
	ctx    context.Context // of io.Writer, whose method has none
	client *Client
	object Object
	buffer []byte
	upload UploadRef // once the first part is full
	parts  []sdk.UploadPart
}

// Stream begins an object. The error joins all mistakes in o. The context is for the writes.
func (c *Client) Stream(ctx context.Context, o Object) (*Stream, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	return &Stream{ctx: ctx, client: c, object: o}, nil
}

// Write sends the parts that are full.
func (s *Stream) Write(p []byte) (int, error) {
	written := 0
	for len(p) > 0 {
		if s.buffer == nil {
			s.buffer = make([]byte, 0, streamPart)
		}
		n := min(len(p), streamPart-len(s.buffer))
		s.buffer = append(s.buffer, p[:n]...)
		p, written = p[n:], written+n
		if len(s.buffer) == streamPart {
			if err := s.sendPart(); err != nil {
				return written, err
			}
		}
	}
	return written, nil
}

func (s *Stream) sendPart() error {
	if s.upload.ID == "" {
		upload, err := s.client.Initiate(s.ctx, s.object)
		if err != nil {
			return err
		}
		s.upload = upload
	}
	ctx, cancel := context.WithTimeout(s.ctx, partTimeout)
	defer cancel()
	number := int32(len(s.parts) + 1)
	result, err := s.client.sdk.UploadPart(ctx, &sdk.UploadPartRequest{Bucket: &s.object.Bucket, Key: &s.object.Key,
		UploadId: &s.upload.ID, PartNumber: number, Body: bytes.NewReader(s.buffer)})
	if err != nil {
		return failed(fmt.Sprintf("upload part %d", number), err)
	}
	s.parts = append(s.parts, sdk.UploadPart{PartNumber: number, ETag: result.ETag})
	s.buffer = s.buffer[:0]
	return nil
}

// Commit makes the object what was written.
func (s *Stream) Commit(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, partTimeout)
	defer cancel()
	if s.upload.ID == "" {
		_, err := s.client.sdk.PutObject(ctx, &sdk.PutObjectRequest{Bucket: &s.object.Bucket, Key: &s.object.Key,
			Body: bytes.NewReader(s.buffer), RequestCommon: sdk.RequestCommon{Headers: s.object.sent()}})
		if err != nil {
			return failed("put object", err)
		}
		return nil
	}
	if len(s.buffer) > 0 {
		if err := s.sendPart(); err != nil {
			return err
		}
	}
	request := &sdk.CompleteMultipartUploadRequest{Bucket: &s.object.Bucket, Key: &s.object.Key,
		UploadId: &s.upload.ID, CompleteMultipartUpload: &sdk.CompleteMultipartUpload{Parts: s.parts}}
	if s.object.ForbidOverwrite {
		request.ForbidOverwrite = sdk.Ptr("true")
	}
	if _, err := s.client.sdk.CompleteMultipartUpload(ctx, request); err != nil {
		return failed("complete multipart upload", err)
	}
	return nil
}

// Discard gives up what was written.
func (s *Stream) Discard(ctx context.Context) error {
	if s.upload.ID == "" {
		return nil
	}
	return s.client.Abort(ctx, s.upload)
}

// Read returns the content of a small object. The error wraps [ErrNoObject] if there is none.
func (c *Client) Read(ctx context.Context, bucket, key string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, partTimeout)
	defer cancel()
	body, err := c.Open(ctx, bucket, key)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	content, err := io.ReadAll(io.LimitReader(body, mostRead+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("get object: %w", err)
	case len(content) > mostRead:
		return nil, fmt.Errorf("get object: %s is larger than %d bytes", key, mostRead)
	}
	return content, nil
}

// ReadAt reads a part of an object whose ETag is still this one. It reads all of p, or returns an error.
func (c *Client) ReadAt(ctx context.Context, bucket, key, etag string, p []byte, offset int64) error {
	if len(p) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, partTimeout)
	defer cancel()
	part := sdk.HTTPRange{Offset: offset, Count: int64(len(p))}
	result, err := c.sdk.GetObject(ctx, &sdk.GetObjectRequest{Bucket: &bucket, Key: &key, IfMatch: sdk.Ptr(`"` + etag + `"`),
		Range: part.FormatHTTPRange(), RangeBehavior: sdk.Ptr("standard")}) // else a range beyond the end is all of the object
	if err != nil {
		return failed("get object", err)
	}
	defer result.Body.Close()
	if _, err := io.ReadFull(result.Body, p); err != nil {
		return fmt.Errorf("get object: %w", err)
	}
	return nil
}

// Open returns the content of an object as a stream. The error wraps [ErrNoObject] if there is none.
// The context is for the whole stream.
func (c *Client) Open(ctx context.Context, bucket, key string) (io.ReadCloser, error) {
	result, err := c.sdk.GetObject(ctx, &sdk.GetObjectRequest{Bucket: &bucket, Key: &key})
	if err != nil {
		err = failed("get object", err)
		if answer, ok := errors.AsType[*ServiceError](err); ok && answer.Status == http.StatusNotFound && answer.Code == "NoSuchKey" {
			err = fmt.Errorf("%w: %w", ErrNoObject, err)
		}
		return nil, err
	}
	return result.Body, nil
}
