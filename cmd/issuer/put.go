package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"upcall/internal/callbackspec"
	"upcall/internal/issue"
	"upcall/internal/presign"
	"upcall/internal/setting"
	"upcall/internal/uploadtoken"
)

// putCommand holds the flags as text: what is wrong with them is found by the checks
// that report everything at once, where kong stops at the first.
type putCommand struct {
	Bucket string `group:"upload" placeholder:"NAME" setting:"UPCALL_BUCKET" help:"The bucket. Required."`
	Key    string `group:"upload" placeholder:"KEY" setting:"UPCALL_KEY" help:"The object's key. Required."`

	Expires       string   `group:"upload" default:"1h" placeholder:"1h" setting:"UPCALL_EXPIRES" help:"How long the upload may begin: 1s to 7d. Default 1h."`
	ContentType   string   `group:"upload" placeholder:"TYPE" setting:"UPCALL_CONTENT_TYPE" help:"The only Content-Type that is accepted. Without it the uploader must send none."`
	ContentLength string   `group:"upload" placeholder:"BYTES" setting:"UPCALL_CONTENT_LENGTH" help:"The only size that is accepted."`
	ContentMD5    string   `group:"upload" name:"content-md5" placeholder:"BASE64" setting:"UPCALL_CONTENT_MD5" help:"The MD5 of the only content that is accepted."`
	StorageClass  string   `group:"upload" placeholder:"CLASS" setting:"UPCALL_STORAGE_CLASS" help:"Standard, IA, Archive, ColdArchive or DeepColdArchive."`
	ACL           string   `group:"upload" name:"acl" placeholder:"ACL" setting:"UPCALL_ACL" help:"default, private, public-read or public-read-write."`
	Meta          []string `group:"upload" sep:"none" placeholder:"NAME=VALUE" setting:"UPCALL_META" help:"User metadata. Repeatable."`
	Tag           []string `group:"upload" sep:"none" placeholder:"KEY=VALUE" setting:"UPCALL_TAG" help:"An object tag. Repeatable."`
	Header        []string `group:"upload" sep:"none" placeholder:"NAME=VALUE" setting:"UPCALL_HEADER" help:"A further x-oss-* header, or one that OSS stores, such as Cache-Control. Repeatable."`

	ForbidOverwrite bool `group:"upload" setting:"UPCALL_FORBID_OVERWRITE" help:"Refuse the upload if the key exists."`

	CallbackURL      []string `group:"callback" name:"callback-url" sep:"none" placeholder:"URL" setting:"UPCALL_CALLBACK_URL" help:"Where OSS reports the upload. Up to five times; they are tried in order. Without it nobody is told."`
	CallbackHost     string   `group:"callback" placeholder:"HOST" setting:"UPCALL_CALLBACK_HOST" help:"The callback's Host header, where it is not the URL's."`
	CallbackSNI      *bool    `group:"callback" name:"callback-sni" negatable:"" setting:"UPCALL_CALLBACK_SNI" help:"Send the server name over TLS. On for https."`
	CallbackBody     string   `group:"callback" placeholder:"TEMPLATE" setting:"UPCALL_CALLBACK_BODY" help:"A template of your own, with $${bucket}, $${x:name} and so on. The upload token is added where it is missing."`
	CallbackBodyType string   `group:"callback" default:"form" placeholder:"form" setting:"UPCALL_CALLBACK_BODY_TYPE" help:"form or json. Default form."`
	Var              []string `group:"callback" sep:"none" placeholder:"NAME=VALUE" setting:"UPCALL_VAR" help:"A custom variable, x:NAME in a template. Repeatable."`
	Carry            string   `group:"callback" default:"header" placeholder:"header" setting:"UPCALL_CARRY" help:"header or query: where the callback travels. Default header."`

	Region     string `group:"oss" placeholder:"REGION" setting:"OSS_REGION" help:"The bucket's region, as in cn-hangzhou. Required."`
	Endpoint   string `group:"oss" placeholder:"HOST" setting:"OSS_ENDPOINT" help:"Host or URL of OSS. By default it follows from the region."`
	Internal   bool   `group:"oss" setting:"UPCALL_INTERNAL" help:"Use the region's endpoint inside Alibaba Cloud."`
	Accelerate bool   `group:"oss" setting:"UPCALL_ACCELERATE" help:"Use the transfer-acceleration endpoint."`
	CName      bool   `group:"oss" name:"cname" setting:"UPCALL_CNAME" help:"The endpoint is a custom domain of the bucket."`
	PathStyle  bool   `group:"oss" setting:"UPCALL_PATH_STYLE" help:"Put the bucket into the path, for emulators. Implied where the endpoint is an IP address."`

	Format string `group:"output" default:"text" placeholder:"text" setting:"UPCALL_FORMAT" help:"text, for people, or json. Default text."`
}

