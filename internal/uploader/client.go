package uploader

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"

	"upcall/internal/manifest"
)

const (
	maxAnswer     = 4 << 20 // bytes; a list of a thousand parts takes a quarter of one million
	maxPause      = 30 * time.Second
	expectFrom    = 1 << 20 // bytes; less is sent without asking first
	expectTimeout = 2 * time.Second
)

const crcHeader = "x-oss-hash-crc64ecma"

// lookBetween says what to do about an answer that is not from OSS.
const lookBetween = "check the proxies between here and OSS"

// newClient speaks HTTP/1.1, as OSS does, so that parallel parts have a connection each.
func newClient(parallel int) *http.Client {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Client{
		// A redirect could send the file to any server.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			DialContext:            (&net.Dialer{Timeout: 15 * time.Second}).DialContext,
			TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
			TLSHandshakeTimeout:    15 * time.Second,
			ExpectContinueTimeout:  expectTimeout,
			IdleConnTimeout:        time.Minute,
			MaxIdleConnsPerHost:    parallel,
			DisableCompression:     true,    // a small answer must not unpack into a large one
			MaxResponseHeaderBytes: 1 << 20, // a flood of header lines must not fill the memory
			WriteBufferSize:        64 << 10,
			Protocols:              protocols,
		},
	}
}

// A message is one presigned request and its content.
type message struct {
	what     string // as in "part 7"
	request  manifest.PresignedRequest
	of       requestOf     // finds the request of a multipart upload, instead; nil for another one
	document []byte        // the content; nil for none
	piece    *piece        // of the file, which is the content instead; nil for none
	patience time.Duration // how long the connection may be idle
}

// An answer is a response that was read completely.
type answer struct {
	status int
	header http.Header
	body   []byte
	crc    uint64 // of the piece that was sent
}

var errStalled = errors.New("nothing moved for too long")

// send sends a message until it succeeds or another attempt cannot help. maybe reports
// whether an earlier attempt may have been carried out although it failed.
func (s *session) send(ctx context.Context, m message) (a answer, maybe bool, err error) {
	pauses := backoff.NewExponentialBackOff()
	pauses.InitialInterval, pauses.MaxInterval, pauses.Multiplier = s.cfg.Pause, maxPause, 2
	failed := 0
	a, err = backoff.Retry(ctx, func() (answer, error) {
		maybe = maybe || failed > 0 && ambiguous(err)
		var a answer
		a, err = s.attempt(ctx, m)
		if err == nil {
			return a, nil
		}
		failed++
		if !retryable(err) || failed == s.cfg.Attempts {
			return a, backoff.Permanent(err)
		}
		return a, patient(err)
	}, backoff.WithBackOff(pauses), backoff.WithMaxElapsedTime(0), backoff.WithNotify(func(_ error, pause time.Duration) {
		s.watcher.Remark(fmt.Sprintf("%v; retrying in %s", err, pause.Round(100*time.Millisecond)))
	}))
	if failed > 1 && retryable(err) {
		err = fmt.Errorf("%w; gave up after %d attempts", err, failed)
	}
	return a, maybe, err
}

// patient makes backoff wait for as long as the answer's Retry-After says.
func patient(err error) error {
	if status, ok := errors.AsType[*StatusError](err); ok && status.after > 0 {
		return errors.Join(err, &backoff.RetryAfterError{Duration: min(status.after, maxPause)})
	}
	return err
}

// attempt sends a message once, or twice if its request has expired and could be renewed.
func (s *session) attempt(ctx context.Context, m message) (answer, error) {
	if m.of == nil {
		return s.try(ctx, m)
	}
	for again := false; ; again = true {
		signed, err := s.requests.latest(ctx)
		if err != nil {
			return answer{}, err
		}
		m.request = m.of(signed)
		a, err := s.try(ctx, m)
		switch {
		case !s.requests.expired(signed, err):
			return a, err
		case again:
			return a, fmt.Errorf("%w; %s", err, runAgain)
		}
	}
}

