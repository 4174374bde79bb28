package ossemu

import (
	"cmp"
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"upcall/internal/fault"
	"upcall/internal/ossrule"
)

// Config configures a [Server]. The zero value of each optional field is usable.
type Config struct {
	AccessKeyID     string // the one access key that exists; required
	AccessKeySecret string // its secret; required

	// SecurityToken is the STS token that every signed request must carry along with
	// the access key. "" means a permanent key: then a token is refused. POST
	// /_ossemu/sts gives out temporary keys that expire.
	SecurityToken string

	Region  string   // without the "oss-" prefix, e.g. "cn-hangzhou"; required
	Buckets []string // the buckets that exist; at least one

	// DataDir is where objects are kept between runs, used by one server at a time.
	// "" keeps them in memory, which nothing bounds but MaxObjectSize for each.
	DataDir string

	// PublicURL is the address under which callback receivers reach this server, e.g.
	// "http://ossemu:9000"; the URL of the public key is announced under it, and its
	// host name's subdomains are buckets. "" means http:// and the Host of each upload.
	PublicURL string

	// MaxObjectSize bounds one request body, in bytes: PutObject, PostObject or a part.
	// Default 5 GiB as with OSS, but 256 MiB in memory, where it bounds a completed
	// multipart upload too.
	MaxObjectSize int64

	MinPartSize int64     // smallest part but the last, in bytes; default 102400 (100 KB) as with OSS
	CORS        *CORSRule // of every bucket; default [DefaultCORS]

	CallbackTimeout time.Duration // for one callback URL, from dialling to the end of the answer; default 5 s as with OSS

	// CallbackRootCAs verifies HTTPS callback receivers; nil means the system's.
	CallbackRootCAs *x509.CertPool

	// CallbackDial replaces dialling, where the names in callback URLs are not to be
	// resolved by the system; nil means a net.Dialer.
	CallbackDial func(ctx context.Context, network, addr string) (net.Conn, error)

	// NotifyURL is where notifications are pushed to when an object is created or removed, as a
	// rule of OSS and a subscription of MNS do it. "" means none.
	NotifyURL string

	NotifyTopic  string        // OWNER/TOPIC that notifications come from; default 1000000000000001/ossemu
	NotifyFormat string        // [NotifyXML] (default), [NotifyJSON] or [NotifySimplified]
	NotifyDelay  time.Duration // between storing an object and the first push

	Logger *slog.Logger     // one event a request; nil discards
	Now    func() time.Time // nil means time.Now

	// After is the clock of delays and of the pauses between pushes; nil means time.After.
	After func(time.Duration) <-chan time.Time
}

// Defaults besides those of package ossrule.
const (
	defaultMaxObjectSizeMemory = 256 << 20
	defaultCallbackTimeout     = 5 * time.Second
)

