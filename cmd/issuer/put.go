package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"upcall/internal/cli"
	"upcall/internal/fault"
	"upcall/internal/issue"
	"upcall/internal/oss"
	"upcall/internal/uploadtoken"
)

// putCommand holds some flags as text, because kong would stop at the first that it cannot
// read; the checks here report all mistakes at once.
type putCommand struct {
	objectFlags   `group:"upload"`
	ContentLength string `group:"upload" placeholder:"BYTES" setting:"UPCALL_CONTENT_LENGTH" help:"The only size accepted."`
	ContentMD5    string `group:"upload" name:"content-md5" placeholder:"BASE64" setting:"UPCALL_CONTENT_MD5" help:"${content_md5}"`
	callbackFlags `group:"callback"`
	cli.OSSFlags  `group:"oss"`

	Format string `group:"output" default:"text" placeholder:"text" setting:"UPCALL_FORMAT" help:"${put_format}"`
}

// Help is shown below the summary of the command.
func (*putCommand) Help() string {
	return `OSS calls the callback URL, so it must be reachable from the Internet. Private addresses, localhost
and names without a dot are accepted only if the endpoint itself is one of those, as an emulator's is.

If UPCALL_DATABASE_URL is set, the upload is written to the ledger there, upcall.issued_uploads, before
anything is printed. DATABASE_URL is ignored here because it may belong to another program.

The variable of a flag is shown with it; the flag wins. The variable of a repeatable flag holds one value on
each line.

The exit status is 2 if a setting is wrong, 1 if anything else went wrong.`
}

// Run prints one issued upload. kong calls it.
func (c *putCommand) Run(ctx context.Context, env cli.Env, std cli.Stdio) error {
	setup, closeLedger, setupErr := setUp(ctx, &c.OSSFlags, env)
	defer closeLedger()
	request, requestErr := c.request()
	err := fault.Join(setupErr, requestErr, request.Check(setup.hosts, setup.tokens != nil), checkFormat(c.Format, request.Object))
	if err != nil {
		return cli.Usage(err)
	}
	issuer, err := setup.issuer()
	if err != nil {
		return err
	}
	upload, cause, err := issuer.Issue(ctx, request)
	if err != nil {
		return blame(err)
	}
	warnRegion(std.Err, c.Region)
	warn(std.Err, request.Callback != nil, setup.tokens)
	warnExpiry(std.Err, cause, upload.ExpiresAt, c.Expires)
	if c.ContentType == "" && (c.Format == "text" || c.Format == "json") {
		fmt.Fprint(std.Err, contentTypeNote)
	}
	return printUpload(std.Out, c.Format, request, upload, cause)
}

// request turns the flags into a request. The error is about flags that cannot be read;
// the request holds the others, for their own checks.
func (c *putCommand) request() (issue.Request, error) {
	r := issue.Request{ContentMD5: c.ContentMD5}
	var objectErr, lengthErr, callbackErr error
	r.Object, r.Expires, objectErr = c.object()
	r.ContentLength, lengthErr = parseBytes("--content-length", c.ContentLength)
	r.Callback, callbackErr = c.callback()
	return r, fault.Join(objectErr, lengthErr, callbackErr)
}

// warn reports weak token keys, and uploads that a receiver will refuse although they can be
// issued.
func warn(w io.Writer, callback bool, tokens *uploadtoken.Keyring) {
	if tokens == nil {
		if callback {
			fmt.Fprintln(w, "issuer: warning: UPCALL_TOKEN_KEYS is not set, so there is no upload token; "+
				"by default a receiver refuses callbacks without one")
		}
		return
	}
	if ids := tokens.Weak(); len(ids) > 0 {
		fmt.Fprintf(w, "issuer: warning: the secrets of these token keys can be guessed, being shorter than %d bytes or of few "+
			"different characters; a receiver that requires tokens does not start with them: %s\n",
			uploadtoken.WeakSecret, strings.Join(ids, ", "))
	}
}

// warnRegion names a region that OSS is not known to have. It may be new.
func warnRegion(w io.Writer, region string) {
	known, instead := oss.KnownRegion(region)
	switch {
	case known:
	case instead != "":
		fmt.Fprintf(w, "issuer: warning: OSS is not known to have the region %q; did you mean %s?\n", region, instead)
	default:
		fmt.Fprintf(w, "issuer: warning: OSS is not known to have the region %q; OSS refuses a signature for the wrong one\n", region)
	}
}

// warnExpiry reports if the URLs may end before --expires.
func warnExpiry(w io.Writer, cause oss.ExpiryCause, end time.Time, asked string) {
	switch cause {
	case oss.ExpiryOfCredentials:
		fmt.Fprintf(w, "issuer: note: the credentials end at %s, and the URL with them, before the %s of --expires\n",
			end.Format(time.RFC3339), asked)
	case oss.ExpiryUnknown:
		fmt.Fprintln(w, "issuer: note: the URL ends with the session token if that ends before --expires; "+
			"give --sts-expiration to say when it does")
	}
}

// contentTypeNote is for URLs without a content type, which some clients cannot use. The
// programs that --format writes send what was signed.
const contentTypeNote = "issuer: note: without --content-type the uploader must send no Content-Type; " +
	"wget, HTTPie, axios, Python's urllib, PHP's streams and Perl's HTTP::Tiny add one of their own, and OSS answers 403\n"

func printJSON(w io.Writer, document any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false) // the URL is full of ampersands
	if err := enc.Encode(document); err != nil {
		return fmt.Errorf("write output: %w", err)
	}
	return nil
}

func write(w io.Writer, text string) error {
	if _, err := io.WriteString(w, text); err != nil {
		return fmt.Errorf("write output: %w", err)
	}
	return nil
}
