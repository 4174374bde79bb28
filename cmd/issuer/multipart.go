package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc64"
	"io"
	"os"
	"strconv"
	"time"

	"upcall/internal/cli"
	"upcall/internal/fault"
	"upcall/internal/issue"
	"upcall/internal/manifest"
	"upcall/internal/oss"
	"upcall/internal/uploader"
)

type multipartCommand struct {
	Create   multipartCreateCommand   `cmd:"" help:"Initiate a multipart upload and presign each of its requests."`
	Complete multipartCompleteCommand `cmd:"" help:"Complete the multipart upload and print the callback's result."`
	Abort    multipartAbortCommand    `cmd:"" help:"Abort a multipart upload and discard its parts."`
}

type multipartCreateCommand struct {
	objectFlags   `group:"upload"`
	Size          string `group:"upload" placeholder:"BYTES" setting:"UPCALL_SIZE" help:"${size}"`
	PartSize      string `group:"upload" placeholder:"BYTES" setting:"UPCALL_PART_SIZE" help:"${part_size}"`
	Parts         string `group:"upload" placeholder:"NUMBER" setting:"UPCALL_PARTS" help:"${parts}"`
	callbackFlags `group:"callback"`
	cli.OSSFlags  `group:"oss"`

	Manifest string `group:"output" placeholder:"FILE" setting:"UPCALL_MANIFEST" help:"${new_manifest}"`
	Format   string `group:"output" default:"json" placeholder:"json" setting:"UPCALL_FORMAT" help:"${manifest_format}"`
}

// Help is shown below the summary of the command.
func (*multipartCreateCommand) Help() string {
	return `The manifest holds the URLs to upload each part, to list the parts, to complete the upload, which sends
the callback, and to abort it. Anyone who has it can upload until it expires. Everything is checked before
the upload is initiated; if it cannot be presigned, entered in the ledger or printed then, it is aborted.

If UPCALL_DATABASE_URL is set, the upload is written to the ledger there, as with issuer put.

Without --content-type the object's type follows from the extension of its key.`
}

// Run initiates one upload and prints its manifest. kong calls it.
func (c *multipartCreateCommand) Run(ctx context.Context, env cli.Env, std cli.Stdio) error {
	setup, closeLedger, setupErr := setUp(ctx, &c.OSSFlags, env)
	defer closeLedger()
	request, requestErr := c.request()
	if requestErr == nil {
		requestErr = request.Check(setup.hosts, setup.tokens != nil)
	}
	if err := fault.Join(setupErr, requestErr, c.checkOutput()); err != nil {
		return cli.Usage(err)
	}
	issuer, err := setup.issuer()
	if err != nil {
		return err
	}
	file, err := c.openManifest()
	if err != nil {
		return cli.Usage(err)
	}
	m, cause, err := issuer.IssueMultipart(ctx, request)
	if err != nil {
		return errors.Join(blame(err), discard(file))
	}
	warnRegion(std.Err, c.Region)
	warn(std.Err, request.Callback != nil, setup.tokens)
	warnExpiry(std.Err, cause, m.ExpiresAt, c.Expires)
	if err := c.print(std.Out, file, request, m, cause); err != nil { // without its manifest the upload is useless
		return errors.Join(err, issuer.AbortMultipart(ctx, m), discard(file))
	}
	return nil
}

func (c *multipartCreateCommand) checkOutput() error {
	err := oneOf("--format", c.Format, "json", "text")
	if c.Format == "text" && c.Manifest == "" {
		err = fault.At("--format", "text holds no URLs; give --manifest FILE to keep them in")
	}
	return err
}

