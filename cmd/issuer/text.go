package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"upcall/internal/fault"
	"upcall/internal/issue"
	"upcall/internal/manifest"
	"upcall/internal/oss"
	"upcall/internal/snippet"
)

// uploadText describes an upload to a person, with a command to paste.
func uploadText(r issue.Request, u manifest.Upload, cause oss.ExpiryCause, now time.Time) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Object    %s in bucket %s\n", fault.Readable(r.Object.Key), r.Object.Bucket)
	fmt.Fprintf(&b, "Upload    %s\n", u.ID)
	fmt.Fprintf(&b, "Expires   %s\n", expiry(u.ExpiresAt, cause, now))
	fmt.Fprintf(&b, "Callback  %s\n", callbackURLs(r.Callback))
	fmt.Fprintf(&b, "\n%s %s\n", u.Method, u.URL)
	names := slices.Sorted(maps.Keys(u.Headers))
	if len(names) > 0 {
		b.WriteString("\nHeaders, to be sent exactly as shown:\n\n")
		for _, name := range names {
			fmt.Fprintf(&b, "%s: %s\n", name, u.Headers[name])
		}
	}
	fmt.Fprintf(&b, "\nUpload the file named FILE:\n\n%s\n", snippet.Curl(u.Request(), "FILE"))
	if r.Callback != nil {
		b.WriteString("\nThe last line that curl prints is the status. 200: stored and reported; the receiver's answer is\n" +
			"above it. 203 looks like success to curl, but it is CallbackFailed: stored, not reported. A receiver\n" +
			"that takes OSS's event notifications or runs reconcile may record it later.\n")
	}
	return b.String()
}

// expiry says when a URL ends, and why.
func expiry(end time.Time, cause oss.ExpiryCause, now time.Time) string {
	why := map[oss.ExpiryCause]string{
		oss.ExpiryRequested:     "as requested",
		oss.ExpiryOfCredentials: "when the credentials end",
		oss.ExpiryUnknown:       "or earlier, with the session token",
	}
	return fmt.Sprintf("%s (in %s, %s)", end.Format(time.RFC3339), inWords(end.Sub(now)), why[cause])
}

func callbackURLs(c *issue.CallbackSpec) string {
	if c == nil {
		return "none, because there is no --callback-url"
	}
	return strings.Join(c.URLs, ", ")
}

// inWords writes a duration as people do, rounded up to a second: "6 days 23 hours".
func inWords(d time.Duration) string {
	d = (d + time.Second - 1).Truncate(time.Second) // so that a new URL of one hour does not say 59 minutes
	var words []string
	for _, unit := range []struct {
		name string
		size time.Duration
	}{{"day", 24 * time.Hour}, {"hour", time.Hour}, {"minute", time.Minute}, {"second", time.Second}} {
		n := d / unit.size
		d -= n * unit.size
		switch {
		case n == 1:
			words = append(words, "1 "+unit.name)
		case n > 1:
			words = append(words, fmt.Sprintf("%d %ss", n, unit.name))
		}
	}
	if len(words) == 0 {
		return "no time"
	}
	return strings.Join(words, " ")
}
