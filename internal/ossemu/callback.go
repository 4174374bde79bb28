package ossemu

import (
	"cmp"
	"context"
	"crypto/md5"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"upcall/internal/callbackspec"
)

// finish ends an upload whose object is stored: it notifies, calls back and passes the
// answer on, or, without a callback, lets usual answer.
func (s *Server) finish(c *call, p *plan, o *object, operation string, usual func() error) error {
	began := s.ring.now()
	var faults Faults
	if p != nil || s.cfg.NotifyURL != "" {
		faults = s.faults.take()
	}
	created := happening{name: "ObjectCreated:" + operation, at: o.LastModified, o: o, delta: o.delta}
	if p != nil {
		created.vars = p.vars
	}
	s.notify(c, created, faults)
	if p == nil {
		return usual()
	}
	// The object is stored: its callback goes out even if the uploader hangs up.
	answer, err := s.callBack(context.WithoutCancel(c.r.Context()), c, p, o, operation, faults, began)
	if err != nil {
		return err
	}
	c.note(slog.String("callback", "answered"))
	return c.write(http.StatusOK, "application/json", answer)
}

// callBack delivers one callback and returns the receiver's answer, or the
// CallbackFailed error that the uploader sees.
func (s *Server) callBack(
	ctx context.Context, c *call, p *plan, o *object, operation string, faults Faults, began era,
) ([]byte, error) {
	if p.brokenImage != nil {
		c.note(slog.String("callback", "not sent"), slog.String("image", p.brokenImage.Error()))
		return nil, errCallbackFailed.saying("Get image info failed.", "")
	}
	body, err := callbackspec.Expand(p.parameter.Body, p.parameter.BodyType, s.values(c, p, o, operation))
	if err != nil {
		return nil, fmt.Errorf("expand callback body: %w", err)
	}
	if p.parameter.BodyType != callbackspec.JSON {
		body = faults.spell(body)
	}
	s.wait(time.Duration(faults.Delay), began)
	var failure error = errCallbackFailed
	for _, raw := range p.parameter.URLs {
		out, err := s.outgoing(c, p, o, raw, body, operation, faults)
		if err != nil {
			return nil, err
		}
		if began.over() { // the receiver must not get it in the middle of the next test
			return nil, s.caller.replyTimeout(out.url)
		}
		out.began = began
		answer, err := s.deliverAll(ctx, out, faults)
		if err == nil {
			return answer, nil
		}
		failure = err // the last URL's failure is shown
	}
	return nil, failure
}

// wait lets d pass, or what is left of it until the server closes or the era is over.
func (s *Server) wait(d time.Duration, began era) {
	if d <= 0 {
		return
	}
	select {
	case <-s.cfg.After(d):
	case <-s.closing.Done():
	case <-began:
	}
}

// deliverAll sends one callback, and as often again as the faults say.
func (s *Server) deliverAll(ctx context.Context, out outgoing, f Faults) ([]byte, error) {
	if f.Drop {
		out.SentAt, out.Error = s.cfg.Now().UTC(), "dropped by fault, not sent"
		s.ring.add(out.began, out.Delivery)
		return nil, s.caller.replyTimeout(out.url)
	}
	var again sync.WaitGroup
	if f.Concurrent {
		for range f.Duplicate {
			again.Go(func() { _, _ = s.deliver(ctx, out) })
		}
	}
	answer, err := s.deliver(ctx, out)
	if !f.Concurrent {
		for n := 0; n < f.Duplicate && !out.began.over(); n++ {
			_, _ = s.deliver(ctx, out)
		}
	}
	again.Wait()
	if f.DropAnswer {
		return nil, s.caller.replyTimeout(out.url)
	}
	return answer, err
}

// deliver sends one request, records it with what came back, and judges that.
func (s *Server) deliver(ctx context.Context, out outgoing) ([]byte, error) {
	d := out.Delivery
	d.SentAt = s.cfg.Now().UTC()
	answer, err := s.caller.call(ctx, out, &d)
	d.Duration = s.cfg.Now().Sub(d.SentAt).Milliseconds()
	if err != nil {
		d.Error = asAPIError(err).message
	}
	s.ring.add(out.began, d)
	return answer, err
}