// Help is shown below the summary of the command.
func (*putCommand) Help() string {
	return `A callback URL must be reachable from the Internet, as OSS calls it. Private addresses, localhost and names without a dot are taken only where the endpoint itself is one of those, that is, where it is an emulator.

The variable behind a flag is shown with it; the flag wins. A variable of a repeatable flag holds one value on each line.

The exit status is 2 if a setting is wrong, 1 if something else went wrong.`
}

// Run prints one issued upload. kong calls it.
func (c *putCommand) Run(ctx context.Context, env environment, std stdio) error {
	cfg, err := c.presignConfig(env)
	errs := []error{err, cfg.Check()}
	tokens, err := tokenKeys(env)
	errs = append(errs, err)
	request, err := c.request()
	errs = append(errs, err, request.Check(issue.Reach(cfg.Host()), tokens != nil))
	errs = append(errs, oneOf("--format", c.Format, "text", "json"))
	if err := errors.Join(errs...); err != nil {
		return usageError{err}
	}

	presigner, err := presign.New(cfg)
	if err != nil {
		return err
	}
	issuer, err := issue.New(issue.Config{Presigner: presigner, Tokens: tokens})
	if err != nil {
		return err
	}
	upload, err := issuer.Issue(ctx, request)
	if err != nil {
		return err
	}
	warn(std.err, request, tokens)
	if c.Format == "json" {
		return printJSON(std.out, upload)
	}
	return printText(std.out, request, upload, time.Now())
}

// presignConfig reads region, endpoint and credentials. The error is about what could
// not be read; what was read is still to be checked.
func (c *putCommand) presignConfig(env environment) (presign.Config, error) {
	cfg := presign.Config{Region: c.Region, Endpoint: c.Endpoint, Internal: c.Internal, Accelerate: c.Accelerate, CName: c.CName, PathStyle: c.PathStyle}
	var errs []error
	for _, secret := range []struct {
		name string
		to   *string
	}{
		{"OSS_ACCESS_KEY_ID", &cfg.AccessKeyID},
		{"OSS_ACCESS_KEY_SECRET", &cfg.AccessKeySecret},
		{"OSS_SESSION_TOKEN", &cfg.SessionToken},
	} {
		value, err := setting.Secret(env, secret.name)
		if err != nil {
			value = "unreadable" // said once, not again as missing
		}
		*secret.to = value
		errs = append(errs, err)
	}
	return cfg, errors.Join(errs...)
}

// tokenKeys returns nil where no keys are set.
func tokenKeys(env environment) (*uploadtoken.Keyring, error) {
	keys, err := setting.Secret(env, "UPCALL_TOKEN_KEYS")
	if err != nil || keys == "" {
		return nil, err
	}
	ring, err := uploadtoken.ParseKeys(keys)
	if err != nil {
		return nil, prefixEach("UPCALL_TOKEN_KEYS: ", err)
	}
	return ring, nil
}

