// Package listen is a sample of an application that is told of uploads. It verifies each delivery
// with the reference library of Standard Webhooks, acts on each event once, and prints a line.
package listen

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"upcall/internal/webhook"
)

const (
	// maxBody is the longest delivery in bytes. Ours are a few kilobytes.
	maxBody = 1 << 20
	// maxKnown is how many events are remembered. An application keeps theirs in its database.
	maxKnown = 10_000
)

// Config configures a listener.
type Config struct {
	// Secret is that of the endpoint.
	Secret webhook.Secret
	// Out gets a line for each event. Required.
	Out io.Writer
	// JSON prints events as they were sent, each on a line.
	JSON bool
	// Notes gets a line for each delivery that was refused or came again. Default Out.
	Notes io.Writer
	// Now is the clock of the lines. Default time.Now.
	Now func() time.Time
}

// A Listener is an HTTP handler for deliveries to one endpoint.
type Listener struct {
	config   Config
	verifier *standardwebhooks.Webhook

	mu    sync.Mutex      // also held while a line is written
	known map[string]bool // the ids of latest
	ids   []string        // the latest events; a ring once it is full
	next  int             // the oldest in ids
}

// New returns a listener.
func New(cfg Config) (*Listener, error) {
	verifier, err := standardwebhooks.NewWebhook(cfg.Secret.Reveal())
	if err != nil {
		return nil, fmt.Errorf("use secret: %w", err)
	}
	if cfg.Notes == nil {
		cfg.Notes = cfg.Out
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Listener{config: cfg, verifier: verifier, known: make(map[string]bool)}, nil
}

// delivery is what the listener reads of a CloudEvent of ours.
type delivery struct {
	ID   string `json:"id"`
	Type string `json:"type"`
	Data struct {
		Bucket    *string                    `json:"bucket"`
		ObjectKey *string                    `json:"object_key"`
		Size      *int64                     `json:"size"`
		MimeType  *string                    `json:"mime_type"`
		Vars      map[string]json.RawMessage `json:"vars"`
	} `json:"data"`
}

// ServeHTTP answers 204 once the event is printed, also if it was printed before. 500 has the
// delivery sent again.
func (l *Listener) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "deliveries are POSTed", http.StatusMethodNotAllowed)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		l.refuse(w, http.StatusBadRequest, fmt.Errorf("read body: %w", err))
		return
	}
	// Before anything of it is read: until then it may come from anyone.
	if err := l.verifier.Verify(body, r.Header); err != nil {
		l.refuse(w, http.StatusUnauthorized, err)
		return
	}
	var d delivery
	if err := json.Unmarshal(body, &d); err != nil || d.ID == "" {
		l.refuse(w, http.StatusBadRequest, cmp.Or(err, errors.New("the event has no id")))
		return
	}
	if err := l.once(d, body); err != nil {
		http.Error(w, "not printed", http.StatusInternalServerError)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// once prints an event that was not printed before, and remembers it only if that succeeded.
func (l *Listener) once(d delivery, body []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.known[d.ID] {
		_, err := fmt.Fprintln(l.config.Notes, l.now(), "again   ", d)
		return err
	}
	line := []byte(fmt.Sprintln(l.now(), "verified", d))
	if l.config.JSON {
		var compact bytes.Buffer
		if err := json.Compact(&compact, body); err != nil {
			return err
		}
		line = append(compact.Bytes(), '\n')
	}
	if _, err := l.config.Out.Write(line); err != nil {
		return err
	}
	l.known[d.ID] = true
	if len(l.ids) < maxKnown {
		l.ids = append(l.ids, d.ID)
		return nil
	}
	delete(l.known, l.ids[l.next])
	l.ids[l.next] = d.ID
	l.next = (l.next + 1) % maxKnown
	return nil
}

// refuse does not tell the sender why: that would help them to forge.
func (l *Listener) refuse(w http.ResponseWriter, status int, reason error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	why := strings.TrimPrefix(reason.Error(), "unable to verify payload, err: ") // the library says this of all
	_, _ = fmt.Fprintln(l.config.Notes, l.now(), "refused ", plain(why))
	http.Error(w, http.StatusText(status), status)
}

func (l *Listener) now() string { return l.config.Now().Format(time.TimeOnly) }

// String is what a line says of the event. Keys and variables are the uploader's words, so that
// they are quoted if a terminal could take them for anything else than text.
func (d delivery) String() string {
	kind := strings.TrimSuffix(strings.TrimPrefix(strings.TrimPrefix(d.Type, "upcall."), "upload."), ".v1")
	parts := []string{fmt.Sprintf("%s: %s in %s", plain(kind), text(d.Data.ObjectKey), text(d.Data.Bucket))}
	if d.Data.Size != nil {
		parts = append(parts, strconv.FormatInt(*d.Data.Size, 10)+" bytes")
	}
	if d.Data.MimeType != nil {
		parts = append(parts, text(d.Data.MimeType))
	}
	for _, name := range slices.Sorted(maps.Keys(d.Data.Vars)) {
		value := string(d.Data.Vars[name])
		var unquoted string
		if json.Unmarshal(d.Data.Vars[name], &unquoted) == nil {
			value = unquoted
		}
		parts = append(parts, word(name)+"="+word(value))
	}
	return strings.Join(append(parts, "event "+plain(d.ID)), ", ")
}

// text returns a text of the event, which may be missing.
func text(s *string) string {
	if s == nil {
		return "?"
	}
	return plain(*s)
}

// plain quotes what is not printable.
func plain(s string) string {
	if strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) || r == unicode.ReplacementChar }) {
		return strconv.Quote(s)
	}
	return s
}

// word quotes what is not one word, too.
func word(s string) string {
	if s == "" || strings.ContainsAny(s, ` ,="`) {
		return strconv.Quote(s)
	}
	return plain(s)
}
