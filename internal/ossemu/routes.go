package ossemu

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"upcall/internal/ossrule"
)

// A level is what a request's address names.
type level int

const (
	levelAdmin   level = iota // /_ossemu/…, path style only
	levelService              // no bucket
	levelBucket
	levelObject
)

func (l level) String() string { return [...]string{"Admin", "Service", "Bucket", "Object"}[l] }

// A route is one operation. The first one that matches is taken.
type route struct {
	name   string // OSS's name of the operation
	method string
	level  level
	match  string // admin: the path; else a query parameter, or "k=v", that must be there; "" matches any
	open   bool   // needs no signature in header or query
	handle func(*call) error
}

// routeTable lists every route, with who calls it.
func (s *Server) routeTable() []route {
	return []route{
		// Callback receivers, when they see the key URL of a callback.
		{"PublicKey", "GET", levelAdmin, PublicKeyPath, true, s.servePublicKey},
		// People, demos and tests.
		{"ListCallbacks", "GET", levelAdmin, "/_ossemu/callbacks", true, s.serveCallbacks},
		{"ForgetCallbacks", "DELETE", levelAdmin, "/_ossemu/callbacks", true, s.forgetCallbacks},
		{"GetFaults", "GET", levelAdmin, "/_ossemu/faults", true, s.serveFaults},
		{"PutFaults", "PUT", levelAdmin, "/_ossemu/faults", true, s.putFaults},
		// Container runtimes and `ossemu healthcheck`.
		{"Health", "GET", levelAdmin, "/_ossemu/health", true, s.serveHealth},

		// Browsers, before a request to another origin.
		{"Preflight", "OPTIONS", levelService, "", true, s.preflight},
		{"Preflight", "OPTIONS", levelBucket, "", true, s.preflight},
		{"Preflight", "OPTIONS", levelObject, "", true, s.preflight},

		// HTML forms and browsers; the signature is in the form.
		{"PostObject", "POST", levelBucket, "", true, s.postObject},

		// SDKs and reconciliation.
		{"ListMultipartUploads", "GET", levelBucket, "uploads", false, s.listUploads},
		{"ListObjectsV2", "GET", levelBucket, "list-type=2", false, s.listObjects},
		{"GetBucketLocation", "GET", levelBucket, "location", false, s.bucketLocation},

		// Multipart uploads, by SDKs and by holders of presigned URLs.
		{"InitiateMultipartUpload", "POST", levelObject, "uploads", false, s.initiateUpload},
		{"UploadPart", "PUT", levelObject, "uploadId", false, s.uploadPart},
		{"ListParts", "GET", levelObject, "uploadId", false, s.listParts},
		{"CompleteMultipartUpload", "POST", levelObject, "uploadId", false, s.completeUpload},
		{"AbortMultipartUpload", "DELETE", levelObject, "uploadId", false, s.abortUpload},

		// Everybody with a presigned URL, and SDKs.
		{"PutObject", "PUT", levelObject, "", false, s.putObject},
		{"GetObject", "GET", levelObject, "", false, s.getObject},
		{"HeadObject", "HEAD", levelObject, "", false, s.getObject},
		{"DeleteObject", "DELETE", levelObject, "", false, s.deleteObject},
	}
}

// foreignParameters and foreignHeaders select operations of OSS that the emulator
// does not have. Without this list, PUT /key?acl would store an object.
var (
	foreignParameters = []string{"acl", "append", "callback-target", "cors", "lifecycle", "legal-hold", "objectMeta", "policy", "processing",
		"restore", "retention", "select/json-meta", "symlink", "tagging", "versionId", "versions", "x-oss-process", "x-oss-async-process"}
	foreignHeaders = []string{"x-oss-copy-source", "x-oss-server-side-encryption-customer-key", "x-oss-traffic-limit"}
)

// A call is one request on its way.
type call struct {
	w           *answer
	r           *http.Request
	id          string // x-oss-request-id
	level       level
	bucket, key string
	query       query
	started     time.Time
	log         []slog.Attr // further attributes of the one event
}

func (c *call) note(attrs ...slog.Attr) { c.log = append(c.log, attrs...) }

// An answer is the ResponseWriter of one request. It adds what is known only when the
// header is sent, and remembers the status.
type answer struct {
	http.ResponseWriter
	status  int
	started time.Time
	now     func() time.Time
}

func (a *answer) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
		a.Header().Set("x-oss-server-time", strconv.FormatInt(a.now().Sub(a.started).Milliseconds(), 10))
	}
	a.ResponseWriter.WriteHeader(status)
}

func (a *answer) Write(p []byte) (int, error) {
	if a.status == 0 {
		a.WriteHeader(http.StatusOK)
	}
	return a.ResponseWriter.Write(p)
}

