package oss

import (
	"context"
	"fmt"
	"strconv"
	"time"

	sdk "github.com/aliyun/alibabacloud-oss-go-sdk-v2/oss"

	"upcall/internal/fault"
	"upcall/internal/manifest"
	"upcall/internal/ossrule"
)

// The default part size keeps parts few enough for one answer to list them all, and small
// enough to send again.
const (
	defaultPartSize = 8 << 20
	partSizeStep    = 1 << 20
)

// A MultipartPlan is the upload of one object in parts.
type MultipartPlan struct {
	Object Object

	// Expires is how long the requests may begin for, 1 s to 7 days in whole seconds.
	Expires time.Duration

	// Size is the exact size of the object in bytes, 1 to 48.8 TB: OSS then rejects parts
	// of the wrong size. nil leaves it to the uploader.
	Size *int64

	// PartSize is the size of each part but the last in bytes, 100 KB to 5 GB. 0 means
	// one that suits the size.
	PartSize int64

	// Parts is how many parts there may be, 1 to 10,000. It is 0 if Size is given, from
	// which it follows.
	Parts int

	Callback CallbackHeaders
}

// Check returns all mistakes, joined.
func (m MultipartPlan) Check() error {
	return fault.Join(m.Object.Check(), checkExpires(m.Expires), m.checkParts(), m.Callback.check())
}

func (m MultipartPlan) checkParts() error {
	var faults fault.List
	bad := faults.AddNew
	switch {
	case m.Size == nil && m.Parts == 0:
		bad(ErrSize, "size", "give the size, or how many parts there may be", "is not given")
	case m.Size != nil && m.Parts != 0:
		bad(ErrPartCount, "parts", "leave one out", "is given along with the size, which says how many parts there are")
	case m.Size != nil && (*m.Size < 1 || *m.Size > ossrule.MaxObject):
		bad(ErrSize, "size", fmt.Sprintf("a multipart upload takes 1 to %d bytes", int64(ossrule.MaxObject)), "%d is out of range", *m.Size)
	case m.Size == nil && (m.Parts < 1 || m.Parts > ossrule.MaxParts):
		bad(ErrPartCount, "parts", "OSS allows 1 to 10000", "%d is out of range", m.Parts)
	case m.Size != nil && m.PartSize >= ossrule.MinPart && m.PartSize <= ossrule.MaxPart && m.Count() > ossrule.MaxParts:
		bad(ErrPartCount, "part-size", fmt.Sprintf("give at least %d", (*m.Size+ossrule.MaxParts-1)/ossrule.MaxParts),
			"%d bytes make %d parts of %d bytes, and OSS allows 10000", m.PartSize, m.Count(), *m.Size)
	}
	if m.PartSize != 0 && (m.PartSize < ossrule.MinPart || m.PartSize > ossrule.MaxPart) {
		bad(ErrPartSize, "part-size", fmt.Sprintf("OSS allows %d to %d bytes", ossrule.MinPart, int64(ossrule.MaxPart)),
			"%d is out of range", m.PartSize)
	}
	return faults.Err()
}

// SizeOfParts is the size of each part but the last, in bytes.
func (m MultipartPlan) SizeOfParts() int64 {
	switch {
	case m.PartSize != 0:
		return m.PartSize
	case m.Size == nil:
		return defaultPartSize
	}
	fewest := (*m.Size + ossrule.PageOfParts - 1) / ossrule.PageOfParts
	return min(max(defaultPartSize, (fewest+partSizeStep-1)/partSizeStep*partSizeStep), ossrule.MaxPart)
}

// Count is how many parts there are, or may be if the size is not known.
func (m MultipartPlan) Count() int {
	if m.Size == nil {
		return m.Parts
	}
	size := m.SizeOfParts()
	return int((*m.Size + size - 1) / size)
}

// SizeOf is the exact size of a part, counted from 1, or nil if that is not known.
func (m MultipartPlan) SizeOf(number int) *int64 {
	if m.Size == nil {
		return nil
	}
	size := m.SizeOfParts()
	return new(min(size, *m.Size-int64(number-1)*size))
}

