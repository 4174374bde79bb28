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
	keyURLs  []string          // values of x-oss-pub-key-url to open the signature with
	policy   *admission.Policy // the receiver's, for targets as they were signed
	request  admission.Request // as the receiver would have received it
	signed   verify.Request    // what the receiver checks of it
	at       time.Time         // when it came, for its upload token
	dated    bool              // at is from its Date header
	report   *Report
}

func (e *examination) examine(ctx context.Context) {
	r := e.report
	received := e.received()
	if !e.capture.NoBody {
		r.Received = digestOf(received.stringToSign())
	}
	if e.capture.Get("X-Mns-Version") != "" {
		e.note("this is a notification that MNS pushes, not a callback: docs/notifications.md says what is checked of one")
	}
	err := e.verifier.Verify(ctx, e.signed)
	failure, _ := errors.AsType[*verify.Failure](err)
	e.compareBody()
	sig, opened := e.openSignature(ctx)
	if opened {
		r.Key = e.keyName(sig.keyURL)
		r.Signed.MD5 = hexOf(sig.digest)
	}
	e.at, e.dated = e.time()
	request := e.with(e.signed)
	if _, refusal := e.policy.Admit(ctx, &request, e.at); refusal != nil {
		r.Code, r.Reason = refusal.Code, refusal.Reason
	}
	if err != nil {
		e.oddities()
	}
	switch {
	case err == nil:
		r.Verdict, r.Summary, r.Signed = Verifies, "the signature is good", r.Received
		e.admit(ctx, request)
	case e.capture.NoBody:
		r.Verdict, r.Code, r.Reason = CannotCheck, "", "no_body"
		r.Summary = "this capture does not contain the body, which the signature covers"
		if opened {
			r.Summary += "; the signature itself is genuine"
		}
		r.Fix = "give the body with --body FILE, or record with curl --trace FILE, which includes it, instead of -v"
	case opened:
		e.explain(ctx, failure, sig, received)
	case failure.Kind() == verify.CannotCheck:
		r.Verdict, r.Summary = CannotCheck, oneLine(err)
		r.Fix = "make sure that the key's URL answers, or give the key as a file with --key-file"
	default:
		r.Verdict, r.Summary, r.Fix = Refused, oneLine(err), fixes[admission.Reason(failure.Reason())]
	}
}

// received is the message as received, or with the path of the public URL.
func (e *examination) received() message {
	m := messageTo(e.signed.Target)
	m[theBody] = string(e.request.Body)
	return m
}

// messageTo is the message with that target and no body.
func messageTo(target string) message {
	rawPath, query := splitTarget(target)
	return message{unescape(rawPath), query, ""}
}

func digestOf(signed string) Digest { return Digest{Mark(signed), sumOf(signed)} }

func sumOf(text string) string { return hexOf(md5.Sum([]byte(text))) }

// keyName describes the key that a value of x-oss-pub-key-url stands for.
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

// compareBody compares the body with the headers that describe it.
func (e *examination) compareBody() {
	if e.capture.NoBody {
		return
	}
	body := e.request.Body
	switch e.capture.Get("Content-MD5") {
	case "":
	case contentMD5(body):
		e.note("Content-MD5 matches: the body is as it was sent")
	default:
		e.note("Content-MD5 does not match: the body was changed on the way or in the capture")
	}
	if n := e.capture.length(); n >= 0 && n != len(body) {
		e.note(fmt.Sprintf("Content-Length says %d, the captured body has %d bytes", n, len(body)))
	}
	if bytes.ContainsRune(body, '\uFFFD') {
		e.note("the body contains U+FFFD: something could not read its bytes as UTF-8, and the original bytes are lost")
	}
}

// contentMD5 is the value of Content-MD5 for a body.
func contentMD5(body []byte) string {
	sum := md5.Sum(body)
	return base64.StdEncoding.EncodeToString(sum[:])
}

func (e *examination) note(text string) { e.report.Notes = append(e.report.Notes, text) }

// explain finds out what was done to a request whose signature is by a known key.
func (e *examination) explain(ctx context.Context, failure *verify.Failure, sig openedSignature, received message) {
	r := e.report
	r.Verdict = Refused
	m := e.search(sig.digest, received)
	e.headerCauses(sig)
	if m == nil {
		r.Summary = fmt.Sprintf("the signature is by %s, but over different content", r.Key)
		switch {
		case sig.digest == md5.Sum(nil):
			e.cause(SenderNothing, "", "")
		case e.capture.Get("Content-MD5") == contentMD5(e.request.Body):
			r.Fix = targetChanged
		default:
			r.Fix = fixes[digestMismatch]
		}
		return
	}
	r.Signed = digestOf(m.signed)
	e.contentCauses(received, m, failure)
	if m.sender != (Kind{}) {
		e.cause(m.sender, r.Received.String, r.Signed.String)
		r.Summary = "the sender signs a different string from OSS"
		return
	}
	repaired := repair(sig, m)
	if err := e.verifier.Verify(ctx, repaired); err != nil {
		r.Summary = "what was signed is known, but no request can contain it, " +
			"so the sender signs differently from OSS: " + oneLine(err)
		return
	}
	r.Verdict, r.Oddities = Repaired, []Oddity{} // the causes say more
	what := make([]string, len(r.Causes))
	for i, c := range r.Causes {
		what[i] = c.What
	}
	r.Summary = strings.Join(what, "; and ")
	e.admit(ctx, e.with(repaired))
}

