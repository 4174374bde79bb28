package stream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

const (
	// replicas is how many servers have each message: one may be lost.
	replicas = 3
	// maxFrame is the longest record that may be put into the stream. A callback's body has at most 64 KiB, of which
	// each byte may take six in JSON.
	maxFrame = 512 << 10
	// consumer is the name of the only one. All receivers share it.
	consumer = "receivers"
	// ackWait is how long a receiver has to record what it was handed out. Nobody else has it meanwhile.
	ackWait = 30 * time.Second
	// maxAckPending is the most messages that all receivers together have been handed out.
	maxAckPending = 20_000
	// monitorTimeout bounds a request to one monitoring address.
	monitorTimeout = 2 * time.Second
)

// settings returns those of a stream that this program makes.
func (c Config) settings() jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name: c.Name, Subjects: []string{c.waiting(), c.dead("*")}, Description: "Upcall: callbacks that wait for PostgreSQL",
		Retention: jetstream.WorkQueuePolicy, Storage: jetstream.FileStorage, Replicas: replicas,
		Discard: jetstream.DiscardNew, MaxBytes: c.MaxBytes / int64(c.all), MaxMsgs: -1, MaxMsgsPerSubject: -1, MaxMsgSize: maxFrame,
		MaxConsumers: -1, Duplicates: 2 * time.Minute,
	}
}

var errMissing = errors.New("there is no stream")

// check finds out whether the stream keeps what was acknowledged. If there is none, and make says so, it makes it.
func (s *Stream) check(ctx context.Context, make bool) error {
	stream, queue, err := s.find(ctx, make)
	if err == nil {
		err = s.checkSync(ctx, stream.CachedInfo())
	}
	err = s.because(err)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.checks.at = s.config.Now()
	if err != nil && !errors.Is(err, ErrUnfit) && !errors.Is(s.unfit, errUnchecked) {
		return err // it cannot be asked now, and was as it was
	}
	if s.unfit = err; err == nil {
		s.stream, s.queue = stream, queue
	}
	return err
}

// find returns the stream and its consumer, if they fit.
func (s *Stream) find(ctx context.Context, make bool) (jetstream.Stream, jetstream.Consumer, error) {
	name := s.config.Name
	stream, err := s.js.Stream(ctx, name)
	if errors.Is(err, jetstream.ErrStreamNotFound) && make {
		stream, err = s.js.CreateStream(ctx, s.config.settings())
		if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) { // another receiver was quicker
			stream, err = s.js.Stream(ctx, name)
		}
	}
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound):
		return nil, nil, fmt.Errorf("%w: %w %s: a receiver makes it", ErrUnfit, errMissing, name)
	case errors.Is(err, jetstream.ErrJetStreamNotEnabled), errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount),
		isAPI(err, notClustered):
		return nil, nil, fmt.Errorf("%w: %w: it needs a cluster of three servers with JetStream", ErrUnfit, err)
	case err != nil:
		return nil, nil, fmt.Errorf("look at stream %s: %w", name, err)
	}
	if wrong := s.config.wrong(stream.CachedInfo().Config); len(wrong) > 0 {
		return nil, nil, fmt.Errorf("%w: stream %s could lose callbacks: %s: change it, or let a receiver make another one with "+
			"UPCALL_STREAM_NAME", ErrUnfit, name, strings.Join(wrong, "; "))
	}
	if most := s.conn.MaxPayload(); most < maxFrame {
		return nil, nil, fmt.Errorf("%w: the servers take messages of %d bytes, but callbacks may need %d: set max_payload", ErrUnfit,
			most, maxFrame)
	}
	queue, err := stream.CreateOrUpdateConsumer(ctx, jetstream.ConsumerConfig{
		Durable: consumer, FilterSubject: s.config.waiting(), DeliverPolicy: jetstream.DeliverAllPolicy,
		AckPolicy: jetstream.AckExplicitPolicy, AckWait: ackWait, MaxDeliver: -1, MaxAckPending: maxAckPending,
	})
	if err != nil {
		return nil, nil, fmt.Errorf("look at consumer %s of stream %s: %w", consumer, name, err)
	}
	return stream, queue, nil
}

// notClustered is the code of a server that cannot have replicas.
const notClustered = 10074

func isAPI(err error, code jetstream.ErrorCode) bool {
	api, ok := errors.AsType[*jetstream.APIError](err)
	return ok && api.ErrorCode == code
}