// values are what the variables of the template stand for.
func (s *Server) values(c *call, p *plan, o *object, operation string) callbackspec.Values {
	v := callbackspec.Values{
		"bucket":    o.Bucket,
		"object":    o.Key,
		"etag":      o.ETag,
		"size":      strconv.FormatInt(o.Content.Size, 10),
		"mimeType":  o.Meta.ContentType,
		"crc64":     strconv.FormatUint(o.Content.CRC64, 10),
		"clientIp":  clientIP(c.r),
		"reqId":     c.id,
		"operation": operation,
	}
	if o.Type == "Normal" {
		v["contentMd5"] = o.Content.contentMD5()
	}
	maps.Copy(v, p.vars)
	maps.Copy(v, p.image)
	return v
}

// inspect reads the image in a blob if the callback is going to tell about it. It runs
// before the object is visible, because another upload may replace it afterwards.
func (s *Server) inspect(p *plan, blob string) error {
	if p == nil || !strings.Contains(p.parameter.Body, "${imageInfo.") {
		return nil
	}
	r, err := s.store.backend.open(blob)
	if err != nil {
		return fmt.Errorf("open blob: %w", err)
	}
	defer r.Close() // only read
	p.image, p.brokenImage = imageInfo(r)
	return nil
}

// clientIP is the peer's address. X-Forwarded-For is the uploader's own claim and does
// not count.
func clientIP(r *http.Request) string {
	host, _, _ := net.SplitHostPort(r.RemoteAddr) // "" where there is no port
	return host
}

// An outgoing is one signed callback to one URL. It is the same however often it is
// sent: a repeat is a replay.
type outgoing struct {
	Delivery // without what came back
	url      *url.URL
	sni      bool
	began    era
}

// outgoing builds and signs the request for one callback URL.
func (s *Server) outgoing(c *call, p *plan, o *object, raw, body, operation string, f Faults) (outgoing, error) {
	if !strings.Contains(raw, "://") {
		raw = "http://" + raw
	}
	u, err := url.Parse(raw)
	if err != nil {
		return outgoing{}, errors.New("parse callback URL: it was checked before")
	}
	u.ForceQuery = false // "/cb?" has no query; how OSS signs a bare "?" is not documented
	if u.Path == "" {
		u.Path = "/"
	}
	out := outgoing{url: u, sni: p.parameter.SNI, Delivery: Delivery{
		RequestID: c.id, Operation: operation, Bucket: o.Bucket, Object: o.Key, URL: u.String(), Target: u.RequestURI(),
		Host: cmp.Or(p.parameter.Host, u.Host), Body: body, StringToSign: stringToSign(u.RequestURI(), body, f),
	}}
	signature := sign([]byte(out.StringToSign))
	if f.CorruptSignature {
		signature = corrupt(signature)
	}
	keyURL := cmp.Or(f.ForeignKeyURL, s.keyURL(c))
	sum := md5.Sum([]byte(body))
	// Names are spelled as OSS spells them on the wire (packet capture of 2018-09-15).
	out.Header = http.Header{
		"Authorization":            {signature},
		"Content-MD5":              {base64.StdEncoding.EncodeToString(sum[:])},
		"Content-Type":             {string(cmp.Or(p.parameter.BodyType, callbackspec.Form))},
		"Date":                     {s.cfg.Now().UTC().Format(http.TimeFormat)},
		"User-Agent":               {"aliyun-oss-callback"},
		"x-oss-additional-headers": {""},
		"x-oss-bucket":             {o.Bucket},
		"x-oss-owner":              {ownerID},
		"x-oss-pub-key-url":        {base64.StdEncoding.EncodeToString([]byte(keyURL))},
		"x-oss-request-id":         {c.id},
		"x-oss-requester":          {ownerID},
		"x-oss-signature-version":  {"1.0"},
		"x-oss-tag":                {"CALLBACK"},
		"eagleeye-rpcid":           {"0.1"},
	}
	for name, value := range p.parameter.AdditionalHeaders {
		out.Header[name] = []string{value}
	}
	return out, nil
}

// keyURL is where receivers find the public key.
func (s *Server) keyURL(c *call) string {
	if s.cfg.PublicURL != "" {
		return s.cfg.PublicURL + PublicKeyPath
	}
	host := c.r.Host
	if s.hostBucket(host) != "" {
		_, host, _ = strings.Cut(host, ".") // under bucket.host the path would be an object
	}
	return "http://" + host + PublicKeyPath
}
