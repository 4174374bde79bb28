package stream

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"upcall/internal/event"
	"upcall/internal/natsserver"
	"upcall/internal/testing/natstest"
	"upcall/internal/testing/wait"
)

// admin returns a connection of the test's own.
func admin(t testing.TB, c *natsserver.Cluster) jetstream.JetStream {
	t.Helper()
	conn, err := nats.Connect(c.URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

// TestRefusesUnfitStream: a stream is refused for each setting with which it could lose callbacks, or keep them. If a rule
// is taken out, its case fails.
func TestRefusesUnfitStream(t *testing.T) {
	t.Parallel()
	js := admin(t, cluster(t))
	for name, tt := range map[string]struct {
		change func(*jetstream.StreamConfig)
		want   string
	}{
		"one replica":        {func(c *jetstream.StreamConfig) { c.Replicas = 1 }, "it has 1 replicas, not 3"},
		"memory":             {func(c *jetstream.StreamConfig) { c.Storage = jetstream.MemoryStorage }, "its storage is not file"},
		"async":              {func(c *jetstream.StreamConfig) { c.Replicas, c.PersistMode = 1, jetstream.AsyncPersistMode }, "its persist mode"},
		"limits":             {func(c *jetstream.StreamConfig) { c.Retention = jetstream.LimitsPolicy }, "its retention is not workqueue"},
		"interest":           {func(c *jetstream.StreamConfig) { c.Retention = jetstream.InterestPolicy }, "its retention is not workqueue"},
		"drops old":          {func(c *jetstream.StreamConfig) { c.Discard = jetstream.DiscardOld }, "its discard policy is not new"},
		"max age":            {func(c *jetstream.StreamConfig) { c.MaxAge = time.Hour }, "max_age"},
		"max messages":       {func(c *jetstream.StreamConfig) { c.MaxMsgs = 1e9 }, "a limit max_msgs"},
		"max of a subject":   {func(c *jetstream.StreamConfig) { c.MaxMsgsPerSubject = 1e9 }, "max_msgs_per_subject"},
		"small":              {func(c *jetstream.StreamConfig) { c.MaxBytes = 1 << 20 }, "max_bytes is below"},
		"small messages":     {func(c *jetstream.StreamConfig) { c.MaxMsgSize = 1 << 10 }, "max_msg_size is below"},
		"no acknowledgement": {func(c *jetstream.StreamConfig) { c.NoAck = true }, "no_ack"},
		"no delete":          {func(c *jetstream.StreamConfig) { c.DenyDelete = true }, "deny_delete"},
		"no purge":           {func(c *jetstream.StreamConfig) { c.DenyPurge = true }, "deny_purge"},
		"roll-up":            {func(c *jetstream.StreamConfig) { c.AllowRollup = true }, "allow_rollup_hdrs"},
		"lifetime":           {func(c *jetstream.StreamConfig) { c.AllowMsgTTL = true }, "allow_msg_ttl"},
		"copies":             {func(c *jetstream.StreamConfig) { c.Sources = []*jetstream.StreamSource{{Name: "OTHER"}} }, "it copies another stream"},
		"changes subjects": {func(c *jetstream.StreamConfig) {
			c.SubjectTransform = &jetstream.SubjectTransformConfig{Source: c.Subjects[0], Destination: "elsewhere"}
		}, "it changes subjects"},
		"other subjects": {func(c *jetstream.StreamConfig) { c.Subjects = c.Subjects[:1] }, "its subjects are not"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, _ := config(t, cluster(t))
			settings := c.withDefaults().settings()
			tt.change(&settings)
			wait.Until(t, "the stream is made", func() bool {
				_, err := js.CreateStream(putting(t), settings)
				if err != nil {
					t.Log(err)
				}
				return err == nil
			})
			t.Cleanup(func() { _ = js.DeleteStream(context.Background(), c.Name) })
			var err error
			wait.Until(t, "the stream is looked at", func() bool { // the servers may be busy
				var s *Stream
				if s, err = Open(t.Context(), c); err == nil {
					s.Close()
				}
				return err != nil
			})
			if !errors.Is(err, ErrUnfit) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

// TestUnfitLater: a stream that someone changes takes no more callbacks, until it is changed back.
func TestUnfitLater(t *testing.T) {
	t.Parallel()
	c, l := config(t, cluster(t))
	s := open(t, c)
	js := admin(t, cluster(t))
	settings := s.config.settings()
	settings.MaxAge = time.Hour
	if _, err := js.UpdateStream(putting(t), settings); err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	s.checks.at = time.Time{} // it is due
	s.mu.Unlock()
	wait.Until(t, "it is noticed", func() bool { return s.usable() != nil })
	if _, err := s.Put(putting(t), numbered(1)); !errors.Is(err, event.ErrStreamUnwritable) || !errors.Is(err, ErrUnfit) {
		t.Errorf("got %v", err)
	}
	wait.Until(t, "it is logged", func() bool { return strings.Contains(l.String(), "takes no more callbacks") })
	settings.MaxAge = 0
	if _, err := js.UpdateStream(putting(t), settings); err != nil {
		t.Fatal(err)
	}
	wait.Until(t, "it is usable", func() bool { return s.usable() == nil })
	fill(t, s, 1, 2)
}

// TestSyncAlways: servers that acknowledge what they have not fsynced are refused where they can be asked, else a line
// of the log says that they were not.
func TestSyncAlways(t *testing.T) {
	t.Parallel()
	lazy := natstest.Start(t, func(c *natsserver.Config) { c.SyncInterval = "2m" })
	c, l := config(t, lazy)
	var err error
	wait.Until(t, "the servers are asked", func() bool {
		var s *Stream
		if s, err = Open(t.Context(), c); err == nil {
			s.Close()
		}
		return err != nil
	})
	if !errors.Is(err, ErrUnfit) || !strings.Contains(err.Error(), "sync_interval: always") {
		t.Errorf("got %v", err)
	}
	c.MonitorURL, _, _ = strings.Cut(cluster(t).MonitorURL(), ",") // of other servers
	open(t, c)
	if !strings.Contains(l.String(), "is unchecked") || !strings.Contains(l.String(), `servers="n2, n3"`) {
		t.Errorf("log: %s", l)
	}
	c, l = config(t, cluster(t))
	open(t, c)
	if strings.Contains(l.String(), "unchecked") {
		t.Errorf("log of a checked stream: %s", l)
	}
	c.MonitorURL = ""
	open(t, c)
	if strings.Count(l.String(), "is unchecked") != 1 {
		t.Errorf("log without an address: %s", l)
	}
}

// TestCredentials: servers that refuse the credentials are a mistake at the start.
func TestCredentials(t *testing.T) {
	t.Parallel()
	closed := natstest.Start(t, func(c *natsserver.Config) {
		c.Servers = 1
		c.More = "authorization { user: upcall, password: right }"
	})
	c, _ := config(t, closed)
	address := strings.TrimPrefix(c.URL, "nats://")
	for name, url := range map[string]string{"none": c.URL, "wrong": "nats://upcall:wr0ng@" + address} {
		c.URL = url
		if _, err := Open(t.Context(), c); !errors.Is(err, ErrUnfit) || !strings.Contains(err.Error(), "refuse the credentials") ||
			strings.Contains(err.Error(), "wr0ng") {
			t.Errorf("%s: got %v", name, err)
		}
	}
	c.URL = "nats://upcall:right@" + address // one server has no replicas, but that it says
	if _, err := Open(t.Context(), c); !errors.Is(err, ErrUnfit) || !strings.Contains(err.Error(), "three servers") {
		t.Errorf("the right password: %v", err)
	}
	file := filepath.Join(t.TempDir(), "upcall.creds")
	for content, want := range map[string]string{"": "can read", "x": "holds no credentials"} {
		c.CredsFile = file
		if content != "" {
			if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		} else {
			os.Remove(file)
		}
		if _, err := Open(t.Context(), c); err == nil || !strings.Contains(err.Error(), "UPCALL_STREAM_CREDS_FILE") ||
			!strings.Contains(err.Error(), want) {
			t.Errorf("a file %q: %v", content, err)
		}
	}
}

func TestConfigCheck(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"no URL":             {func(c *Config) { c.URL = "" }, "no server is named"},
		"another scheme":     {func(c *Config) { c.URL = "http://a" }, `"http" is neither nats nor tls`},
		"no scheme":          {func(c *Config) { c.URL = "a,b" }, "neither nats nor tls"},
		"no host":            {func(c *Config) { c.URL = "nats://a,,b" }, "a server has no host"},
		"a path":             {func(c *Config) { c.URL = "nats://a/b" }, "more than a host"},
		"not a URL":          {func(c *Config) { c.URL = "nats://user:secret@[" }, "a server is no URL"},
		"monitor's scheme":   {func(c *Config) { c.MonitorURL = "nats://a" }, "UPCALL_STREAM_MONITOR_URL"},
		"a name with a dot":  {func(c *Config) { c.Name = "a.b" }, "cannot be a stream's name"},
		"a name with a star": {func(c *Config) { c.Name = "*" }, "cannot be a stream's name"},
		"small":              {func(c *Config) { c.MaxBytes = 1 }, "UPCALL_STREAM_MAX_BYTES"},
	} {
		c := Config{URL: "nats://a,b,c"}
		if err := c.Check(); err != nil {
			t.Fatal(err)
		}
		tt.change(&c)
		if err := c.Check(); err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: got %v", name, err)
		}
	}
	for list, want := range map[string]string{
		"tls://a,b , c":         "tls://a,tls://b,tls://c", // not b in clear text
		"nats://u:p@a,b":        "nats://u:p@a,nats://u:p@b",
		"nats://u:p@a,tls://b":  "nats://u:p@a,tls://b",
		"nats://a:1,nats://b:2": "nats://a:1,nats://b:2",
	} {
		if got := (Config{URL: list}).urls(); got != want {
			t.Errorf("%s: got %s", list, got)
		}
	}
}