// request turns the flags into a request. The error is about flags that cannot be
// read; the request holds the others, to be checked as well.
func (c *putCommand) request() (issue.Request, error) {
	var errs []error
	pairs := func(flag string, entries []string) map[string]string {
		m, err := parsePairs(flag, entries)
		errs = append(errs, err)
		return m
	}
	r := issue.Request{
		Object: presign.Object{
			Bucket: c.Bucket, Key: c.Key, ContentType: c.ContentType, StorageClass: c.StorageClass, ACL: c.ACL,
			Meta: pairs("--meta", c.Meta), Tags: pairs("--tag", c.Tag), Headers: pairs("--header", c.Header),
			ForbidOverwrite: c.ForbidOverwrite,
		},
		ContentMD5: c.ContentMD5,
	}
	var err error
	if r.Expires, err = parseExpires(c.Expires); err != nil {
		errs = append(errs, err)
		r.Expires = presign.MinExpires // said once
	}
	if c.ContentLength != "" {
		n, err := strconv.ParseInt(c.ContentLength, 10, 64)
		if err != nil {
			errs = append(errs, fmt.Errorf("--content-length: %q is not a number of bytes; write 1048576, say", c.ContentLength))
		} else {
			r.ContentLength = &n
		}
	}
	vars := pairs("--var", c.Var)
	errs = append(errs,
		oneOf("--callback-body-type", c.CallbackBodyType, "form", "json"),
		oneOf("--carry", c.Carry, "header", "query"))
	if len(c.CallbackURL) == 0 {
		return r, errors.Join(append(errs, c.checkNoCallback())...)
	}
	r.Callback = &issue.Callback{URLs: c.CallbackURL, Host: c.CallbackHost, SNI: c.CallbackSNI, Body: c.CallbackBody, Vars: vars, BodyType: callbackspec.Form}
	if c.CallbackBodyType == "json" {
		r.Callback.BodyType = callbackspec.JSON
	}
	if c.Carry == "query" {
		r.Callback.Carriage = presign.InQuery
	}
	return r, errors.Join(errs...)
}

// checkNoCallback refuses settings of a callback that would never be sent.
func (c *putCommand) checkNoCallback() error {
	var errs []error
	for _, flag := range []struct {
		name string
		set  bool
	}{
		{"--callback-host", c.CallbackHost != ""},
		{"--callback-sni", c.CallbackSNI != nil},
		{"--callback-body", c.CallbackBody != ""},
		{"--var", len(c.Var) > 0},
	} {
		if flag.set {
			errs = append(errs, fmt.Errorf("%s: there is no callback to use it; give --callback-url, or leave it out", flag.name))
		}
	}
	return errors.Join(errs...)
}

// parseExpires reads a Go duration or a number of days such as 7d.
func parseExpires(s string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil {
			return time.Duration(n) * 24 * time.Hour, nil
		}
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0, fmt.Errorf("--expires: %q is not a duration; write 90s, 15m, 1h or 7d", s)
	}
	return d, nil
}

// parsePairs reads name=value entries. What follows the first = is the value.
func parsePairs(flag string, entries []string) (map[string]string, error) {
	pairs := make(map[string]string, len(entries))
	var errs []error
	for _, entry := range entries {
		name, value, ok := strings.Cut(entry, "=")
		_, twice := pairs[name]
		switch {
		case !ok || name == "":
			errs = append(errs, fmt.Errorf("%s: %q is not name=value", flag, entry))
		case twice:
			errs = append(errs, fmt.Errorf("%s: %q is given twice; leave one out", flag, name))
		default:
			pairs[name] = value
		}
	}
	return pairs, errors.Join(errs...)
}

func oneOf(flag, value string, choices ...string) error {
	if slices.Contains(choices, value) {
		return nil
	}
	return fmt.Errorf("%s: %q is unknown; use %s", flag, value, strings.Join(choices, " or "))
}

// prefixEach says of each joined error where it came from.
func prefixEach(prefix string, err error) error {
	var errs []error
	for line := range strings.Lines(err.Error()) {
		errs = append(errs, errors.New(prefix+strings.TrimRight(line, "\n")))
	}
	return errors.Join(errs...)
}

// warn says what will be refused later, or is weak, though it can be issued.
func warn(w io.Writer, r issue.Request, tokens *uploadtoken.Keyring) {
	if r.Callback != nil && tokens == nil {
		fmt.Fprintln(w, "issuer: warning: no upload token: UPCALL_TOKEN_KEYS is not set, and a receiver refuses callbacks without a token unless it was told not to")
	}
	if tokens == nil {
		return
	}
	if ids := tokens.Weak(); len(ids) > 0 {
		fmt.Fprintf(w, "issuer: warning: the secrets of these token keys are shorter than %d bytes and can be guessed: %s\n",
			uploadtoken.WeakSecret, strings.Join(ids, ", "))
	}
}

func printJSON(w io.Writer, upload issue.Upload) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false) // the URL is full of ampersands
	if err := enc.Encode(upload); err != nil {
		return fmt.Errorf("write upload: %w", err)
	}
	return nil
}
