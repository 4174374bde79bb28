package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
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
	err := fault.Join(setupErr, flagsErr, c.checkKeys(jobs), jobErr, m.checkState(jobs, env))
	if err != nil {
		return closeLedger, err
	}
	client, err := oss.New(setup.oss)
	if err != nil {
		return closeLedger, err
	}
	if m.issuer, err = issue.New(issue.Config{OSS: client, Tokens: setup.tokens, Ledger: setup.ledger}); err != nil {
		return closeLedger, err
	}
	finished, err := c.remembered(env, client, remarks)
	if err != nil {
		return closeLedger, err
	}
	for _, job := range jobs {
		job.finished = finished
		job.task = func(ctx context.Context, up *uploader.Uploader, w fileMeter, source *uploader.Source) (uploader.Task, error) {
			if source.Size() <= m.largest {
				return m.put(ctx, w, job.key, source.Size())
			}
			return m.multipart(ctx, up, w, job, source, env)
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

// keyOf returns the key of the object of a file, whose name may hold folders.
func (c *uploadCommand) keyOf(name string) string {
	switch {
	case c.Key == "/": // keys do not begin with it
		return name
	case strings.HasSuffix(c.Key, "/"):
		return c.Key + name
	}
	return c.Key
}

// checkKeys finds files that would overwrite each other.
func (c *uploadCommand) checkKeys(jobs []*uploadJob) error {
	if c.Key == "" {
		return nil // that is the mistake
	}
	if !strings.HasSuffix(c.Key, "/") {
		switch {
		case len(c.Files) > 1:
			return fault.At("--key", "%q is one key for %d files; end it in / to append their names", c.Key, len(c.Files))
		case len(jobs) > 0 && jobs[0].fromFolder:
			return fault.At("--key", "%q is one key for a folder; end it in / to append the names of its files", c.Key)
		}
	}
	taken := make(map[string]string, len(jobs))
	for _, job := range jobs {
		if job.err != nil {
			continue
		}
		if other, ok := taken[job.key]; ok {
			return fmt.Errorf("the files %q and %q would get the same key %q; upload them one by one", other, job.name, job.key)
		}
		taken[job.key] = job.name
	}
	return nil
}

// checkState finds out whether there is a place for the state of uploads in parts, if there are any.
func (m *uploadIssuer) checkState(jobs []*uploadJob, env cli.Env) error {
	if !slices.ContainsFunc(jobs, func(job *uploadJob) bool { return job.size > m.largest }) {
		return nil
	}
	dir, err := m.flags.stateDir(env)
	if err == nil {
		forgetOld(dir, ".json*", stateKept)
	}
	return err
}

// check checks what will be requested for a job. The job's error becomes that of its key, if it
// comes from a folder, whose names nobody chose for keys.
func (m *uploadIssuer) check(job *uploadJob, hosts callbackspec.Hosts, withToken bool) error {
	if job.err != nil {
		return nil
	}
	var err error
	if job.size <= m.largest {
		err = m.putRequest(job.key, job.size).Check(hosts, withToken)
	} else {
		err = m.multipartRequest(job.key, job.size).Check(hosts, withToken)
	}
	other := slices.ContainsFunc(fault.Of(err), func(f fault.Fault) bool { return !errors.Is(f, ossrule.ErrKey) })
	if err != nil && job.fromFolder && m.flags.Key != "" && !other {
		job.err, err = err, nil
	}
	return err
}

func (m *uploadIssuer) putRequest(key string, size int64) issue.Request {
	r := issue.Request{Object: m.object, Expires: m.expires, ContentLength: &size, Callback: m.callback}
	r.Object.Key = key
	return r
}

func (m *uploadIssuer) multipartRequest(key string, size int64) issue.MultipartRequest {
	r := m.putRequest(key, size)
	return issue.MultipartRequest{Object: r.Object, Expires: r.Expires, Size: r.ContentLength, PartSize: m.partSize, Callback: r.Callback}
}

func (m *uploadIssuer) put(ctx context.Context, w fileMeter, key string, size int64) (uploader.Task, error) {
	upload, cause, err := m.issuer.Issue(ctx, m.putRequest(key, size))
	if err != nil {
		return uploader.Task{}, err
	}
	warnExpiry(w.all, cause, upload.ExpiresAt, m.flags.Expires)
	return uploader.Task{Manifest: manifest.Manifest{Put: &upload}}, nil
}

// multipart resumes the upload that the same command started before, if that is possible.
// Otherwise it starts a new one.
func (m *uploadIssuer) multipart(ctx context.Context, up *uploader.Uploader, w fileMeter, job *uploadJob,
	source *uploader.Source, env cli.Env) (uploader.Task, error) {
	// The same command finds the same state, with other credentials, too.
	c, where := m.flags, m.flags.OSSFlags
	where.CredentialFlags = cli.CredentialFlags{}
	state, err := c.state(env, job.name, job.key, c.objectFlags, c.PartSize, c.callbackFlags, where)
	if err != nil {
		return uploader.Task{}, err
	}
	request := m.multipartRequest(job.key, source.Size())
	renew := func(ctx context.Context, old manifest.Multipart) (manifest.Multipart, error) {
		r := request
		r.PartSize = old.PartSize
		return m.issuer.RenewMultipart(ctx, r, old)
	}
	resumed, err := up.Resume(ctx, uploader.Task{Source: source, State: state, Watcher: w, Renew: renew})
	if err != nil {
		return uploader.Task{}, err
	}
	if !resumed {
		made, cause, err := m.issuer.IssueMultipart(ctx, request)
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
