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

// singleUpTo is the largest file that goes by one PUT, in bytes, unless a part size is
// given. Below it, sending again costs less than the further requests of parts.
const singleUpTo = 64 << 20

// An uploadIssuer issues the uploads of the command, with the credentials that it has.
type uploadIssuer struct {
	issuer *issue.Issuer
	flags  *uploadCommand

	object   oss.Object // without a key
	expires  time.Duration
	callback *issue.CallbackSpec
	partSize int64 // 0 lets the issuer choose
	largest  int64 // bytes that go by one PUT
}

// makeManifests lets each job make its own manifest. The error joins all mistakes.
func (c *uploadCommand) makeManifests(jobs []*uploadJob, env cli.Env, ledger issue.Ledger, remarks io.Writer) error {
	cfg, ossErr := c.ossConfig(env)
	tokens, tokensErr := cli.TokenKeys("", env)
	m, flagsErr := c.uploadIssuer()
	var jobErr error
	for _, job := range jobs {
		if jobErr = m.check(job, issue.CallbackHosts(cfg.Host()), tokens != nil); jobErr != nil {
			break // of the flags, so it would be the same for the next file
		}
	}
	err := fault.Join(ossErr, cfg.Check(), tokensErr, flagsErr, c.checkKeys(), jobErr)
	if err != nil {
		return err
	}
	if m.issuer, err = newIssuer(cfg, tokens, ledger); err != nil {
		return err
	}
	for _, job := range jobs {
		job.task = func(ctx context.Context, _ *uploader.Uploader, w fileMeter) (uploader.Task, error) {
			return m.put(ctx, w, job)
		}
		if job.source.Size() <= m.largest {
			continue
		}
		state, err := c.ownState(env, job.name)
		if err != nil {
			return err
		}
		job.task = func(ctx context.Context, up *uploader.Uploader, w fileMeter) (uploader.Task, error) {
			return m.multipart(ctx, up, w, job, state)
		}
	}
	warn(remarks, m.callback != nil, tokens)
	return nil
}

// uploadIssuer reads the flags. The error is about flags that cannot be read.
func (c *uploadCommand) uploadIssuer() (*uploadIssuer, error) {
	m := &uploadIssuer{flags: c, largest: singleUpTo}
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

// keyOf is the key of a file's object.
func (c *uploadCommand) keyOf(name string) string {
	if strings.HasSuffix(c.Key, "/") {
		return c.Key + filepath.Base(name)
	}
	return c.Key
}

// checkKeys refuses what would upload one file over another.
func (c *uploadCommand) checkKeys() error {
	if len(c.Files) > 1 && c.Key != "" && !strings.HasSuffix(c.Key, "/") {
		return fault.At("--key", "%q is one key for %d files; end it in / to get their names put behind it", c.Key, len(c.Files))
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
	size := job.source.Size()
	r := issue.Request{Object: m.object, Expires: m.expires, ContentLength: &size, Callback: m.callback}
	r.Object.Key = m.flags.keyOf(job.name)
	return r
}

func (m *uploadIssuer) multipartRequest(job *uploadJob) issue.MultipartRequest {
	size := job.source.Size()
	r := issue.MultipartRequest{Object: m.object, Expires: m.expires, Size: &size, PartSize: m.partSize, Callback: m.callback}
	r.Object.Key = m.flags.keyOf(job.name)
	return r
}

func (m *uploadIssuer) put(ctx context.Context, w fileMeter, job *uploadJob) (uploader.Task, error) {
	upload, cause, err := m.issuer.Issue(ctx, m.putRequest(job))
	if err != nil {
		return uploader.Task{}, err
	}
	warnExpiry(w.all, cause, upload.ExpiresAt, m.flags.Expires)
	return uploader.Task{Manifest: manifest.Manifest{Put: &upload}}, nil
}

// multipart resumes the upload that the same command began before, if that is
// possible, and begins one otherwise.
func (m *uploadIssuer) multipart(ctx context.Context, up *uploader.Uploader, w fileMeter, job *uploadJob,
	state *uploader.State) (uploader.Task, error) {
	resumed, err := up.Resume(ctx, uploader.Task{Source: job.source, State: state, Watcher: w}, m.issuer.Renew)
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
		if err := state.Save(); err != nil { // it could not be resumed after a kill
			return uploader.Task{}, errors.Join(err, m.issuer.AbortMultipart(ctx, made))
		}
	}
	return uploader.Task{Manifest: manifest.Manifest{Multipart: state.Manifest}, State: state}, nil
}
