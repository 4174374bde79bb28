package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"upcall/internal/fault"
	"upcall/internal/issue"
	"upcall/internal/manifest"
	"upcall/internal/oss"
	"upcall/internal/uploader"
)

// printManifest shows an upload in parts, whose manifest is in file, to a person.
func printManifest(w io.Writer, r issue.MultipartRequest, m manifest.Multipart, cause oss.ExpiryCause, file string, now time.Time) error {
	var b strings.Builder
	fmt.Fprintf(&b, "Object    %s in bucket %s\n", fault.Readable(m.Key), m.Bucket)
	fmt.Fprintf(&b, "Upload    %s, at OSS %s\n", m.ID, m.OSSUploadID)
	fmt.Fprintf(&b, "Expires   %s\n", expiry(m.ExpiresAt, cause, now))
	fmt.Fprintf(&b, "Callback  %s\n", callbackURLs(r.Callback))
	fmt.Fprintf(&b, "Parts     %s\n", partsInWords(m))
	fmt.Fprintf(&b, `
The manifest is in %[1]s. Anyone who has it can upload until it expires.

Upload the file named FILE, which needs no credentials:

issuer upload --manifest %[1]s FILE

Or have the parts sent by any HTTP client, each to its URL, and merge them here:

issuer multipart complete --manifest %[1]s --file FILE

Or give the upload up, so that its parts cost nothing:

issuer multipart abort --manifest %[1]s
`, fault.Readable(file))
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("write upload: %w", err)
	}
	return nil
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

// printCompleted shows a merged upload to a person, with the callback's answer at the
// end.
func printCompleted(w io.Writer, m manifest.Multipart, done uploader.Result, compared bool) error {
	var b strings.Builder
	fmt.Fprintf(&b, "Object    %s in bucket %s\n", fault.Readable(m.Key), m.Bucket)
	fmt.Fprintf(&b, "Upload    %s\n", m.ID)
	fmt.Fprintf(&b, "Size      %d bytes in %d parts\n", done.Size, done.Parts)
	fmt.Fprintf(&b, "ETag      %s\n", done.ETag)
	switch {
	case done.CRC64 == 0: // OSS did not say it
	case compared:
		fmt.Fprintf(&b, "CRC-64    %d, as expected\n", done.CRC64)
	default:
		fmt.Fprintf(&b, "CRC-64    %d\n", done.CRC64)
	}
	if done.Answer != nil {
		fmt.Fprintf(&b, "\nThe callback's answer:\n\n%s\n", strings.TrimRight(string(done.Answer), "\n"))
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("write answer: %w", err)
	}
	return nil
}
