package main

import (
	"fmt"
	"io"
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

// printText shows an upload to a person, with a command to paste.
func printText(w io.Writer, r issue.Request, u manifest.Upload, cause oss.ExpiryCause, now time.Time) error {
	var b strings.Builder
	fmt.Fprintf(&b, "Object    %s in bucket %s\n", fault.Readable(r.Object.Key), r.Object.Bucket)
	fmt.Fprintf(&b, "Upload    %s\n", u.ID)
	fmt.Fprintf(&b, "Expires   %s\n", expiry(u.ExpiresAt, cause, now))
	fmt.Fprintf(&b, "Callback  %s\n", callbackURLs(r.Callback))
	fmt.Fprintf(&b, "\n%s %s\n", u.Method, u.URL)
	names := slices.Sorted(maps.Keys(u.Headers))
	if len(names) > 0 {
		b.WriteString("\nHeaders, each to be sent exactly so:\n\n")
		for _, name := range names {
			fmt.Fprintf(&b, "%s: %s\n", name, u.Headers[name])
		}
	}
	curl := snippet.Curl(u.Request(), "FILE")
	fmt.Fprintf(&b, "\nUpload the file named FILE:\n\n%s\n", curl)
	if r.Callback != nil {
		b.WriteString("\nThe last line that curl prints is the status. 200: stored and reported, and above it is the\n" +
			"receiver's answer. 203 looks like success to curl, but is CallbackFailed: stored, not reported.\n")
	}
	if _, err := io.WriteString(w, b.String()); err != nil {
		return fmt.Errorf("write upload: %w", err)
	}
	return nil
}

// expiry says when a URL ends and what ends it.
func expiry(end time.Time, cause oss.ExpiryCause, now time.Time) string {
	why := map[oss.ExpiryCause]string{
		oss.ExpiryRequested:     "as asked for",
		oss.ExpiryOfCredentials: "when the credentials end",
		oss.ExpiryUnknown:       "or earlier, with the session token",
	}
	return fmt.Sprintf("%s (in %s, %s)", end.Format(time.RFC3339), inWords(end.Sub(now)), why[cause])
}

func callbackURLs(c *issue.CallbackSpec) string {
	if c == nil {
		return "none: no callback will come, as there is no --callback-url"
	}
	return strings.Join(c.URLs, ", ")
}

// inWords says a duration as people do, in seconds begun: "6 days 23 hours".
func inWords(d time.Duration) string {
	d = (d + time.Second - 1).Truncate(time.Second) // a URL of one hour is not one of 59 minutes at once
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