// repair is the request as it was signed. The first LF of what was signed ends the
// target: a target that OSS signs contains none.
func repair(sig openedSignature, m *match) verify.Request {
	target, body, _ := strings.Cut(m.signed, "\n")
	path, query, marked := strings.Cut(target, "?")
	if known := m.message[theQuery]; known != "" && !strings.Contains(known, "\n") {
		path, query, marked = m.message[thePath], known, true
	}
	signed := url.URL{Path: path, RawQuery: query, ForceQuery: marked}
	return verify.Request{
		Target: signed.RequestURI(), Body: []byte(body), Authorization: sig.authorization, PubKeyURL: sig.keyURL,
	}
}

// search looks for the message with that digest. If Content-MD5 identifies the body that
// was sent, only that body is tried first.
func (e *examination) search(digest [md5.Size]byte, received message) *match {
	bodies := spread(received[theBody], bodySteps(e.capture.length()), maxBodies)
	parsed := reparsed(received[theBody], maxReparsed)
	bodies = append(bodies, parsed...)
	s := search{digest: digest, parts: [3][]variant{e.paths(received[thePath]), e.queries(received[theQuery]), bodies}}
	defer func() { e.report.Candidates = s.tried }()
	d := deep{limit: maxDeep}
	defer func() { e.report.Candidates += d.tried }()
	sent := e.capture.Get("Content-MD5")
	i := slices.IndexFunc(bodies, func(v variant) bool { return contentMD5([]byte(v.text)) == sent })
	known, _ := base64.StdEncoding.DecodeString(sent)
	if i < 0 && len(known) == md5.Size {
		d.digest = [md5.Size]byte(known)
		if v, ok := d.run(received[theBody], parsed); ok {
			i, bodies = len(bodies), append(bodies, v)
		}
	}
	if i >= 0 {
		s.parts[theBody] = bodies[i : i+1]
		if m := s.run(); m != nil {
			return m
		}
	}
	s.parts[theBody] = bodies
	if length := e.capture.length(); length >= 0 {
		away := func(v variant) int { return max(len(v.text)-length, length-len(v.text)) }
		slices.SortStableFunc(bodies[1:], func(a, b variant) int { return cmp.Compare(away(a), away(b)) })
	}
	if m := s.run(); m != nil || len(known) == md5.Size {
		return m
	}
	before := message{received[thePath], received[theQuery], ""}.stringToSign()
	d.digest, d.before = digest, []byte(before)
	v, ok := d.run(received[theBody], parsed)
	if !ok {
		return nil
	}
	m := &match{message: received, signed: before + v.text}
	m.message[theBody], m.kinds[theBody] = v.text, v.kinds
	return m
}

// originals are headers in which proxies pass on the target as it was before they changed it.
var originals = []string{
	"X-Original-Uri", "X-Original-Url", "X-Rewrite-Url", "X-Forwarded-Uri", "X-Envoy-Original-Path", "X-Replaced-Path",
	"X-Forwarded-Path",
}

// hints are targets from sources other than the request line: the callback URL, headers of
// proxies, the receiver's settings.
func (e *examination) hints() []string {
	targets := []string{e.callbackTarget}
	for _, name := range originals {
		targets = append(targets, e.capture.Get(name))
	}
	if prefix := e.capture.Get("X-Forwarded-Prefix"); prefix != "" {
		targets = append(targets, strings.TrimSuffix(prefix, "/")+e.received()[thePath])
	}
	targets = append(targets, e.cfg.Admission.CallbackPaths...)
	targets = append(targets, routed(e.capture.Target)...)
	return slices.DeleteFunc(targets, func(target string) bool { return target == "" || admission.IsPattern(target) })
}

// routed returns the targets of which a rewrite rule may have made this one: /index.php?s=/path,
// as of ThinkPHP, _url of Phalcon, q of Drupal, and the like.
func routed(target string) (found []string) {
	_, query := splitTarget(target)
	pairs := strings.Split(query, "&")
	for i, pair := range pairs {
		name, value, _ := strings.Cut(pair, "=")
		if route := unescape(value); slices.Contains(routes, name) && route != "" {
			rest := strings.Join(slices.Delete(slices.Clone(pairs), i, i+1), "&")
			if rest != "" {
				rest = "?" + rest
			}
			found = append(found, "/"+strings.TrimLeft(route, "/")+rest)
		}
	}
	return found
}

var routes = []string{"s", "r", "q", "_url", "url", "path", "route", "rt", "uri", "__path__", "_path", "p"}

// hinted is the step that takes one part from the hints.
func (e *examination) hinted(kind Kind, part int) step {
	return step{kind, func(string) (texts []string) {
		for _, target := range e.hints() {
			texts = append(texts, messageTo(target)[part])
		}
		return texts
	}}
}

func (e *examination) paths(received string) []variant {
	rawPath, _ := splitTarget(e.signed.Target)
	steps := append([]step{e.hinted(PathReplaced, thePath)}, pathSteps(rawPath)...)
	if e.cfg.Admission.PublicURL != "" {
		steps = append([]step{once(PublicURL, func(string) string { return messageTo(e.capture.Target)[thePath] })}, steps...)
	}
	found := spread(received, steps, maxPaths)
	for _, v := range found {
		if len(v.kinds) == 1 && v.kinds[0] == PathReplaced {
			v.kinds[0] = hintKind(received, v.text)
		}
	}
	return found
}

func (e *examination) queries(received string) []variant {
	kind := QueryReplaced
	if received == "" {
		kind = QueryLost
	}
	return spread(received, append([]step{e.hinted(kind, theQuery)}, querySteps...), maxQueries)
}