// wrong returns what in a stream's settings could lose a callback, or keeps them from PostgreSQL.
func (c Config) wrong(is jetstream.StreamConfig) []string {
	var wrong []string
	for _, rule := range []struct {
		broken bool
		text   string
	}{
		{is.Replicas < replicas, fmt.Sprintf("it has %d replicas, not %d", is.Replicas, replicas)},
		{is.Storage != jetstream.FileStorage, "its storage is not file"},
		{is.PersistMode != jetstream.DefaultPersistMode, "its persist mode acknowledges what is not on disk"},
		{is.Retention != jetstream.WorkQueuePolicy, "its retention is not workqueue"},
		{is.Discard != jetstream.DiscardNew, "its discard policy is not new, so that it drops old messages when it is full"},
		{is.MaxAge != 0, "it drops messages after max_age"},
		{is.MaxMsgs > 0, "it has a limit max_msgs"},
		{is.MaxMsgsPerSubject > 0, "it has a limit max_msgs_per_subject"},
		{is.MaxBytes > 0 && is.MaxBytes < minMaxBytes/int64(c.all), fmt.Sprintf("its max_bytes is below %d", minMaxBytes/c.all)},
		{is.MaxMsgSize > 0 && is.MaxMsgSize < maxFrame, fmt.Sprintf("its max_msg_size is below %d", maxFrame)},
		{is.NoAck, "no_ack: it acknowledges nothing"},
		{is.Sealed, "it is sealed"},
		{is.DenyDelete || is.DenyPurge, "deny_delete or deny_purge: dead letters could not be retried"},
		{is.AllowRollup, "allow_rollup_hdrs: a message could delete others"},
		{is.AllowMsgTTL, "allow_msg_ttl: a message could be dropped"},
		{is.Mirror != nil || len(is.Sources) > 0, "it copies another stream"},
		{is.SubjectTransform != nil, "it changes subjects"},
		{!slices.Contains(is.Subjects, c.waiting()) || !slices.Contains(is.Subjects, c.dead("*")),
			fmt.Sprintf("its subjects are not %s and %s", c.waiting(), c.dead("*"))},
	} {
		if rule.broken {
			wrong = append(wrong, rule.text)
		}
	}
	return wrong
}

// checkSync asks the monitoring addresses whether their servers fsync always, and logs for which of the servers
// that is unchecked.
func (s *Stream) checkSync(ctx context.Context, info *jetstream.StreamInfo) error {
	fsyncs := make(map[string]bool) // names of servers that do
	var problems []string
	for _, address := range split(s.config.MonitorURL) {
		if address == "" {
			continue
		}
		server, err := ask(ctx, address)
		switch {
		case err != nil:
			problems = append(problems, err.Error())
		case !server.JetStream.Config.SyncAlways:
			return fmt.Errorf("%w: server %s acknowledges what it has not fsynced: set sync_interval: always in jetstream {}", ErrUnfit,
				server.Name)
		default:
			fsyncs[server.Name] = true
		}
	}
	var unchecked []string
	for _, name := range members(info) {
		if !fsyncs[name] {
			unchecked = append(unchecked, name)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := strings.Join(unchecked, ", "); now != s.checks.unchecked {
		if s.checks.unchecked = now; now != "" {
			s.config.Logger.WarnContext(ctx, "stream: whether these servers have sync_interval: always is unchecked; see UPCALL_STREAM_MONITOR_URL",
				slog.String("servers", now), slog.Any("problems", problems))
		}
	}
	return nil
}

// members returns the names of the servers that have the stream.
func members(info *jetstream.StreamInfo) []string {
	if info.Cluster == nil {
		return nil
	}
	names := []string{info.Cluster.Leader}
	for _, peer := range info.Cluster.Replicas {
		names = append(names, peer.Name)
	}
	slices.Sort(names)
	return slices.DeleteFunc(names, func(name string) bool { return name == "" })
}

// A monitored server, of its /varz.
type monitored struct {
	Name      string `json:"server_name"`
	JetStream struct {
		Config struct {
			SyncAlways bool `json:"sync_always"`
		} `json:"config"`
	} `json:"jetstream"`
}

// maxVarz is the longest answer that is read.
const maxVarz = 4 << 20

func ask(ctx context.Context, address string) (server monitored, err error) {
	ctx, cancel := context.WithTimeout(ctx, monitorTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(address, "/")+"/varz", nil)
	if err != nil {
		return server, err
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Do(r)
	if err != nil {
		return server, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return server, fmt.Errorf("%s answers %s", r.URL.Redacted(), answer.Status)
	}
	if err := json.NewDecoder(io.LimitReader(answer.Body, maxVarz)).Decode(&server); err != nil {
		return server, fmt.Errorf("%s: %w", r.URL.Redacted(), err)
	}
	return server, nil
}