// SignMultipart presigns every request of the upload, which was initiated for m. They all
// expire at the same time. The manifest has no ID yet. The error joins all mistakes in m.
func (c *Client) SignMultipart(ctx context.Context, m MultipartPlan, upload UploadRef) (manifest.Multipart, ExpiryCause, error) {
	if err := m.Check(); err != nil {
		return manifest.Multipart{}, 0, err
	}
	end, cause, err := c.end(ctx, time.Now().Truncate(time.Second), m.Expires)
	if err != nil {
		return manifest.Multipart{}, 0, err
	}
	var broken error
	sign := func(request sdk.RequestCommonInterface) manifest.PresignedRequest {
		if broken != nil {
			return manifest.PresignedRequest{}
		}
		var signed Signed
		signed, broken = c.signUntil(ctx, request, end)
		return signed.PresignedRequest
	}
	all := manifest.Multipart{
		Bucket: upload.Bucket, Key: upload.Key, OSSUploadID: upload.ID,
		Size: m.Size, PartSize: m.SizeOfParts(), ExpiresAt: end,
		Callback: m.Callback.Callback.JSON(), CallbackVar: m.Callback.CallbackVar.JSON(),
	}
	for number := 1; number <= m.Count() && broken == nil; number++ {
		all.Parts = append(all.Parts, manifest.Part{
			Number: int32(number), Size: m.SizeOf(number), PresignedRequest: sign(m.partRequest(upload, number)),
		})
	}
	all.Complete = sign(m.completeRequest(upload))
	all.Abort = sign(&sdk.AbortMultipartUploadRequest{Bucket: &upload.Bucket, Key: &upload.Key, UploadId: &upload.ID})
	all.Head = new(sign(&sdk.HeadObjectRequest{Bucket: &upload.Bucket, Key: &upload.Key}))
	all.ListParts = sign(listRequest(upload, 0))
	for after := ossrule.PageOfParts; after < m.Count(); after += ossrule.PageOfParts {
		all.ListPartsNext = append(all.ListPartsNext, sign(listRequest(upload, after)))
	}
	switch late := broken == nil && !time.Now().Before(end); {
	case late && cause == ExpiryOfCredentials:
		broken = fault.New(ErrCredentials, "credentials", "get ones that last longer", "end before %d parts are signed", m.Count())
	case late:
		broken = fault.New(ErrExpires, "expires", "give more", "%s is over before %d parts are signed", m.Expires, m.Count())
	}
	return all, cause, broken
}

// partRequest signs the size of a part if it is known, so that OSS rejects any other.
func (m MultipartPlan) partRequest(upload UploadRef, number int) *sdk.UploadPartRequest {
	request := &sdk.UploadPartRequest{Bucket: &upload.Bucket, Key: &upload.Key, UploadId: &upload.ID, PartNumber: int32(number)}
	if size := m.SizeOf(number); size != nil {
		request.RequestCommon.Headers = map[string]string{"content-length": strconv.FormatInt(*size, 10)}
	}
	return request
}

// completeRequest holds what OSS must know when it completes the upload. The content type
// is signed because most HTTP clients add one of their own to a POST.
func (m MultipartPlan) completeRequest(upload UploadRef) *sdk.CompleteMultipartUploadRequest {
	headers := map[string]string{"content-type": "application/xml"}
	if m.Object.ACL != "" {
		headers["x-oss-object-acl"] = m.Object.ACL
	}
	if m.Object.ForbidOverwrite {
		headers["x-oss-forbid-overwrite"] = "true"
	}
	return &sdk.CompleteMultipartUploadRequest{
		Bucket: &upload.Bucket, Key: &upload.Key, UploadId: &upload.ID, RequestCommon: m.Callback.with(headers),
	}
}

// listRequest lists the parts after a number. The SDK does not presign ListParts, which is
// a GET of the object with the upload's id.
func listRequest(upload UploadRef, after int) *sdk.GetObjectRequest {
	parameters := map[string]string{"uploadId": upload.ID}
	if after > 0 {
		parameters["part-number-marker"] = strconv.Itoa(after)
	}
	return &sdk.GetObjectRequest{Bucket: &upload.Bucket, Key: &upload.Key, RequestCommon: sdk.RequestCommon{Parameters: parameters}}
}
