package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"upcall/internal/callbackspec"
	"upcall/internal/cli"
	"upcall/internal/fault"
	"upcall/internal/issue"
	"upcall/internal/manifest"
	"upcall/internal/oss"
	"upcall/internal/ossrule"
	"upcall/internal/uploader"
)

// maxSinglePut is the size of the largest file that one PUT sends, in bytes, unless a part
// size is given. Sending a smaller file again costs less than the extra requests of parts.
const maxSinglePut = 64 << 20

// An uploadIssuer issues the command's uploads with the command's credentials.
type uploadIssuer struct {
	issuer *issue.Issuer
	flags  *uploadCommand

	object   oss.Object // without a key
	expires  time.Duration
	callback *issue.CallbackSpec
	partSize int64 // 0 lets the issuer choose
	largest  int64 // bytes that one PUT sends
}

// makeManifests lets each job make its own manifest. The function closes the ledger. The
// error joins all mistakes.
func (c *uploadCommand) makeManifests(ctx context.Context, jobs []*uploadJob, env cli.Env, remarks io.Writer) (func(), error) {
	setup, closeLedger, setupErr := setUp(ctx, &c.OSSFlags, env)
	m, flagsErr := c.uploadIssuer()
	var jobErr error
	for _, job := range jobs {
		if jobErr = m.check(job, setup.hosts, setup.tokens != nil); jobErr != nil {
			break // the mistake is in the flags, so the next file has it too
		}
	}
	err := fault.Join(setupErr, flagsErr, c.checkKeys(), jobErr)
	if err != nil {
		return closeLedger, err
	}
	if m.issuer, err = setup.issuer(); err != nil {
		return closeLedger, err
	}
	for _, job := range jobs {
		job.task = func(ctx context.Context, _ *uploader.Uploader, w fileMeter) (uploader.Task, error) {
			return m.put(ctx, w, job)
		}
		if job.source.Size() <= m.largest {
			continue
		}
		// The same command finds the same state, with other credentials, too.
		where := c.OSSFlags
		where.CredentialFlags = cli.CredentialFlags{}
		state, err := c.state(env, job.name, c.keyOf(job.name), c.objectFlags, c.PartSize, c.callbackFlags, where)
		if err != nil {
			return closeLedger, err
		}
		job.task = func(ctx context.Context, up *uploader.Uploader, w fileMeter) (uploader.Task, error) {
			return m.multipart(ctx, up, w, job, state)
		}
	}
	warnRegion(remarks, c.Region)
	warn(remarks, m.callback != nil, setup.tokens)
	return closeLedger, nil
}

// uploadIssuer reads the flags. The error is about flags that cannot be read.
func (c *uploadCommand) uploadIssuer() (*uploadIssuer, error) {
	m := &uploadIssuer{flags: c, largest: maxSinglePut}
	var objectErr, callbackErr error
	m.object, m.expires, objectErr = c.object()
	m.callback, callbackErr = c.callback()
	partSize, err := parseBytes("--part-size", c.PartSize)
	switch {
	case partSize == nil:
	case *partSize < ossrule.MinPart || *partSize > ossrule.MaxPart:
		err = fault.At("--part-size", "%d is out of range; OSS allows %d to %d bytes",
			*partSize, ossrule.MinPart, int64(ossrule.MaxPart))
	default:
		m.partSize, m.largest = *partSize, *partSize
	}
	return m, fault.Join(objectErr, callbackErr, err)
}

// keyOf returns the key of a file's object.
func (c *uploadCommand) keyOf(name string) string {
	if strings.HasSuffix(c.Key, "/") {
		return c.Key + filepath.Base(name)
	}
	return c.Key
}

// checkKeys finds files that would overwrite each other.
func (c *uploadCommand) checkKeys() error {
	if len(c.Files) > 1 && c.Key != "" && !strings.HasSuffix(c.Key, "/") {
		return fault.At("--key", "%q is one key for %d files; end it in / to append their names", c.Key, len(c.Files))
	}
	taken := make(map[string]string)
	for _, name := range c.Files {
		key := c.keyOf(name)
		if other, ok := taken[key]; ok && c.Key != "" {
			return fmt.Errorf("the files %q and %q would get the same key %q; upload them one by one", other, name, key)
		}
		taken[key] = name
	}
	return nil
}

func (m *uploadIssuer) check(job *uploadJob, hosts callbackspec.Hosts, withToken bool) error {
	if job.source.Size() <= m.largest {
		return m.putRequest(job).Check(hosts, withToken)
	}
	return m.multipartRequest(job).Check(hosts, withToken)
}

func (m *uploadIssuer) putRequest(job *uploadJob) issue.Request {
	r := issue.Request{Object: m.object, Expires: m.expires, ContentLength: new(job.source.Size()), Callback: m.callback}
	r.Object.Key = m.flags.keyOf(job.name)
	return r
}

func (m *uploadIssuer) multipartRequest(job *uploadJob) issue.MultipartRequest {
	r := m.putRequest(job)
	return issue.MultipartRequest{Object: r.Object, Expires: r.Expires, Size: r.ContentLength, PartSize: m.partSize, Callback: r.Callback}
}

func (m *uploadIssuer) put(ctx context.Context, w fileMeter, job *uploadJob) (uploader.Task, error) {
	upload, cause, err := m.issuer.Issue(ctx, m.putRequest(job))
	if err != nil {
		return uploader.Task{}, err
	}
	warnExpiry(w.all, cause, upload.ExpiresAt, m.flags.Expires)
	return uploader.Task{Manifest: manifest.Manifest{Put: &upload}}, nil
}

// multipart resumes the upload that the same command started before, if that is possible.
// Otherwise it starts a new one.
func (m *uploadIssuer) multipart(ctx context.Context, up *uploader.Uploader, w fileMeter, job *uploadJob,
	state *uploader.State) (uploader.Task, error) {
	renew := func(ctx context.Context, old manifest.Multipart) (manifest.Multipart, error) {
		r := m.multipartRequest(job)
		r.PartSize = old.PartSize
		return m.issuer.RenewMultipart(ctx, r, old)
	}
	resumed, err := up.Resume(ctx, uploader.Task{Source: job.source, State: state, Watcher: w, Renew: renew})
	if err != nil {
		return uploader.Task{}, err
	}
	if !resumed {
		made, cause, err := m.issuer.IssueMultipart(ctx, m.multipartRequest(job))
		if err != nil {
			return uploader.Task{}, err
		}
		warnExpiry(w.all, cause, made.ExpiresAt, m.flags.Expires)
		state.Manifest = &made
		if err := state.Save(); err != nil { // without its state it could not be resumed
			return uploader.Task{}, errors.Join(err, m.issuer.AbortMultipart(ctx, made))
		}
	}
	return uploader.Task{Manifest: manifest.Manifest{Multipart: state.Manifest}, State: state, Renew: renew}, nil
}