// openManifest returns nil if no file is named. The file must be new: an upload whose
// manifest is overwritten can no longer be completed.
func (c *multipartCreateCommand) openManifest() (*os.File, error) {
	if c.Manifest == "" {
		return nil, nil
	}
	file, err := os.OpenFile(c.Manifest, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	return file, fault.In("--manifest", err)
}

// discard removes a manifest file that stayed empty.
func discard(file *os.File) error {
	if file == nil {
		return nil
	}
	file.Close() // its error is not worth reporting
	return os.Remove(file.Name())
}

func (c *multipartCreateCommand) print(w io.Writer, file *os.File, r issue.MultipartRequest, m manifest.Multipart,
	cause oss.ExpiryCause) error {
	if file != nil {
		if err := errors.Join(printJSON(file, m), file.Close()); err != nil {
			return err
		}
	}
	if c.Format == "json" {
		return printJSON(w, m)
	}
	return write(w, manifestText(r, m, cause, c.Manifest, time.Now()))
}

// request turns the flags into a request. The error is about flags that cannot be read.
func (c *multipartCreateCommand) request() (issue.MultipartRequest, error) {
	var r issue.MultipartRequest
	var objectErr, sizeErr, partsErr, callbackErr error
	r.Object, r.Expires, objectErr = c.object()
	r.Size, sizeErr = parseBytes("--size", c.Size)
	partSize, partSizeErr := parseBytes("--part-size", c.PartSize)
	if partSize != nil {
		if r.PartSize = *partSize; r.PartSize == 0 {
			partSizeErr = fault.At("--part-size", "0 is too small; OSS allows 102400 and more")
		}
	}
	if c.Parts != "" {
		if r.Parts, partsErr = strconv.Atoi(c.Parts); partsErr != nil || r.Parts < 1 {
			partsErr = fault.At("--parts", "%q is not a number of parts; OSS allows 1 to 10000", c.Parts)
		}
	}
	r.Callback, callbackErr = c.callback()
	return r, fault.Join(objectErr, sizeErr, partSizeErr, partsErr, callbackErr)
}

// manifestFlags name an upload that multipart create made.
type manifestFlags struct {
	Manifest string `group:"upload" placeholder:"FILE" setting:"UPCALL_MANIFEST" help:"${created_manifest}"`
}

func (f *manifestFlags) read(std cli.Stdio) (manifest.Multipart, error) {
	if f.Manifest == "" {
		return manifest.Multipart{}, fault.At("--manifest", "is required; name the file with the output of multipart create")
	}
	m, err := readManifest(f.Manifest, std.In)
	if err == nil && m.Multipart == nil {
		err = fmt.Errorf("%w: it is an upload by one PUT, which needs no completion", manifest.ErrManifest)
	}
	if err != nil {
		return manifest.Multipart{}, fault.In("--manifest", err)
	}
	return *m.Multipart, nil
}

type multipartCompleteCommand struct {
	manifestFlags
	CRC64        string `group:"upload" name:"crc64" placeholder:"NUMBER" setting:"UPCALL_CRC64" help:"${crc64}"`
	File         string `group:"upload" placeholder:"FILE" setting:"UPCALL_FILE" help:"${uploaded_file}"`
	cli.OSSFlags `group:"oss"`

	Format string `group:"output" default:"text" placeholder:"text" setting:"UPCALL_FORMAT" help:"text or json."`
}

// Help is shown below the summary of the command.
func (*multipartCompleteCommand) Help() string {
	return `The parts are those that OSS lists. If some are missing, have the wrong size or do not make the expected
CRC-64, the upload is not completed. The CRC-64 of the object is compared afterwards.

The exit status is also 1 if the object is stored but its callback failed (203 CallbackFailed).`
}

// Run completes one upload and prints the callback's answer. kong calls it.
func (c *multipartCompleteCommand) Run(ctx context.Context, env cli.Env, std cli.Stdio) error {
	cfg, ossErr := c.OSSFlags.Config(env)
	formatErr := oneOf("--format", c.Format, "text", "json")
	m, manifestErr := c.read(std)
	want, crcErr := c.expectedCRC64()
	if err := fault.Join(ossErr, formatErr, manifestErr, crcErr); err != nil {
		return cli.Usage(err)
	}
	issuer, err := setup{oss: cfg}.issuer() // the upload has its token and its ledger row already
	if err != nil {
		return err
	}
	renewed, err := issuer.Renew(ctx, m)
	if err != nil {
		return blame(err)
	}
	up, err := uploader.New(uploader.Config{Parallel: 1, Attempts: 8, Signs: true})
	if err != nil {
		return err
	}
	done, err := up.Complete(ctx, &renewed, want, newMeter(std.Err, 0, false).file(m.Key))
	if err != nil && done.ETag == "" { // nothing is stored
		return err
	}
	if c.Format == "json" {
		return errors.Join(err, printCompletedJSON(std.Out, m, done))
	}
	return errors.Join(err, write(std.Out, completedText(m, done, want != nil && err == nil)))
}

// expectedCRC64 is nil if no flag gives it.
func (c *multipartCompleteCommand) expectedCRC64() (*uint64, error) {
	switch {
	case c.CRC64 != "" && c.File != "":
		return nil, fault.At("--crc64, --file", "both are given; leave one out")
	case c.CRC64 != "":
		n, err := strconv.ParseUint(c.CRC64, 10, 64)
		if err != nil {
			return nil, fault.At("--crc64", "%q is not a CRC-64 in decimal", c.CRC64)
		}
		return &n, nil
	case c.File == "":
		return nil, nil
	}
	file, err := os.Open(c.File)
	if err != nil {
		return nil, fault.In("--file", err)
	}
	defer file.Close()
	sum := crc64.New(crc64.MakeTable(crc64.ECMA))
	if _, err := io.Copy(sum, file); err != nil {
		return nil, fault.In("--file", err)
	}
	return new(sum.Sum64()), nil
}

type multipartAbortCommand struct {
	manifestFlags
	cli.OSSFlags `group:"oss"`
}

// Run aborts one upload. kong calls it.
func (c *multipartAbortCommand) Run(ctx context.Context, env cli.Env, std cli.Stdio) error {
	cfg, ossErr := c.OSSFlags.Config(env)
	m, manifestErr := c.read(std)
	if err := fault.Join(ossErr, manifestErr); err != nil {
		return cli.Usage(err)
	}
	issuer, err := setup{oss: cfg}.issuer()
	if err != nil {
		return err
	}
	err = issuer.AbortMultipart(ctx, m)
	if answer, ok := errors.AsType[*oss.ServiceError](err); ok && answer.Code == "NoSuchUpload" {
		return fmt.Errorf("%w; it was completed or aborted before: check whether the object exists", err)
	}
	if err != nil {
		return blame(err)
	}
	return write(std.Out, fmt.Sprintf("Aborted the upload of %s to bucket %s.\n", fault.Readable(m.Key), m.Bucket))
}

// completedJSON is what multipart complete prints as JSON. The CRC-64 is text because many
// JSON readers round numbers of that length.
type completedJSON struct {
	UploadID string  `json:"upload_id"`
	Bucket   string  `json:"bucket"`
	Key      string  `json:"key"`
	Size     int64   `json:"size"`
	Parts    int     `json:"parts"`
	ETag     string  `json:"etag"`
	CRC64    *string `json:"crc64"`

	// Answer is the callback receiver's, unchanged; null without a callback.
	Answer json.RawMessage `json:"answer"`
}

func printCompletedJSON(w io.Writer, m manifest.Multipart, done uploader.Result) error {
	document := completedJSON{
		UploadID: m.ID.String(), Bucket: m.Bucket, Key: m.Key, Size: done.Size, Parts: done.Parts, ETag: done.ETag, Answer: done.Answer,
	}
	if done.CRC64 != 0 { // 0 with an error if OSS did not send it
		document.CRC64 = new(strconv.FormatUint(done.CRC64, 10))
	}
	return printJSON(w, document)
}