// Unwrap lets http.ResponseController reach the connection.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// ServeHTTP answers one request and logs it in one event.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	now := s.cfg.Now()
	c := &call{w: &answer{ResponseWriter: w, started: now, now: s.cfg.Now}, r: r, id: newRequestID(now), started: now}
	h := w.Header()
	h.Set("Server", "AliyunOSS")
	h.Set("x-oss-request-id", c.id)
	err := s.dispatch(c)
	level := slog.LevelInfo
	if err != nil {
		e := asAPIError(err)
		if c.w.status == 0 {
			c.writeError(err)
		}
		c.note(slog.String("code", e.code), slog.String("error", err.Error()))
		if e.status >= 500 && e.status != http.StatusNotImplemented {
			level = slog.LevelError
		}
	}
	c.note(slog.String("method", r.Method), slog.String("bucket", c.bucket), slog.String("object", c.key),
		slog.Int("status", c.w.status), slog.String("request_id", c.id),
		slog.Duration("duration", s.cfg.Now().Sub(now)))
	s.cfg.Logger.LogAttrs(r.Context(), level, "oss request", c.log...)
}

// newRequestID has the shape of OSS's: 24 upper-case hex digits that start with the
// time in seconds.
func newRequestID(now time.Time) string {
	return fmt.Sprintf("%08X%s", uint32(now.Unix()), strings.ToUpper(randomHex(8)))
}

func randomHex(bytes int) string {
	b := make([]byte, bytes)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

func (s *Server) dispatch(c *call) error {
	s.locate(c)
	q, err := parseQuery(c.r.URL.RawQuery)
	if err != nil {
		return err
	}
	c.query = q
	if c.level != levelAdmin {
		s.allowOrigin(c)
	}
	rt, err := s.route(c)
	if err != nil {
		return err
	}
	c.note(slog.String("operation", rt.name))
	if !rt.open {
		if err := s.authenticate(c); err != nil {
			return err
		}
	}
	if c.level >= levelBucket && c.r.Method != http.MethodOptions && !s.store.hasBucket(c.bucket) {
		return errNoSuchBucket.with("BucketName", c.bucket)
	}
	return rt.handle(c)
}

func (s *Server) route(c *call) (route, error) {
	if c.level == levelObject && ossrule.CheckKey(c.key) != nil {
		return route{}, errInvalidObjectName.with("ObjectName", c.key)
	}
	if c.level >= levelBucket {
		for _, p := range foreignParameters {
			if c.query.has(p) {
				return route{}, errNotImplemented.with("Header", p)
			}
		}
		for _, h := range foreignHeaders {
			if c.r.Header.Get(h) != "" {
				return route{}, errNotImplemented.with("Header", h)
			}
		}
	}
	for _, rt := range s.routes {
		if rt.level == c.level && rt.method == c.r.Method && rt.matches(c) {
			return rt, nil
		}
	}
	if c.level == levelBucket && c.r.Method == http.MethodGet || c.level == levelService {
		return route{}, errNotImplemented
	}
	return route{}, errMethodNotAllowed.with("Method", c.r.Method, "ResourceType", c.level)
}

func (rt route) matches(c *call) bool {
	if rt.level == levelAdmin {
		return c.r.URL.Path == rt.match
	}
	if rt.match == "" {
		return true
	}
	key, value, exact := strings.Cut(rt.match, "=")
	return c.query.has(key) && (!exact || c.query[key] == value)
}

// locate finds the bucket and key in the host and the path. The path is taken as it
// is: cleaning it would turn the key "a//b" into "a/b".
func (s *Server) locate(c *call) {
	path := strings.TrimPrefix(c.r.URL.Path, "/")
	if bucket := s.hostBucket(c.r.Host); bucket != "" {
		c.bucket, c.key, c.level = bucket, path, levelObject
		if path == "" {
			c.level = levelBucket
		}
		return
	}
	if path == "_ossemu" || strings.HasPrefix(path, "_ossemu/") {
		c.level = levelAdmin
		return
	}
	c.bucket, c.key, _ = strings.Cut(path, "/")
	switch {
	case c.bucket == "":
		c.level = levelService
	case c.key == "":
		c.level = levelBucket
	default:
		c.level = levelObject
	}
}

// hostBucket returns the bucket that a host name starts with, "" in path style. A
// first label is a bucket before the public host, before localhost, before OSS's own
// endpoints, and if it is the name of a bucket.
func (s *Server) hostBucket(hostport string) string {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	if _, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		return ""
	}
	first, rest, ok := strings.Cut(strings.ToLower(host), ".")
	if !ok {
		return ""
	}
	if rest == s.publicHost || rest == "localhost" || strings.HasPrefix(rest, "oss-") || s.store.hasBucket(first) {
		return first
	}
	return ""
}
