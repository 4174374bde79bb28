package main

import (
	"context"
	"fmt"
	"html"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"upcall/internal/cli"
	"upcall/internal/fault"
	"upcall/internal/issue"
	"upcall/internal/manifest"
	"upcall/internal/oss"
)

type formCommand struct {
	objectFlags   `group:"upload"`
	KeyPrefix     string `group:"upload" placeholder:"PREFIX/" setting:"UPCALL_KEY_PREFIX" help:"${key_prefix}"`
	MinSize       string `group:"upload" placeholder:"BYTES" setting:"UPCALL_MIN_SIZE" help:"The least size accepted. Default 0."`
	MaxSize       string `group:"upload" placeholder:"BYTES" setting:"UPCALL_MAX_SIZE" help:"The greatest size accepted. Required."`
	callbackFlags `group:"callback"`
	cli.OSSFlags  `group:"oss"`

	Format string `group:"output" default:"text" placeholder:"text" setting:"UPCALL_FORMAT" help:"text, json, or html for a page with the form."`
}

// Help is shown below the summary of the command.
func (*formCommand) Help() string {
	return `A web page sends the form to OSS: all fields first, then the file in the field file. OSS refuses a form
with a changed field.

With --key-prefix, the uploader chooses the rest of each key, may use the form for many files until it
expires, and may overwrite what is under the prefix: give each user a prefix of their own. The upload token
is then bound to the prefix, and receivers older than this program refuse it.

If UPCALL_DATABASE_URL is set, the upload is written to the ledger there, as with issuer put.`
}

// Run prints one form. kong calls it.
func (c *formCommand) Run(ctx context.Context, env cli.Env, std cli.Stdio) error {
	setup, closeLedger, setupErr := setUp(ctx, &c.OSSFlags, env)
	defer closeLedger()
	request, requestErr := c.request()
	if requestErr == nil {
		requestErr = request.Check(setup.hosts, setup.tokens != nil)
	}
	if err := fault.Join(setupErr, requestErr, oneOf("--format", c.Format, "text", "json", "html")); err != nil {
		return cli.Usage(err)
	}
	issuer, err := setup.issuer()
	if err != nil {
		return err
	}
	form, cause, err := issuer.IssueForm(ctx, request)
	if err != nil {
		return blame(err)
	}
	warnRegion(std.Err, c.Region)
	warn(std.Err, request.Callback != nil, setup.tokens)
	warnExpiry(std.Err, cause, form.ExpiresAt, c.Expires)
	switch c.Format {
	case "json":
		return printJSON(std.Out, form)
	case "html":
		return printForm(std.Out, form)
	}
	return write(std.Out, formText(form, request.Callback, cause, time.Now()))
}

// request turns the flags into a request. The error is about flags that cannot be read.
func (c *formCommand) request() (issue.FormRequest, error) {
	var r issue.FormRequest
	var faults fault.List
	var err error
	r.Object, r.Expires, err = c.object()
	faults.Add(err)
	r.Callback, err = c.callback()
	faults.Add(err)
	least, leastErr := parseBytes("--min-size", c.MinSize)
	most, mostErr := parseBytes("--max-size", c.MaxSize)
	faults.Add(leastErr, mostErr)
	if least != nil {
		r.MinSize = *least
	}
	switch {
	case most != nil:
		r.MaxSize = *most
	case mostErr == nil:
		faults.AddAt("--max-size", "is missing; give the most bytes that a file may have, say 10485760")
	}
	if c.KeyPrefix != "" {
		if c.Key != "" {
			faults.AddAt("--key-prefix", "is given together with --key; leave one out")
		}
		r.ByPrefix, r.Object.Key = true, c.KeyPrefix
	}
	return r, faults.Err()
}

// formText describes a form to a person.
func formText(f manifest.Form, callback *issue.CallbackSpec, cause oss.ExpiryCause, now time.Time) string {
	var b strings.Builder
	if f.KeyPrefix != "" {
		fmt.Fprintf(&b, "Objects   under %s in bucket %s\n", fault.Readable(f.KeyPrefix), f.Bucket)
	} else {
		fmt.Fprintf(&b, "Object    %s in bucket %s\n", fault.Readable(f.Key), f.Bucket)
	}
	fmt.Fprintf(&b, "Size      %d to %d bytes\nUpload    %s\nExpires   %s\nCallback  %s\n",
		f.MinSize, f.MaxSize, f.ID, expiry(f.ExpiresAt, cause, now), callbackURLs(callback))
	fmt.Fprintf(&b, "\n%s %s\n\nFields of the form, to be sent before the file:\n\n", f.Method, f.URL)
	for _, name := range slices.Sorted(maps.Keys(f.Fields)) {
		fmt.Fprintf(&b, "%s: %s\n", name, f.Fields[name])
	}
	b.WriteString("\nUpload the file named FILE:\n\ncurl -w '\\n%{http_code}\\n'")
	for _, name := range slices.Sorted(maps.Keys(f.Fields)) {
		fmt.Fprintf(&b, " \\\n  --form-string %s", quoteShell(name+"="+f.Fields[name]))
	}
	fmt.Fprintf(&b, " \\\n  -F file=@FILE %s\n", quoteShell(f.URL))
	return b.String()
}

func quoteShell(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }

// printForm writes a page with the form. The answer that the browser then shows is the receiver's.
func printForm(w io.Writer, f manifest.Form) error {
	var b strings.Builder
	b.WriteString("<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>Upload</title>\n")
	fmt.Fprintf(&b, "<form action=\"%s\" method=\"post\" enctype=\"multipart/form-data\">\n", html.EscapeString(f.URL))
	for _, name := range slices.Sorted(maps.Keys(f.Fields)) {
		fmt.Fprintf(&b, "<input type=\"hidden\" name=\"%s\" value=\"%s\">\n", html.EscapeString(name), html.EscapeString(f.Fields[name]))
	}
	b.WriteString("<input type=\"file\" name=\"file\" required>\n<button>Upload</button>\n</form>\n</html>\n")
	return write(w, b.String())
}