// try sends a message once.
func (s *session) try(ctx context.Context, m message) (answer, error) {
	attempt, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stall := time.AfterFunc(m.patience, func() { cancel(errStalled) })
	defer stall.Stop()

	request, err := http.NewRequestWithContext(attempt, m.request.Method, m.request.URL, bytes.NewReader(m.document))
	if err != nil {
		return answer{}, fmt.Errorf("%w: %s has an unusable URL", manifest.ErrManifest, m.what)
	}
	for name, value := range m.request.Headers {
		if !strings.EqualFold(name, "content-length") { // net/http sends that itself
			request.Header.Set(name, value)
		}
	}
	request.Header.Set("User-Agent", "upcall")
	content := new(body) // empty
	if m.piece != nil {
		if err := s.source.unchanged(); err != nil {
			return answer{}, err
		}
	}
	if m.piece != nil && m.piece.size > 0 {
		content = newBody(s.source, *m.piece, func(n int64) {
			stall.Reset(m.patience)
			s.watcher.Sent(n)
		})
		content.pace = func(n int) (int, error) { return paced(attempt, s.pace, n) }
		request.Body, request.ContentLength, request.GetBody = content, m.piece.size, nil
		if m.piece.size >= expectFrom {
			// OSS then rejects the request before gigabytes are sent, and the answer is not lost among them.
			request.Header.Set("Expect", "100-continue")
		}
	}
	a, err := exchange(s.client, request)
	crc, sent, broken := content.finish()
	a.crc = crc
	switch {
	case broken != nil:
		err = broken
	case err != nil && ctx.Err() != nil:
		err = context.Cause(ctx)
	case err != nil && errors.Is(context.Cause(attempt), errStalled):
		err = fmt.Errorf("%s: %w: %w", m.what, ErrNetwork, errStalled)
	case err != nil:
		err = fmt.Errorf("%s: %w: %w", m.what, ErrNetwork, err)
	default:
		err = m.judge(a, sent)
	}
	if status, ok := errors.AsType[*StatusError](err); ok {
		status.signs, status.unlisted = s.cfg.Signs, s.cfg.Unlisted
	}
	if err != nil {
		s.watcher.Sent(-sent)
	}
	return a, err
}

// exchange sends one request. Unlike net/http's, the error does not hold the URL: anyone
// who has it may upload.
func exchange(client *http.Client, request *http.Request) (answer, error) {
	response, err := client.Do(request)
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		err = wrapped.Err
	}
	if err != nil {
		return answer{}, err
	}
	defer response.Body.Close() // only read
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	if err != nil {
		return answer{}, fmt.Errorf("read answer: %w", err)
	}
	return answer{status: response.StatusCode, header: response.Header, body: body}, nil
}

// judge says what is wrong with an answer. sent is how much of the piece went out.
func (m message) judge(a answer, sent int64) error {
	success := http.StatusOK
	if m.request.Method == http.MethodDelete {
		success = http.StatusNoContent
	}
	switch {
	case len(a.body) > maxAnswer:
		return fmt.Errorf("%s: %w: it is longer than %d bytes; %s", m.what, ErrNotOSS, maxAnswer, lookBetween)
	case a.status != success:
		status := newStatusError(m.what, a)
		if a.status == http.StatusNonAuthoritativeInfo && m.piece != nil && a.header.Get(crcHeader) != "" {
			return errors.Join(status, checkCRC(m.what, a, &a.crc))
		}
		return status
	case m.piece != nil && sent != m.piece.size:
		return fmt.Errorf("%s: %w: it came before all content was sent; %s", m.what, ErrNotOSS, lookBetween)
	case m.piece != nil:
		return checkCRC(m.what, a, &a.crc)
	}
	return nil
}

// checkCRC compares the CRC-64 of what OSS has stored with the one wanted; nil means not
// known. An answer without a CRC-64 is an error: a login page or a proxy may answer 200
// to anything.
func checkCRC(what string, a answer, want *uint64) error {
	stored, ok := a.storedCRC()
	switch {
	case !ok:
		return fmt.Errorf("%s: %w: it has no %s header, so it is not known what was stored; %s", what, ErrNotOSS, crcHeader, lookBetween)
	case want != nil && stored != *want:
		return fmt.Errorf("%s: %w: OSS has stored %d instead of %d; upload it again", what, ErrChecksum, stored, *want)
	}
	return nil
}

// storedCRC is the CRC-64 of what OSS has stored, if the answer has it.
func (a answer) storedCRC() (crc uint64, ok bool) {
	crc, err := strconv.ParseUint(a.header.Get(crcHeader), 10, 64)
	return crc, err == nil
}
