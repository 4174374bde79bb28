package ossemu

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// How MNS pushes with the strategy BACKOFF_RETRY: three more times, 10 to 20 s apart.
const (
	pushes       = 4
	pushPauseMin = 10 * time.Second
	pushPauseMax = 20 * time.Second
	pushesAtOnce = 64
)

// eventStatus is what OSS answers where it published an event.
const eventStatus = `{"Result":"Ok"}`

// notify publishes one event, unless nobody is to be notified. It returns at once.
func (s *Server) notify(c *call, h happening, f Faults) {
	if s.cfg.NotifyURL == "" {
		return
	}
	if f.DropXVars {
		h.vars = nil
	}
	if !f.DropNotification {
		c.w.Header().Set("x-oss-event-status", base64.StdEncoding.EncodeToString([]byte(eventStatus)))
	}
	d, m, err := s.publish(c, h)
	if err != nil {
		s.cfg.Logger.LogAttrs(c.r.Context(), slog.LevelError, "notification not made", slog.String("error", err.Error()))
		return
	}
	keyURL, began := s.keyURL(c), s.pushed.now()
	if f.DropNotification {
		d.SentAt, d.Error = s.cfg.Now().UTC(), "dropped by fault, not sent"
		s.pushed.add(began, d)
		return
	}
	go func() {
		s.wait(s.cfg.NotifyDelay+time.Duration(f.DelayNotification), began)
		for range 1 + f.DuplicateNotification {
			s.pushAll(d, m, keyURL, began)
		}
	}()
}

// publish makes the message, and what is listed of each push of it.
func (s *Server) publish(c *call, h happening) (Delivery, message, error) {
	document, err := h.document(c, s.cfg.Region)
	if err != nil {
		return Delivery{}, message{}, fmt.Errorf("make event: %w", err)
	}
	m, err := s.cfg.message(document)
	if err != nil {
		return Delivery{}, message{}, fmt.Errorf("make message: %w", err)
	}
	u, err := url.Parse(s.cfg.NotifyURL)
	if err != nil {
		return Delivery{}, message{}, errors.New("parse notification URL: it was checked before")
	}
	if u.Path == "" {
		u.Path = "/notifications" // where MNS pushes to if the endpoint names no path
	}
	return Delivery{RequestID: c.id, Operation: h.name, Bucket: h.o.Bucket, Object: h.o.Key, URL: u.String(),
		Target: u.RequestURI(), Host: u.Host, Body: m.body, Message: document}, m, nil
}

// pushAll pushes a message until the receiver takes it or there were enough attempts.
func (s *Server) pushAll(d Delivery, m message, keyURL string, began era) {
	for attempt := 1; attempt <= pushes && !began.over(); attempt++ {
		if attempt > 1 {
			s.wait(pushPauseMin+rand.N(pushPauseMax-pushPauseMin), began)
		}
		if attempt > 1 && s.closing.Err() != nil || began.over() {
			return
		}
		d.Attempt = attempt
		if s.pushOnce(d, m, keyURL, began) {
			return
		}
	}
}

// pushOnce sends one push, records it with what came back, and reports whether the receiver took it.
func (s *Server) pushOnce(d Delivery, m message, keyURL string, began era) bool {
	s.pushing <- struct{}{}
	defer func() { <-s.pushing }()
	d.Header, d.StringToSign = s.cfg.push(m, d.Target, keyURL)
	d.SentAt = s.cfg.Now().UTC()
	err := s.caller.push(&d)
	d.Duration = s.cfg.Now().Sub(d.SentAt).Milliseconds()
	if err != nil {
		d.Error = err.Error()
	}
	s.pushed.add(began, d)
	return err == nil
}

// push sends d and fills in what came back. MNS wants 204, within 5 s.
func (c *caller) push(d *Delivery) error {
	ctx, cancel := context.WithTimeout(context.Background(), c.timeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, d.URL, strings.NewReader(d.Body))
	if err != nil {
		return fmt.Errorf("make push: %w", err)
	}
	r.Header, r.Close = d.Header.Clone(), true
	resp, err := c.plain.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close() // only read
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	d.Status, d.AnswerHeader, d.Answer = resp.StatusCode, resp.Header, string(body)
	if err == nil && resp.StatusCode != http.StatusNoContent {
		err = fmt.Errorf("answered %d, not %d", resp.StatusCode, http.StatusNoContent)
	}
	return err
}
