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
		{"ListNotifications", "GET", levelAdmin, "/_ossemu/notifications", true, s.serveNotifications},
		{"ForgetNotifications", "DELETE", levelAdmin, "/_ossemu/notifications", true, s.forgetNotifications},
		{"GetFaults", "GET", levelAdmin, "/_ossemu/faults", true, s.serveFaults},
		{"PutFaults", "PUT", levelAdmin, "/_ossemu/faults", true, s.putFaults},
		{"Reset", "POST", levelAdmin, "/_ossemu/reset", true, s.reset},
		// Programs that would ask STS, such as the command of a credentials process.
		{"AssumeRole", "POST", levelAdmin, "/_ossemu/sts", true, s.serveSTS},
		// Container runtimes and `ossemu healthcheck`.
		{"Health", "GET", levelAdmin, "/_ossemu/health", true, s.serveHealth},

		// Browsers, before a request to another origin.
		{"Preflight", "OPTIONS", levelService, "", true, s.preflight},
		{"Preflight", "OPTIONS", levelBucket, "", true, s.preflight},
		{"Preflight", "OPTIONS", levelObject, "", true, s.preflight},

		// Test suites that set up and clean up, and SDKs.
		{"ListBuckets", "GET", levelService, "", false, s.listBuckets},
		{"GetBucketInfo", "GET", levelBucket, "bucketInfo", false, s.bucketInfo},
		{"GetBucketLocation", "GET", levelBucket, "location", false, s.bucketLocation},
		{"GetBucketAcl", "GET", levelBucket, "acl", false, s.bucketACL},
		{"PutBucketAcl", "PUT", levelBucket, "acl", false, s.createBucket},
		{"GetBucketPublicAccessBlock", "GET", levelBucket, "publicAccessBlock", false, s.publicAccessBlock},
		{"PutBucketPublicAccessBlock", "PUT", levelBucket, "publicAccessBlock", false, s.putPublicAccessBlock},
		{"DeleteBucketPublicAccessBlock", "DELETE", levelBucket, "publicAccessBlock", false, s.deletePublicAccessBlock},
		{"ListAccessPoints", "GET", levelBucket, "accessPoint", false, s.listAccessPoints},
		{"ListLiveChannel", "GET", levelBucket, "live", false, s.listLiveChannels},
		{"ListObjectVersions", "GET", levelBucket, "versions", false, s.listVersions},
		{"DeleteMultipleObjects", "POST", levelBucket, "delete", false, s.deleteObjects},
		{"CreateBucket", "PUT", levelBucket, "", false, s.createBucket},
		{"DeleteBucket", "DELETE", levelBucket, "", false, s.deleteBucket},

		// HTML forms and browsers; the signature is in the form.
		{"PostObject", "POST", levelBucket, "", true, s.postObject},

		// SDKs and reconciliation.
		{"ListMultipartUploads", "GET", levelBucket, "uploads", false, s.listUploads},
		{"ListObjectsV2", "GET", levelBucket, "list-type=2", false, s.listObjectsV2},
		{"ListObjects", "GET", levelBucket, "", false, s.listObjects},
		{"GetObjectAcl", "GET", levelObject, "acl", false, s.objectACL},
		{"PutObjectAcl", "PUT", levelObject, "acl", false, s.putObjectACL},
		{"GetObjectMeta", "HEAD", levelObject, "objectMeta", false, s.objectMeta},

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
		spell(a.Header())
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
			s.refuse(c, err)
		}
		c.note(slog.String("code", e.code), slog.String("error", err.Error()))
		if e.status >= 500 && e.status != http.StatusNotImplemented {
			level = slog.LevelError
		}
	}
	c.note(slog.String("method", r.Method), slog.String("bucket", c.bucket), slog.String("object", c.key),
		slog.Int("status", c.w.status), slog.String("request_id", c.id),
		slog.Float64("took_ms", float64(s.cfg.Now().Sub(now).Microseconds())/1000))
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
	if err := s.checkNames(c); err != nil {
		return err
	}
	rt, known := s.route(c)
	c.note(slog.String("operation", rt.name))
	var foreign error
	if c.r.Method != http.MethodOptions { // a preflight has the parameters of the request to come
		foreign = rt.checkForeign(c)
	}
	if err := s.admit(c, rt, rt.creates() && foreign == nil); err != nil {
		return err
	}
	// Like OSS, the emulator checks first whether the request may be made.
	if foreign != nil {
		return foreign
	}
	if !known {
		return unknownRoute(c)
	}
	return rt.handle(c)
}

// admit checks the signature, and that the bucket exists unless the request creates it. OSS
// looks for the bucket before the access key.
func (s *Server) admit(c *call, rt route, creates bool) error {
	var a *authorization
	var err error
	if !rt.open {
		if a, err = authorizationOf(c); err != nil {
			return err
		}
	}
	if c.level >= levelBucket && c.r.Method != http.MethodOptions && !creates {
		if _, err := s.store.bucket(c.bucket); err != nil {
			return err
		}
	}
	switch {
	case rt.open:
		return nil
	case a == nil:
		return s.allowAnonymous(c, rt)
	}
	return s.verify(c, a)
}

// creates reports whether a route creates its bucket.
func (rt route) creates() bool { return rt.name == "CreateBucket" || rt.name == "PutBucketAcl" }

// checkNames refuses buckets and keys that cannot exist, and, like OSS, a bucket in the path
// under OSS's own endpoints.
func (s *Server) checkNames(c *call) error {
	if c.level < levelBucket {
		return nil
	}
	host := hostName(c.r.Host)
	if strings.HasPrefix(host, "oss-") && strings.HasSuffix(host, ".aliyuncs.com") && s.hostBucket(host) == "" {
		return errSecondLevelDomain
	}
	if ossrule.CheckBucket(c.bucket) != nil {
		return errBucketName.with("BucketName", c.bucket)
	}
	if c.level == levelObject {
		return checkKey(c.key)
	}
	return nil
}

// route finds the operation. An unknown one has the name Unknown.
func (s *Server) route(c *call) (rt route, known bool) {
	for _, rt := range s.routes {
		if rt.level == c.level && rt.method == c.r.Method && rt.matches(c) {
			return rt, true
		}
	}
	return route{name: "Unknown", method: c.r.Method, open: c.level == levelAdmin}, false
}

func unknownRoute(c *call) error {
	if c.level == levelService {
		return errNotImplemented
	}
	return errMethodNotAllowed.with("Method", c.r.Method, "ResourceType", c.level)
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

// hostBucket returns the bucket that a host name starts with, "" in path style. Anything
// before the public host, localhost or one of OSS's own endpoints counts as a bucket, and so
// does a first label that is the name of one.
func (s *Server) hostBucket(hostport string) string {
	host := hostName(hostport)
	if _, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil || host == s.publicHost {
		return ""
	}
	for _, domain := range []string{s.publicHost, "localhost"} {
		if bucket, ok := strings.CutSuffix(host, "."+domain); ok {
			return bucket
		}
	}
	if bucket, _, ok := strings.Cut(host, ".oss-"); ok {
		return bucket
	}
	if first, _, ok := strings.Cut(host, "."); ok && s.store.hasBucket(first) {
		return first
	}
	return ""
}

// hostName is a Host header without its port, in lower case.
func hostName(hostport string) string {
	if host, _, err := net.SplitHostPort(hostport); err == nil {
		hostport = host
	}
	return strings.ToLower(hostport)
}
