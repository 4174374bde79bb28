package main

import (
	"context"
	"encoding/json"
	"errors"
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

// putCommand holds the flags as text: what is wrong with them is found by the checks
// that report everything at once, where kong stops at the first.
type putCommand struct {
	objectFlags   `group:"upload"`
	ContentLength string `group:"upload" placeholder:"BYTES" setting:"UPCALL_CONTENT_LENGTH" help:"The only size accepted."`
	ContentMD5    string `group:"upload" name:"content-md5" placeholder:"BASE64" setting:"UPCALL_CONTENT_MD5" help:"${content_md5}"`
	callbackFlags `group:"callback"`
	ossFlags      `group:"oss"`

	Format string `group:"output" default:"text" placeholder:"text" setting:"UPCALL_FORMAT" help:"${put_format}"`
}

// Help is shown below the summary of the command.
func (*putCommand) Help() string {
	return `OSS calls the callback URL, so it must be reachable from the Internet. Private addresses, localhost
and names without a dot are taken only where the endpoint itself is one of those, that is, where it is an
emulator.

Where UPCALL_DATABASE_URL is set, the upload is written to the ledger there, upcall.issued_uploads, before
anything is printed. DATABASE_URL does not count for that: it may be another program's.

The variable behind a flag is shown with it; the flag wins. A variable of a repeatable flag holds one value
on each line.

The exit status is 2 if a setting is wrong, 1 if something else went wrong.`
}

// Run prints one issued upload. kong calls it.
func (c *putCommand) Run(ctx context.Context, env cli.Env, std cli.Stdio) error {
	cfg, ossErr := c.ossConfig(env)
	tokens, tokensErr := cli.TokenKeys("", env)
	ledger, closeLedger, ledgerErr := openLedger(ctx, env)
	defer closeLedger()
	request, requestErr := c.request()
	err := fault.Join(ossErr, cfg.Check(), tokensErr, ledgerErr, requestErr,
		request.Check(issue.CallbackHosts(cfg.Host()), tokens != nil), checkFormat(c.Format, request.Object))
	if err != nil {
		return cli.Usage(err)
	}

	issuer, err := newIssuer(cfg, tokens, ledger)
	if err != nil {
		return err
	}
	upload, cause, err := issuer.Issue(ctx, request)
	if err != nil {
		return blame(err)
	}
	warn(std.Err, request.Callback != nil, tokens)
	warnExpiry(std.Err, cause, upload.ExpiresAt, c.Expires)
	return printUpload(std.Out, c.Format, request, upload, cause)
}

func newIssuer(cfg oss.Config, tokens *uploadtoken.Keyring, ledger issue.Ledger) (*issue.Issuer, error) {
	client, err := oss.New(cfg)
	if err != nil {
		return nil, err
	}
	return issue.New(issue.Config{OSS: client, Tokens: tokens, Ledger: ledger})
}

// blame says that an error is about what the caller has set, if it is: credentials that
// have expired, say, come to light only where something is signed.
func blame(err error) error {
	if _, ok := errors.AsType[fault.Fault](err); ok {
		return cli.Usage(err)
	}
	return err
}

// request turns the flags into a request. The error is about flags that cannot be
// read; the request holds the others, to be checked as well.
func (c *putCommand) request() (issue.Request, error) {
	r := issue.Request{ContentMD5: c.ContentMD5}
	var objectErr, lengthErr, callbackErr error
	r.Object, r.Expires, objectErr = c.object()
	r.ContentLength, lengthErr = parseBytes("--content-length", c.ContentLength)
	r.Callback, callbackErr = c.callback()
	return r, fault.Join(objectErr, lengthErr, callbackErr)
}

// warn says what will be refused later, or is weak, though it can be issued.
func warn(w io.Writer, callback bool, tokens *uploadtoken.Keyring) {
	if callback && tokens == nil {
		fmt.Fprintln(w, "issuer: warning: no upload token: UPCALL_TOKEN_KEYS is not set, "+
			"and a receiver refuses callbacks without a token unless it was told not to")
	}
	if tokens == nil {
		return
	}
	if ids := tokens.Weak(); len(ids) > 0 {
		fmt.Fprintf(w, "issuer: warning: the secrets of these token keys are shorter than %d bytes and can be guessed: %s\n",
			uploadtoken.WeakSecret, strings.Join(ids, ", "))
	}
}

// warnExpiry says when it is not --expires that ends the URLs.
func warnExpiry(w io.Writer, cause oss.ExpiryCause, end time.Time, asked string) {
	switch cause {
	case oss.ExpiryOfCredentials:
		fmt.Fprintf(w, "issuer: note: the credentials end at %s, and the URL with them, before the %s of --expires\n",
			end.Format(time.RFC3339), asked)
	case oss.ExpiryUnknown:
		fmt.Fprintln(w, "issuer: note: the URL ends with the session token, if that is before --expires; "+
			"give --sts-expiration to have it counted in")
	}
}

func printJSON(w io.Writer, document any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false) // the URL is full of ampersands
	if err := enc.Encode(document); err != nil {
		return fmt.Errorf("write upload: %w", err)
	}
	return nil
}
