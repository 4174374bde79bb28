package doctor

import (
	"bytes"
	"cmp"
	"context"
	"crypto/md5"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"upcall/internal/admission"
	"upcall/internal/verify"
)

// An examination is one run of [Doctor.Examine].
type examination struct {
	*Doctor
	capture  *Capture
	verifier *verify.Verifier
	policy   *admission.Policy // the receiver's, for targets as they were signed
	request  admission.Request // as the receiver would have got it
	signed   verify.Request    // what the receiver checks of it
	at       time.Time         // when it came, for its upload token
	dated    bool              // its Date header says so
	report   *Report

	bodyIntact bool // Content-MD5 says so
}

func (e *examination) examine(ctx context.Context) {
	r := e.report
	received := e.received()
	if !e.capture.NoBody {
		r.Received = digestOf(received.stringToSign())
	}
	err := e.verifier.Verify(ctx, e.signed)
	failure, _ := errors.AsType[*verify.Failure](err)
	e.compareBody()
	sig, opened := e.openSignature(ctx, e.verifier, e.capture, e.keyURLs(e.capture))
	if opened {
		r.Key = e.keyName(sig.keyURL)
		r.Signed = Digest{MD5: string(hexOf(sig.digest))}
	}
	e.at, e.dated = e.time()
	request := e.with(e.signed)
	if _, refusal := e.policy.Admit(ctx, &request, e.at); refusal != nil {
		r.Code, r.Reason = refusal.Code, refusal.Reason
	}
	switch {
	case err == nil:
		r.Verdict, r.Summary, r.Signed = Verifies, "the signature is good", r.Received
		e.admit(ctx, request)
	case e.capture.NoBody:
		e.noBody(opened)
	case opened:
		e.explain(ctx, failure, sig, received)
	case failure.Kind() == verify.CannotCheck:
		r.Verdict, r.Summary = CannotCheck, oneLine(err)
		r.Fix = "make sure that the key's URL answers, or give the key as a file with --key-file"
	default:
		r.Verdict, r.Summary, r.Fix = Refused, oneLine(err), fixes[admission.Reason(failure.Reason())]
	}
}

// received is the message as it came, or as the public URL has it.
func (e *examination) received() message {
	rawPath, query := splitTarget(e.signed.Target)
	return message{unescape(rawPath), query, string(e.request.Body)}
}

func digestOf(signed []byte) Digest { return Digest{Mark(signed), sumOf(signed)} }

// keyName says in words whose key a value of x-oss-pub-key-url stands for.
func (e *examination) keyName(value string) string {
	named, err := base64.StdEncoding.DecodeString(value)
	if err != nil || value == "" || strings.HasSuffix(string(named), "://gosspublic.alicdn.com/callback_pub_key_v1.pem") {
		return "OSS's own key"
	}
	if e.cfg.Key != nil {
		return "the key of the given file, as " + Mark(named)
	}
	return "the key at " + Mark(named)
}

// noBody ends the examination of a capture that does not show the body.
func (e *examination) noBody(opened bool) {
	r := e.report
	r.Verdict, r.Code, r.Reason = CannotCheck, "", "no_body"
	r.Summary = "this capture does not contain the body, which the signature covers"
	if opened {
		r.Summary += "; the signature itself is genuine"
	}
	r.Fix = "give the body with --body FILE, or record with curl --trace FILE, which includes it, instead of -v"
}

// compareBody holds the body against the headers that tell about it.
func (e *examination) compareBody() {
	if e.capture.NoBody {
		return
	}
	body := e.request.Body
	if value := e.capture.Get("Content-MD5"); value != "" {
		sum := md5.Sum(body)
		if value == base64.StdEncoding.EncodeToString(sum[:]) {
			e.bodyIntact = true
			e.note("Content-MD5 matches: the body is as it was sent")
		} else {
			e.note("Content-MD5 does not match: the body was changed on the way or in the capture")
		}
	}
	if n := e.capture.length(); n >= 0 && n != len(body) {
		e.note(fmt.Sprintf("Content-Length says %d, the captured body has %d bytes", n, len(body)))
	}
	if bytes.ContainsRune(body, '\uFFFD') {
		e.note("the body contains U+FFFD: something could not read its bytes as UTF-8, and the original bytes are lost")
	}
}

func (e *examination) note(text string) { e.report.Notes = append(e.report.Notes, text) }

