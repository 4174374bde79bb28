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
	"upcall/internal/issue"
	"upcall/internal/manifest"
	"upcall/internal/oss"
	"upcall/internal/ossrule"
	"upcall/internal/uploader"
)

// singleUpTo is the largest file that goes by one PUT, in bytes, unless a part size is
// given. Below it, sending again costs less than the further requests of parts.
const singleUpTo = 64 << 20

// timeToGoOn is how long the URLs of a broken-off upload must live to be used again.
const timeToGoOn = time.Minute

// A maker makes manifests with the credentials that the command has.
type maker struct {
	issuer *issue.Issuer
	flags  *uploadCommand

	object   oss.Object // without a key
	expires  time.Duration
	callback *issue.Callback
	partSize int64 // 0 lets the issuer choose
	largest  int64 // bytes that go by one PUT
}

// makeManifests lets each job make its own manifest. The error joins all mistakes.
func (c *uploadCommand) makeManifests(jobs []*uploadJob, env cli.Env, ledger issue.Ledger, remarks io.Writer) error {
	cfg, err := c.presignConfig(env)
	errs := []error{err, cfg.Check()}
	tokens, err := cli.TokenKeys("", env)
	errs = append(errs, err)
	m, err := c.maker()
	errs = append(errs, err, c.checkKeys())
	for _, job := range jobs {
		if err := m.check(job, issue.Reach(cfg.Host()), tokens != nil); err != nil {
			errs = append(errs, err)
			break // of the flags, so it would be the same for the next file
		}
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if m.issuer, err = newIssuer(cfg, tokens, ledger); err != nil {
		return err
	}
	for _, job := range jobs {
		job.task = func(ctx context.Context, w io.Writer) (uploader.Task, error) { return m.put(ctx, w, job) }
		if job.source.Size() <= m.largest {
			continue
		}
		state, err := c.ownState(env, job.name)
		if err != nil {
			return err
		}
		job.task = func(ctx context.Context, w io.Writer) (uploader.Task, error) { return m.multipart(ctx, w, job, state) }
	}
	warn(remarks, m.callback != nil, tokens)
	return nil
}

// maker reads the flags. The error is about flags that cannot be read.
func (c *uploadCommand) maker() (*maker, error) {
	m := &maker{flags: c, largest: singleUpTo}
	var objectErr, callbackErr error
	m.object, m.expires, objectErr = c.object()
	m.callback, callbackErr = c.callback()
	partSize, err := parseBytes("--part-size", c.PartSize)
	switch {
	case partSize == nil:
	case *partSize < ossrule.MinPart || *partSize > ossrule.MaxPart:
		err = fmt.Errorf("--part-size: %d is out of range; OSS allows %d to %d bytes", *partSize, ossrule.MinPart, int64(ossrule.MaxPart))
	default:
		m.partSize, m.largest = *partSize, *partSize
	}
	return m, errors.Join(objectErr, callbackErr, err)
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
		return fmt.Errorf("--key: %q is one key for %d files; end it in / to get their names put behind it", c.Key, len(c.Files))
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

func (m *maker) check(job *uploadJob, reach callbackspec.Reach, withToken bool) error {
	if job.source.Size() <= m.largest {
		return m.putRequest(job).Check(reach, withToken)
	}
	return m.multipartRequest(job).Check(reach, withToken)
}

func (m *maker) putRequest(job *uploadJob) issue.Request {
	size := job.source.Size()
	r := issue.Request{Object: m.object, Expires: m.expires, ContentLength: &size, Callback: m.callback}
	r.Object.Key = m.flags.keyOf(job.name)
	return r
}

func (m *maker) multipartRequest(job *uploadJob) issue.MultipartRequest {
	size := job.source.Size()
	r := issue.MultipartRequest{Object: m.object, Expires: m.expires, Size: &size, PartSize: m.partSize, Callback: m.callback}
	r.Object.Key = m.flags.keyOf(job.name)
	return r
}

func (m *maker) put(ctx context.Context, w io.Writer, job *uploadJob) (uploader.Task, error) {
	upload, bound, err := m.issuer.Issue(ctx, m.putRequest(job))
	if err != nil {
		return uploader.Task{}, err
	}
	warnBound(w, bound, upload.ExpiresAt, m.flags.Expires)
	return uploader.Task{Manifest: manifest.Manifest{Put: &upload}}, nil
}

// multipart goes on with the upload that the same command began before, if that is
// possible, and begins one otherwise.
func (m *maker) multipart(ctx context.Context, w io.Writer, job *uploadJob, state *uploader.State) (uploader.Task, error) {
	if old := state.Manifest; old != nil {
		before := manifest.Manifest{Multipart: old}
		expired := time.Until(old.ExpiresAt) < timeToGoOn
		if !expired && uploader.Fit(before, job.source.Size()) == nil {
			return uploader.Task{Manifest: before, State: state}, nil
		}
		why := "the file has another size now"
		if expired {
			why = "its URLs have expired"
		}
		if err := m.giveUp(ctx, w, job, state); err != nil {
			return uploader.Task{}, err
		}
		fmt.Fprintf(w, "issuer: %s: the upload that was broken off cannot go on, as %s; beginning anew\n", readable(job.name), why)
		state.Manifest, state.Completing = nil, false
	}
	made, bound, err := m.issuer.IssueMultipart(ctx, m.multipartRequest(job))
	if err != nil {
		return uploader.Task{}, explain(err)
	}
	warnBound(w, bound, made.ExpiresAt, m.flags.Expires)
	state.Manifest = &made
	if err := state.Save(); err != nil { // it could not go on after a kill
		return uploader.Task{}, errors.Join(err, m.issuer.AbortMultipart(ctx, made))
	}
	return uploader.Task{Manifest: manifest.Manifest{Multipart: &made}, State: state}, nil
}

// giveUp aborts the upload that was broken off, as it cannot go on. The error means that
// the file may be stored and reported already: another upload would report it once more.
func (m *maker) giveUp(ctx context.Context, w io.Writer, job *uploadJob, state *uploader.State) error {
	old := state.Manifest
	err := m.issuer.AbortMultipart(ctx, *old)
	refused, answered := errors.AsType[*oss.RefusedError](err)
	gone := answered && refused.Code == "NoSuchUpload"
	switch {
	case err == nil, gone && !state.Completing:
		return nil // no part is left
	case !state.Completing:
		fmt.Fprintf(w, "issuer: %s: its parts stay in the bucket: %v\n", readable(job.name), err)
		return nil
	case !answered:
		return fmt.Errorf("%w; run the same command again", err) // the state is kept, and the next run finds it out
	}
	known := "OSS was asked to merge the parts, and the upload is over now"
	if !gone {
		known = fmt.Sprintf("OSS was asked to merge the parts, and does not say whether it did (%v)", err)
	}
	sameSize := uploader.Fit(manifest.Manifest{Multipart: old}, job.source.Size()) == nil
	if m.callback != nil && sameSize {
		return errors.Join(fmt.Errorf("completion: %w: %s, so the object is most likely stored; look at the receiver "+
			"for the row whose upload_id is %s, and run the same command again only if there is none",
			uploader.ErrAnswerLost, known, old.ID), state.Remove())
	}
	fmt.Fprintf(w, "issuer: %s: %s: what was in the file then is most likely stored, by the upload_id %s\n", readable(job.name), known, old.ID)
	return nil
}
