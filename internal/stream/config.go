package stream

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"upcall/internal/event"
	"upcall/internal/fault"
)

// The defaults of [Config].
const (
	DefaultName     = "UPCALL"
	DefaultMaxBytes = 8 << 30
)

// minMaxBytes is the least that the streams of a group may hold together: less would be full at once.
const minMaxBytes = 16 << 20

const (
	// dialTimeout bounds one attempt to reach a server, and redial is the pause before the next.
	dialTimeout, redial = time.Second, 250 * time.Millisecond
	// pingEvery is how often a silent connection is tried. After two pings without an answer, it is left.
	pingEvery = time.Second
	// writeTimeout is how long a server may take nothing before its connection is left. Whoever sends waits for that,
	// whatever time they have, because the connection is locked meanwhile.
	writeTimeout = time.Second
	// checkTimeout bounds the check at the start, and readyTimeout that of /readyz.
	checkTimeout, readyTimeout = 5 * time.Second, 500 * time.Millisecond
)

// Config says where a stream is.
type Config struct {
	// URL has all servers: nats://a,b,c or tls://a,b,c. It may hold a password. Required.
	URL string
	// CredsFile has the credentials that the servers want. Default none.
	CredsFile string
	// Name is that of the stream; default DefaultName.
	Name string
	// MaxBytes limits a stream that this program makes; default DefaultMaxBytes.
	MaxBytes int64
	// MonitorURL has the monitoring addresses of all servers, http://a:8222,http://b:8222. They tell whether the
	// servers fsync always. Default none: that is then unchecked.
	MonitorURL string
	// Refused is called for each event that PostgreSQL refuses because its upload was revoked, or has too many. The
	// event is not a dead letter then. Default none: it is.
	Refused func(context.Context, *event.Event, error)
	// Logger logs problems and dead letters. Required.
	Logger *slog.Logger
	// Now is the clock. Default time.Now.
	Now func() time.Time

	place int // in a group: which of the streams it is, and to which of the servers the connection is if that is there
	all   int // streams that the group has; default 1
}

func (c Config) withDefaults() Config {
	c.Name, c.MaxBytes = cmp.Or(c.Name, DefaultName), cmp.Or(c.MaxBytes, DefaultMaxBytes)
	c.all = cmp.Or(c.all, 1)
	if c.Now == nil {
		c.Now = time.Now
	}
	return c
}

// names are the names that a stream may have: in subjects, other characters have a meaning.
var names = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// Check returns all mistakes in the settings, without connecting anywhere.
func (c Config) Check() error {
	c = c.withDefaults()
	var faults fault.List
	if err := checkURLs(c.URL, "nats", "tls"); err != nil {
		faults.AddNew(nil, "UPCALL_STREAM_URL", "write nats://a,b,c or tls://a,b,c", "%s", err)
	}
	if c.MonitorURL != "" {
		if err := checkURLs(c.MonitorURL, "http", "https"); err != nil {
			faults.AddNew(nil, "UPCALL_STREAM_MONITOR_URL", "write http://a:8222,http://b:8222,http://c:8222", "%s", err)
		}
	}
	if c.place == 0 && !names.MatchString(c.Name) {
		faults.AddNew(nil, "UPCALL_STREAM_NAME", "use up to 64 letters, digits, _ and -", "%q cannot be a stream's name", c.Name)
	}
	if c.MaxBytes < minMaxBytes {
		faults.AddNew(nil, "UPCALL_STREAM_MAX_BYTES", "give at least 16777216", "%d bytes are too few", c.MaxBytes)
	}
	return faults.Err()
}

// checkURLs returns what is wrong with a list of servers. It does not repeat a password.
func checkURLs(list string, schemes ...string) error {
	if strings.TrimSpace(list) == "" {
		return fmt.Errorf("no server is named")
	}
	for _, server := range split(list) {
		u, err := url.Parse(server)
		switch {
		case err != nil:
			return fmt.Errorf("a server is no URL")
		case u.Scheme != schemes[0] && u.Scheme != schemes[1]:
			return fmt.Errorf("the scheme %q is neither %s nor %s", u.Scheme, schemes[0], schemes[1])
		case u.Hostname() == "":
			return fmt.Errorf("a server has no host")
		case strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "":
			return fmt.Errorf("%s has more than a host and a port", u.Host)
		}
	}
	return nil
}

// split returns the servers of a list. One without a scheme has that of the first, and its user: otherwise
// tls://a,b would talk to b in clear text.
func split(list string) []string {
	var servers []string
	first := ""
	for i, server := range strings.Split(list, ",") {
		server = strings.TrimSpace(server)
		if at := strings.LastIndex(server, "@"); i == 0 {
			first = server[:at+1]
			if scheme, _, ok := strings.Cut(server, "://"); at < 0 && ok {
				first = scheme + "://"
			}
		}
		if !strings.Contains(server, "://") {
			server = first + server
		}
		servers = append(servers, server)
	}
	return servers
}

// servers returns all servers, the one first that the connection is to.
func (c Config) servers() []string {
	all := split(c.URL)
	first := c.place % len(all)
	return slices.Concat(all[first:], all[:first])
}

func (c Config) urls() string { return strings.Join(c.servers(), ",") }

// subjects of the messages.
func (c Config) waiting() string         { return c.Name + ".waiting" }
func (c Config) dead(of string) string   { return c.Name + ".dead." + of }
func (c Config) isWaiting(s string) bool { return s == c.waiting() }
func (c Config) deadID(s string) string  { return strings.TrimPrefix(s, c.dead("")) }

// options returns those of the connection. told is called with errors that no answer holds.
func (c Config) options(told func(error)) ([]nats.Option, error) {
	options := []nats.Option{
		nats.Name("upcall receiver"), nats.Timeout(dialTimeout), nats.ReconnectWait(redial), nats.MaxReconnects(-1),
		nats.PingInterval(pingEvery), nats.MaxPingsOutstanding(2), nats.FlusherTimeout(writeTimeout), nats.ReconnectOnFlusherError(),
		// What cannot be sent now fails now, instead of arriving when its sender has gone.
		nats.ReconnectBufSize(-1),
		// Credentials that are refused for a moment, while they are replaced, must not end the connection permanently.
		nats.IgnoreAuthErrorAbort(),
		// The operator has named the servers. Addresses that one of them advertises get neither credentials nor callbacks.
		nats.IgnoreDiscoveredServers(),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { told(err) }),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				c.Logger.Warn("stream: connection lost", slog.String("error", err.Error()))
			}
		}),
		nats.ReconnectHandler(func(conn *nats.Conn) {
			c.Logger.Info("stream: connected again", slog.String("server", conn.ConnectedServerName()))
		}),
	}
	if len(c.servers()) > 1 { // else it may be one name for all, of which any address will do
		options = append(options, nats.DontRandomize())
	}
	if c.CredsFile == "" {
		return options, nil
	}
	content, err := os.ReadFile(c.CredsFile)
	if err != nil {
		return nil, fault.New(nil, "UPCALL_STREAM_CREDS_FILE", "name a file that this user can read", "%s", err)
	}
	if !bytes.Contains(content, []byte("BEGIN NATS USER JWT")) {
		return nil, fault.New(nil, "UPCALL_STREAM_CREDS_FILE", "make one with nsc generate creds", "%s holds no credentials", c.CredsFile)
	}
	return append(options, nats.UserCredentials(c.CredsFile)), nil
}
