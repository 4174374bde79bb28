package main

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"time"

	"github.com/google/uuid"

	"upcall/internal/check"
	"upcall/internal/cli"
	"upcall/internal/eventstore"
	"upcall/internal/fault"
	"upcall/internal/issue"
	"upcall/internal/oss"
)

// checkCommand uploads one object to find out what is wrong.
type checkCommand struct {
	Bucket    string `group:"upload" placeholder:"NAME" setting:"UPCALL_BUCKET" help:"The bucket. Required."`
	KeyPrefix string `group:"upload" default:"upcall-check/" placeholder:"PREFIX" setting:"UPCALL_KEY_PREFIX" help:"${check_prefix}"`
	Origin    string `group:"upload" placeholder:"ORIGIN" setting:"UPCALL_ORIGIN" help:"${check_origin}"`

	callbackFlags `group:"callback"`
	cli.OSSFlags  `group:"oss"`

	Format string `group:"output" default:"text" placeholder:"text" help:"text or json."`
}

// Help is shown below the summary of the command.
func (*checkCommand) Help() string {
	return `Puts a small object into the bucket, with a callback, and names the first link that fails: endpoint, clock,
credentials, region, bucket, permission, CORS (with --origin), callback URL, TLS and SNI, token keys, receiver or
database. Each link has a line: ok, what to do, or unknown if a link before it failed.

It is a real upload: the receiver records it. With UPCALL_DATABASE_URL the check also finds the row, or the reason
why a receiver refused the callback. The object is deleted at the end if the credentials allow that
(oss:DeleteObject), and otherwise named.

The exit status is 0 if no link failed, 1 if one did, and 2 if a setting is wrong.`
}

// checkExpires is how long the URL of the check is valid.
const checkExpires = 10 * time.Minute

// Run makes the check. kong calls it.
func (c *checkCommand) Run(ctx context.Context, env cli.Env, std cli.Stdio) error {
	setup, closeLedger, setupErr := setUp(ctx, &c.OSSFlags, env)
	defer closeLedger()
	request, requestErr := c.request()
	err := fault.Join(setupErr, requestErr, request.Check(setup.hosts, setup.tokens != nil), oneOf("--format", c.Format, "text", "json"))
	if err != nil {
		return cli.Usage(err)
	}
	client, err := oss.New(setup.oss)
	if err != nil {
		return err
	}
	issuer, err := issue.New(issue.Config{OSS: client, Tokens: setup.tokens, Ledger: setup.ledger})
	if err != nil {
		return err
	}
	cfg := check.Config{OSS: client, Issuer: issuer, Upload: request, Tokens: setup.tokens != nil, Origin: c.Origin}
	if setup.ledger != nil {
		url, err := cli.Secret("", env, "UPCALL_DATABASE_URL")
		if err != nil {
			return cli.Usage(err)
		}
		pool, err := eventstore.Open(ctx, url)
		if err != nil {
			return err
		}
		defer pool.Close()
		cfg.Store = eventstore.NewUploads(pool)
	}
	warnRegion(std.Err, c.Region)
	report := check.Run(ctx, cfg)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := printReport(std, c.Format, report); err != nil {
		return err
	}
	if report.Failed != "" {
		return fmt.Errorf("the check failed at the link %q", report.Failed)
	}
	return nil
}

// request returns the upload of the check.
func (c *checkCommand) request() (issue.Request, error) {
	r := issue.Request{Expires: checkExpires, ContentLength: new(int64(check.Size))}
	id, err := uuid.NewV7()
	if err != nil {
		return r, fmt.Errorf("make object key: %w", err)
	}
	r.Object = oss.Object{Bucket: c.Bucket, Key: c.KeyPrefix + id.String() + ".txt", ContentType: "text/plain"}
	var faults fault.List
	r.Callback, err = c.callback()
	faults.Add(err)
	if r.Callback == nil {
		faults.AddAt("--callback-url", "is missing; give the URL of the receiver")
	}
	if u, err := url.Parse(c.Origin); c.Origin != "" && (err != nil || u.Host == "" || u.Scheme+"://"+u.Host != c.Origin) {
		faults.AddAt("--origin", "%q is not an origin; write https://app.example.com, without a path", c.Origin)
	}
	return r, faults.Err()
}

func printReport(std cli.Stdio, format string, r check.Report) error {
	if format == "json" {
		return printJSON(std.Out, r)
	}
	for _, link := range r.Links {
		status := map[check.Status]string{check.OK: "ok", check.Failed: "FAILED", check.Unknown: "unknown"}[link.Status]
		if err := writeLink(std.Out, status, link); err != nil {
			return err
		}
	}
	if r.Left != "" {
		fmt.Fprintf(std.Err, "issuer: note: the object %s stays in the bucket %s, because it could not be deleted: %s\n",
			fault.Readable(r.Key), r.Bucket, r.Left)
	}
	return nil
}

func writeLink(w io.Writer, status string, link check.Link) error {
	if link.Detail == "" {
		return write(w, fmt.Sprintf("%-8s %s\n", status, link.Name))
	}
	return write(w, fmt.Sprintf("%-8s %-12s  %s\n", status, link.Name, link.Detail))
}
