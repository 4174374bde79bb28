package main

import (
	"fmt"
	"strings"
	"time"

	"upcall/internal/fault"
	"upcall/internal/issue"
	"upcall/internal/manifest"
	"upcall/internal/oss"
	"upcall/internal/uploader"
)

// manifestText describes a multipart upload, whose manifest is in file, to a person.
func manifestText(r issue.MultipartRequest, m manifest.Multipart, cause oss.ExpiryCause, file string, now time.Time) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Object    %s in bucket %s\n", fault.Readable(m.Key), m.Bucket)
	fmt.Fprintf(&b, "Upload    %s, at OSS %s\n", m.ID, m.OSSUploadID)
	fmt.Fprintf(&b, "Expires   %s\n", expiry(m.ExpiresAt, cause, now))
	fmt.Fprintf(&b, "Callback  %s\n", callbackURLs(r.Callback))
	fmt.Fprintf(&b, "Parts     %s\n", partsInWords(m))
	fmt.Fprintf(&b, `
The manifest is in %[1]s. Anyone who has it can upload until it expires.

Upload the file named FILE, without credentials:

issuer upload --manifest %[1]s FILE

Or send each part to its URL with any HTTP client, then complete the upload here:

issuer multipart complete --manifest %[1]s --file FILE

Or abort the upload, so that OSS does not bill for its parts:

issuer multipart abort --manifest %[1]s
`, fault.Readable(file))
	return b.String()
}

func partsInWords(m manifest.Multipart) string {
	switch n := len(m.Parts); {
	case m.Size == nil:
		return fmt.Sprintf("up to %d, of %d bytes each but the last", n, m.PartSize)
	case n == 1:
		return fmt.Sprintf("1, of %d bytes", *m.Size)
	default:
		return fmt.Sprintf("%d, of %d bytes each but the last, which has %d", n, m.PartSize, *m.Parts[n-1].Size)
	}
}

// completedText describes a completed upload to a person, with the callback's answer at
// the end.
func completedText(m manifest.Multipart, done uploader.Result, compared bool) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Object    %s in bucket %s\n", fault.Readable(m.Key), m.Bucket)
	fmt.Fprintf(&b, "Upload    %s\n", m.ID)
	fmt.Fprintf(&b, "Size      %d bytes in %d parts\n", done.Size, done.Parts)
	fmt.Fprintf(&b, "ETag      %s\n", done.ETag)
	switch {
	case done.CRC64 == 0: // OSS did not send it
	case compared:
		fmt.Fprintf(&b, "CRC-64    %d, as expected\n", done.CRC64)
	default:
		fmt.Fprintf(&b, "CRC-64    %d\n", done.CRC64)
	}
	if done.Answer != nil {
		fmt.Fprintf(&b, "\nThe callback's answer:\n\n%s\n", strings.TrimRight(string(done.Answer), "\n"))
	}
	return b.String()
}