// explain looks for what was done to a request whose signature is one of a key at hand.
func (e *examination) explain(ctx context.Context, failure *verify.Failure, sig openedSignature, received message) {
	r := e.report
	m := e.search(sig.digest, received)
	e.headerCauses(sig)
	if m == nil {
		r.Verdict = Refused
		r.Summary = fmt.Sprintf("the signature is by %s, but over different content", r.Key)
		if sig.digest == md5.Sum(nil) {
			r.Causes = append(r.Causes, cause(SenderNothing, "", ""))
			return
		}
		r.Fix = fixes[digestMismatch]
		if e.bodyIntact {
			r.Fix = targetChanged
		}
		return
	}
	r.Signed = digestOf(m.signed)
	e.contentCauses(received, m, failure)
	if m.sender != (Kind{}) {
		r.Causes = append(r.Causes, cause(m.sender, r.Received.String, r.Signed.String))
		r.Verdict, r.Summary = Refused, "the sender signs a different string from OSS"
		return
	}
	repaired := repair(sig, m)
	if err := e.verifier.Verify(ctx, repaired); err != nil {
		r.Verdict = Refused
		r.Summary = "what was signed is known, but no request can contain it, so the sender signs differently from OSS: " + oneLine(err)
		return
	}
	r.Verdict = Repaired
	what := make([]string, len(r.Causes))
	for i, c := range r.Causes {
		what[i] = c.What
	}
	r.Summary = strings.Join(what, "; and ")
	e.admit(ctx, e.with(repaired))
}

// repair is the request as it was signed. The first LF of what was signed ends the
// target: an honest target has none in it.
func repair(sig openedSignature, m *match) verify.Request {
	target, body, _ := bytes.Cut(m.signed, []byte("\n"))
	path, query, marked := strings.Cut(string(target), "?")
	if m.query != "" && !strings.Contains(m.query, "\n") {
		path, query, marked = m.path, m.query, true
	}
	escaped := (&url.URL{Path: path}).EscapedPath()
	if marked {
		escaped += "?" + query
	}
	return verify.Request{Target: escaped, Body: body, Authorization: sig.authorization, PubKeyURL: sig.keyURL}
}

// search looks for the message with that digest. Where Content-MD5 tells which body is
// the right one, only that is tried first.
func (e *examination) search(digest [md5.Size]byte, received message) *match {
	s := search{
		digest:  digest,
		paths:   e.paths(received),
		queries: e.queries(received),
		bodies:  spread(received.body, bodySteps(e.capture.length()), maxBodies),
	}
	defer func() { e.report.Candidates = s.tried }()
	all := s.bodies
	if sum, err := base64.StdEncoding.DecodeString(e.capture.Get("Content-MD5")); err == nil && len(sum) == md5.Size {
		for _, b := range all {
			if md5.Sum([]byte(b.text)) == [md5.Size]byte(sum) {
				s.bodies = []variant{b}
				if m := s.run(); m != nil {
					return m
				}
				break
			}
		}
	}
	s.bodies = all
	if length := e.capture.length(); length >= 0 && length != len(received.body) {
		slices.SortStableFunc(s.bodies[1:], func(a, b variant) int {
			return cmp.Compare(abs(len(a.text)-length), abs(len(b.text)-length))
		})
	}
	return s.run()
}

func abs(n int) int { return max(n, -n) }

// originals are headers in which proxies tell the target before they changed it.
var originals = []string{
	"X-Original-Uri", "X-Original-Url", "X-Rewrite-Url", "X-Forwarded-Uri", "X-Envoy-Original-Path", "X-Replaced-Path", "X-Forwarded-Path",
}

// hints are targets that something besides the request line tells: the callback URL,
// headers of proxies, the receiver's settings.
func (e *examination) hints(received message) []message {
	var told []message
	add := func(target string) {
		if target != "" {
			rawPath, query := splitTarget(target)
			told = append(told, message{path: unescape(rawPath), query: query})
		}
	}
	if e.callbackURL != nil {
		told = append(told, message{path: cmp.Or(e.callbackURL.Path, "/"), query: e.callbackURL.RawQuery})
	}
	for _, name := range originals {
		add(e.capture.Get(name))
	}
	if prefix := e.capture.Get("X-Forwarded-Prefix"); prefix != "" {
		add(strings.TrimSuffix(prefix, "/") + received.path)
	}
	add(e.cfg.Admission.CallbackPath)
	return told
}

func (e *examination) paths(received message) []variant {
	told := step{PathReplaced, func(string) (paths []string) {
		for _, hint := range e.hints(received) {
			paths = append(paths, hint.path)
		}
		return paths
	}}
	rawPath, _ := splitTarget(e.signed.Target)
	steps := append([]step{told}, pathSteps(rawPath)...)
	if e.cfg.Admission.PublicURL != "" {
		captured, _ := splitTarget(e.capture.Target)
		steps = append([]step{once(PublicURL, func(string) string { return unescape(captured) })}, steps...)
	}
	found := spread(received.path, steps, maxPaths)
	for i, v := range found {
		if len(v.kinds) == 1 && v.kinds[0] == PathReplaced {
			found[i].kinds = []Kind{hintKind(received.path, v.text)}
		}
	}
	return found
}

func (e *examination) queries(received message) []variant {
	kind := QueryReplaced
	if received.query == "" {
		kind = QueryLost
	}
	told := step{kind, func(string) (queries []string) {
		for _, hint := range e.hints(received) {
			queries = append(queries, hint.query)
		}
		return queries
	}}
	return spread(received.query, append([]step{told}, querySteps()...), maxQueries)
}

func cause(kind Kind, received, signed string) Cause {
	return Cause{Kind: kind, What: kind.what, Fix: kind.fix, Received: received, Signed: signed}
}