var regionName = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)+$`)

func (c Config) withDefaults() Config {
	if c.DataDir == "" {
		c.MaxObjectSize = cmp.Or(c.MaxObjectSize, defaultMaxObjectSizeMemory)
	}
	c.MaxObjectSize = cmp.Or(c.MaxObjectSize, ossrule.MaxPut)
	c.MinPartSize = cmp.Or(c.MinPartSize, ossrule.MinPart)
	c.CallbackTimeout = cmp.Or(c.CallbackTimeout, defaultCallbackTimeout)
	if c.CORS == nil {
		rule := DefaultCORS()
		c.CORS = &rule
	}
	if c.CallbackDial == nil {
		c.CallbackDial = new(net.Dialer).DialContext
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.After == nil {
		c.After = time.After
	}
	c.NotifyTopic = cmp.Or(c.NotifyTopic, DefaultTopic)
	c.NotifyFormat = cmp.Or(c.NotifyFormat, NotifyXML)
	c.PublicURL = strings.TrimSuffix(c.PublicURL, "/")
	return c
}

// Check returns every mistake in the configuration, joined. [New] calls it.
func (c Config) Check() error {
	var faults fault.List
	if c.AccessKeyID == "" || strings.ContainsAny(c.AccessKeyID, "/, ") {
		faults.AddAt("", "access key id is empty or holds a slash, comma or space; give a plain word")
	}
	if c.AccessKeySecret == "" {
		faults.AddAt("", "access key secret is empty; give any text")
	}
	if strings.HasPrefix(c.Region, "oss-") || !regionName.MatchString(c.Region) {
		faults.AddAt("", "region %q is not a region id; write cn-hangzhou, say, without oss- before it", c.Region)
	}
	if len(c.Buckets) == 0 {
		faults.AddAt("", "no buckets; name at least one")
	}
	for _, b := range c.Buckets {
		if ossrule.CheckBucket(b) != nil { // no bucket is named _ossemu, then
			faults.AddAt("", "bucket %q: a name has 3 to 63 lower-case letters, digits and hyphens, with no hyphen at its ends", b)
		}
	}
	if c.PublicURL != "" {
		u, err := url.Parse(c.PublicURL)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil ||
			u.RawQuery != "" || u.Fragment != "" {
			faults.AddAt("", "public URL %q is not one; write http://host:9000", c.PublicURL)
		}
	}
	if c.MaxObjectSize < 0 || c.MinPartSize < 0 || c.CallbackTimeout < 0 {
		faults.AddAt("", "a size or timeout is negative; leave it out for the default")
	}
	if c.CORS != nil {
		c.CORS.check(&faults)
	}
	c.checkNotify(&faults)
	return faults.Err()
}

// topicName is OWNER/TOPIC: an account's number and the name of one of its topics.
var topicName = regexp.MustCompile(`^[0-9]+/[A-Za-z0-9][A-Za-z0-9-]{0,254}$`)

func (c Config) checkNotify(faults *fault.List) {
	u, err := url.Parse(c.NotifyURL)
	if c.NotifyURL != "" && (err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.Fragment != "") {
		faults.AddAt("", "notification URL %q is not one; write http://receiver:8080/oss/notify", c.NotifyURL)
	}
	if c.NotifyTopic != "" && !topicName.MatchString(c.NotifyTopic) {
		faults.AddAt("", "notification topic %q is not one; write the owner's number, a slash and the topic: %s", c.NotifyTopic, DefaultTopic)
	}
	if _, ok := notifyTypes[cmp.Or(c.NotifyFormat, NotifyXML)]; !ok {
		faults.AddAt("", "notification format %q is not one; write XML, JSON or SIMPLIFIED", c.NotifyFormat)
	}
	if c.NotifyDelay < 0 || c.NotifyDelay > maxNotifyDelay {
		faults.AddAt("", "the delay of notifications must be from 0s to %s", maxNotifyDelay)
	}
}

// A Server is the emulator. It serves HTTP; [Server.Close] ends what waits in it.
type Server struct {
	cfg        Config
	publicHost string // host name of PublicURL, "" if there is none
	store      *store
	faults     *faultBox
	ring       *ring         // callbacks
	pushed     *ring         // pushes of notifications
	pushing    chan struct{} // holds one for each push under way
	caller     *caller
	routes     []route

	closing context.Context // done once Close is called
	close   context.CancelFunc
}

// New returns a server whose objects are loaded from Config.DataDir. Its error joins
// every mistake in the configuration.
func New(cfg Config) (*Server, error) {
	cfg = cfg.withDefaults()
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	var b backend = newMemory()
	if cfg.DataDir != "" {
		disk, err := openDisk(cfg.DataDir)
		if err != nil {
			return nil, fmt.Errorf("open data directory: %w", err)
		}
		b = disk
	}
	st, err := openStore(b, cfg.Buckets, cfg.Now())
	if err != nil {
		return nil, fmt.Errorf("load objects: %w", err)
	}
	s := &Server{cfg: cfg, store: st, faults: &faultBox{}, ring: &ring{era: make(era)}, pushed: &ring{era: make(era)},
		pushing: make(chan struct{}, pushesAtOnce)}
	if u, err := url.Parse(cfg.PublicURL); err == nil {
		s.publicHost = u.Hostname()
	}
	s.caller = newCaller(cfg)
	s.routes = s.routeTable()
	s.closing, s.close = context.WithCancel(context.Background())
	return s, nil
}

// Close cuts short the delays that faults impose, so that a shutting-down
// http.Server need not wait for them. Uploads under way still get their answers.
// A notification that waits is pushed once more at most.
func (s *Server) Close() { s.close() }

var _ http.Handler = (*Server)(nil)
