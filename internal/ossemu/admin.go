package ossemu

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// PublicKeyPath is where the public key is served.
const PublicKeyPath = "/_ossemu/callback_pub_key.pem"

// ringSize is how many deliveries are remembered.
const ringSize = 1000

// A Delivery is one request that was sent, or that a fault kept from being sent, and what
// came back. GET /_ossemu/callbacks lists callbacks, GET /_ossemu/notifications pushes of
// notifications, newest last.
type Delivery struct {
	SentAt       time.Time   `json:"sent_at"`
	RequestID    string      `json:"request_id"` // of the upload
	Operation    string      `json:"operation"`  // of a notification the event's name
	Bucket       string      `json:"bucket"`
	Object       string      `json:"object"`
	URL          string      `json:"url"`
	Target       string      `json:"target"` // as on the request line
	Host         string      `json:"host"`
	Header       http.Header `json:"header"`
	Body         string      `json:"body"`
	StringToSign string      `json:"string_to_sign"`

	Message json.RawMessage `json:"message,omitempty"` // the event in the body of a notification
	Attempt int             `json:"attempt,omitempty"` // of a notification: 1 for the first push

	Status       int         `json:"status"` // 0 if there was no answer
	AnswerHeader http.Header `json:"answer_header,omitempty"`
	Answer       string      `json:"answer"`
	Error        string      `json:"error,omitempty"` // why OSS would call it failed; "" on success
	Duration     int64       `json:"duration_ms"`
}

// A ring remembers the last deliveries.
type ring struct {
	mu         sync.Mutex
	deliveries []Delivery
	era        era
}

// An era lasts until a reset, which closes it. What began before belongs to a test that is over.
type era chan struct{}

func (e era) over() bool {
	select {
	case <-e:
		return true
	default:
		return false
	}
}

// now returns the era that a callback begins in.
func (r *ring) now() era {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.era
}

// add remembers a delivery, unless its era is over.
func (r *ring) add(began era, d Delivery) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if began != r.era {
		return
	}
	r.deliveries = append(r.deliveries[max(0, len(r.deliveries)-ringSize+1):], d)
}

// list returns the deliveries of one object, or of all if object is "".
func (r *ring) list(object string) []Delivery {
	r.mu.Lock()
	defer r.mu.Unlock()
	found := []Delivery{}
	for _, d := range r.deliveries {
		if object == "" || d.Object == object {
			found = append(found, d)
		}
	}
	return found
}

func (r *ring) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.deliveries = nil
}

// reset forgets all deliveries, begins an era, and returns how many there were.
func (r *ring) reset() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := len(r.deliveries)
	close(r.era)
	r.deliveries, r.era = nil, make(era)
	return n
}

func (s *Server) servePublicKey(c *call) error {
	return c.write(http.StatusOK, "application/x-pem-file", []byte(PublicKeyPEM))
}

func (s *Server) serveHealth(c *call) error {
	return c.writeJSON(http.StatusOK, map[string]string{"status": "ok"})
}

// serveCallbacks lists what was sent; ?object= picks one object key.
func (s *Server) serveCallbacks(c *call) error {
	return c.writeJSON(http.StatusOK, s.ring.list(c.query["object"]))
}

func (s *Server) forgetCallbacks(c *call) error {
	s.ring.forget()
	return c.writeNothing(http.StatusNoContent)
}

// serveNotifications lists what was pushed; ?object= picks one object key.
func (s *Server) serveNotifications(c *call) error {
	return c.writeJSON(http.StatusOK, s.pushed.list(c.query["object"]))
}

func (s *Server) forgetNotifications(c *call) error {
	s.pushed.forget()
	return c.writeNothing(http.StatusNoContent)
}

// reset ends what a test has left behind, for the next one. Buckets stay.
func (s *Server) reset(c *call) error {
	s.faults.set(Faults{})
	callbacks, notifications := s.ring.reset(), s.pushed.reset()
	objects, uploads, err := s.store.reset()
	if err != nil {
		return fmt.Errorf("reset: %w", err)
	}
	counts := struct {
		Callbacks     int  `json:"callbacks"`
		Uploads       int  `json:"multipart_uploads"`
		Objects       int  `json:"objects"`
		Notifications *int `json:"notifications,omitempty"`
	}{Callbacks: callbacks, Uploads: uploads, Objects: objects}
	if s.cfg.NotifyURL != "" {
		counts.Notifications = &notifications
	}
	return c.writeJSON(http.StatusOK, counts)
}

func (s *Server) serveFaults(c *call) error {
	return c.writeJSON(http.StatusOK, s.faults.get())
}

func (s *Server) putFaults(c *call) error {
	data, err := io.ReadAll(io.LimitReader(c.r.Body, 64<<10))
	if err != nil {
		return fmt.Errorf("read faults: %w", err)
	}
	f, err := parseFaults(data)
	if err != nil {
		return c.refuseJSON(http.StatusBadRequest, "bad_faults", err.Error())
	}
	s.faults.set(f)
	return c.writeJSON(http.StatusOK, f)
}

func (c *call) refuseJSON(status int, code, message string) error {
	return c.writeJSON(status, map[string]any{"error": map[string]string{"code": code, "message": message}})
}

func (c *call) writeJSON(status int, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("marshal answer: %w", err)
	}
	return c.write(status, "application/json", append(body, '\n'))
}

func (c *call) write(status int, contentType string, body []byte) error {
	h := c.w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	c.w.WriteHeader(status)
	_, _ = c.w.Write(body) // a client that is gone cannot be told
	return nil
}

// writeNothing sends an answer without a body.
func (c *call) writeNothing(status int) error {
	if status != http.StatusNoContent {
		c.w.Header().Set("Content-Length", "0")
	}
	c.w.WriteHeader(status)
	return nil
}
