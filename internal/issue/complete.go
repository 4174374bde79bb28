package issue

import (
	"context"
	"errors"
	"fmt"

	"upcall/internal/manifest"
	"upcall/internal/oss"
)

// The ways in which a merge is refused before OSS is asked for it, or fails after.
var (
	// ErrIncomplete means that parts are missing, or have the wrong size. Nothing was
	// merged.
	ErrIncomplete = errors.New("the upload is not complete")
	// ErrMismatch means that the CRC-64 is not the expected one.
	ErrMismatch = errors.New("the CRC-64 does not match")
)

// Completed is a merged upload.
type Completed struct {
	Parts  int
	Size   int64 // bytes
	ETag   string
	CRC64  *uint64 // of the stored object; nil where OSS does not say
	Answer []byte  // the callback receiver's answer, as it was sent; nil without a callback
}

// CompleteMultipart merges the parts that OSS lists, with fresh credentials, even if
// the URLs of m have expired. Parts that are missing or that do not add up to the CRC-64
// want, if that is not nil, are found before the merge, so that no wrong object replaces
// another and no callback is made for it; the stored object is compared after it.
//
// The error wraps ErrIncomplete, ErrMismatch or [oss.ErrCallbackFailed], or is a
// [oss.RefusedError] or about the network. With ErrCallbackFailed, and with
// ErrMismatch after the merge, the result has an ETag.
func (i *Issuer) CompleteMultipart(ctx context.Context, m manifest.Multipart, want *uint64) (Completed, error) {
	completion, err := completion(m)
	if err != nil {
		return Completed{}, err
	}
	parts, err := i.cfg.Presigner.Parts(ctx, started(m))
	if err != nil {
		return Completed{}, err
	}
	if err := checkParts(m, parts); err != nil {
		return Completed{}, err
	}
	done := Completed{Parts: len(parts)}
	for _, part := range parts {
		done.Size += part.Size
	}
	whole, known := oss.JoinCRC64(parts)
	if want != nil && known && whole != *want {
		return Completed{}, fmt.Errorf("%w: the parts make %d, expected is %d; nothing was merged: upload the right parts again, or abort", ErrMismatch, whole, *want)
	}
	stored, err := i.cfg.Presigner.Complete(ctx, started(m), parts, completion)
	done.ETag, done.CRC64, done.Answer = stored.ETag, stored.CRC64, stored.Answer
	if err != nil && !errors.Is(err, oss.ErrCallbackFailed) {
		return Completed{}, err
	}
	if want == nil && known {
		want = &whole
	}
	return done, errors.Join(err, checkStored(stored.CRC64, want))
}

func checkStored(stored, want *uint64) error {
	switch {
	case want == nil:
		return nil
	case stored == nil:
		return fmt.Errorf("%w: OSS does not say the one of the stored object, expected is %d", ErrMismatch, *want)
	case *stored != *want:
		return fmt.Errorf("%w: the stored object has %d, expected is %d; it is stored all the same: upload it again", ErrMismatch, *stored, *want)
	}
	return nil
}

// completion takes what the signed complete request of the manifest would have told.
func completion(m manifest.Multipart) (oss.Completion, error) {
	c := oss.Completion{
		ACL:             m.Complete.Headers["x-oss-object-acl"],
		ForbidOverwrite: m.Complete.Headers["x-oss-forbid-overwrite"] == "true",
	}
	var err error
	c.Callback.Parameter, c.Callback.Vars, err = m.CallbackDocuments()
	return c, err
}

// checkParts compares what OSS has with what there is to be. OSS itself merges any
// parts that it is told to, with gaps between them and whatever their sizes.
func checkParts(m manifest.Multipart, parts []oss.UploadedPart) error {
	if len(parts) == 0 {
		return fmt.Errorf("%w: no part was uploaded; upload them first", ErrIncomplete)
	}
	expected := len(m.Parts)
	if m.Size == nil {
		expected = len(parts)
	}
	if last := int(parts[len(parts)-1].Number); last > len(m.Parts) {
		return fmt.Errorf("%w: OSS has a part %d, and the manifest has %d parts; abort, and begin again", ErrIncomplete, last, len(m.Parts))
	}
	for n := range expected {
		number := n + 1
		if n >= len(parts) || int(parts[n].Number) != number {
			return fmt.Errorf("%w: part %d of %d was not uploaded; upload it first", ErrIncomplete, number, expected)
		}
		if size := m.Parts[n].Size; size != nil && *size != parts[n].Size {
			return fmt.Errorf("%w: part %d has %d bytes instead of %d; upload it again", ErrIncomplete, number, parts[n].Size, *size)
		}
	}
	return nil
}
