package ossemu

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"sync"
	"time"

	"upcall/internal/fault"
)

// Faults say what goes wrong with callbacks and notifications. PUT /_ossemu/faults sets them,
// GET shows them, {} ends them. Uploads themselves are never disturbed: the object is
// stored whatever happens to its callback. Faults hold for the objects that are stored or
// removed while they are set, however much later their callbacks and notifications are sent.
type Faults struct {
	// Drop loses the callback: nothing is sent. The uploader gets what OSS gives when
	// a receiver does not answer, a 203 CallbackFailed with "reply timeout", at once.
	Drop bool `json:"drop,omitempty"`

	// DropAnswer sends the callback and loses the receiver's answer: the receiver may
	// have recorded the upload, the uploader gets the same 203 as with Drop, and OSS's
	// next URL is tried.
	DropAnswer bool `json:"drop_answer,omitempty"`

	// Delay is the time between storing the object and calling back, at most 1m. The
	// uploader waits as well.
	Delay Duration `json:"delay,omitempty"`

	// Duplicate is how many more times each request is sent, byte for byte the same,
	// after the first was answered; 0 to 10000. The uploader sees the first answer.
	Duplicate int `json:"duplicate,omitempty"`
	// Concurrent sends the duplicates at the same time as the first.
	Concurrent bool `json:"concurrent,omitempty"`

	// CorruptSignature changes one character of the signature.
	CorruptSignature bool `json:"corrupt_signature,omitempty"`
	// ForeignKeyURL is announced as the public key's URL. The signature is still made
	// with the emulator's own key.
	ForeignKeyURL string `json:"foreign_key_url,omitempty"`

	// SpaceAs is how form bodies spell a space: "%20" (default) or "+". OSS's own
	// spelling is not documented.
	SpaceAs string `json:"space_as,omitempty"`
	// HexCase is the case of percent-escapes in form bodies: "upper" (default) or "lower".
	HexCase string `json:"hex_case,omitempty"`
	// PathPlus is what "+" in the callback URL's path is in the string to sign: "keep"
	// (default) or "space", as OSS's PHP, Java and Ruby samples have it.
	PathPlus string `json:"path_plus,omitempty"`
	// PathEscapes is whether percent-escapes in that path are "decoded" (default) in
	// the string to sign, or "raw".
	PathEscapes string `json:"path_escapes,omitempty"`

	// DropNotification loses the notification: nothing is pushed, and the answer to the
	// upload has no x-oss-event-status.
	DropNotification bool `json:"drop_notification,omitempty"`
	// DelayNotification is added to the delay of the configuration, at most 24h.
	DelayNotification Duration `json:"delay_notification,omitempty"`
	// DuplicateNotification is how many more times the message is pushed after the receiver
	// took it; 0 to 10000. Like MNS's own repeats they have the same message id, and a
	// signature and date of their own.
	DuplicateNotification int `json:"duplicate_notification,omitempty"`
	// DropXVars leaves the custom variables of the callback out of the notification.
	DropXVars bool `json:"drop_x_vars,omitempty"`

	// Count is for how many uploads the faults hold that have a callback or a notification;
	// 0 until they are replaced. GET shows how many are left.
	Count int `json:"count,omitempty"`
}

// Values of the spelling faults that differ from the default.
const (
	SpaceAsPlus    = "+"
	HexCaseLower   = "lower"
	PathPlusSpace  = "space"
	PathEscapesRaw = "raw"
)

const (
	maxDelay       = time.Minute
	maxNotifyDelay = 24 * time.Hour
	maxDuplicate   = 10000
)

// A Duration is written as Go writes it: "3s", "250ms".
type Duration time.Duration

func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	*d = Duration(v)
	return err
}

// parseFaults reads a document strictly: a misspelled fault that did nothing would
// make a test pass that tests nothing.
func parseFaults(data []byte) (Faults, error) {
	var f Faults
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&f); err != nil {
		return Faults{}, fmt.Errorf("read faults: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return Faults{}, errors.New("read faults: there is something after the JSON object")
	}
	return f, f.check()
}

func (f Faults) check() error {
	var faults fault.List
	if f.Delay < 0 || time.Duration(f.Delay) > maxDelay {
		faults.AddAt("", "delay must be from 0s to %s", maxDelay)
	}
	if f.Duplicate < 0 || f.Duplicate > maxDuplicate {
		faults.AddAt("", "duplicate must be from 0 to %d", maxDuplicate)
	}
	if f.DelayNotification < 0 || time.Duration(f.DelayNotification) > maxNotifyDelay {
		faults.AddAt("", "delay_notification must be from 0s to %s", maxNotifyDelay)
	}
	if f.DuplicateNotification < 0 || f.DuplicateNotification > maxDuplicate {
		faults.AddAt("", "duplicate_notification must be from 0 to %d", maxDuplicate)
	}
	if f.Concurrent && f.Duplicate == 0 {
		faults.AddAt("", "concurrent needs duplicate")
	}
	if f.Count < 0 {
		faults.AddAt("", "count must not be negative")
	}
	if f.ForeignKeyURL != "" {
		u, err := url.Parse(f.ForeignKeyURL)
		if err != nil || u.Scheme == "" || u.Host == "" {
			faults.AddAt("", "foreign_key_url must be a URL")
		}
	}
	for _, choice := range []struct{ name, value, a, b string }{
		{"space_as", f.SpaceAs, "%20", SpaceAsPlus},
		{"hex_case", f.HexCase, "upper", HexCaseLower},
		{"path_plus", f.PathPlus, "keep", PathPlusSpace},
		{"path_escapes", f.PathEscapes, "decoded", PathEscapesRaw},
	} {
		if choice.value != "" && choice.value != choice.a && choice.value != choice.b {
			faults.AddAt("", "%s must be %q or %q", choice.name, choice.a, choice.b)
		}
	}
	return faults.Err()
}

// spell rewrites the escapes of a form body. "+" and "%20" mean the same in a form, so
// the constants of the template may be rewritten with the values.
func (f Faults) spell(body string) string {
	if f.SpaceAs == SpaceAsPlus {
		body = strings.ReplaceAll(body, "%20", "+")
	}
	if f.HexCase != HexCaseLower {
		return body
	}
	out := []byte(body)
	for i := 0; i+2 < len(out); i++ {
		if out[i] == '%' {
			copy(out[i+1:], bytes.ToLower(out[i+1:i+3]))
		}
	}
	return string(out)
}

// corrupt changes one character in the middle of a Base64 signature, so that it keeps
// its length and stays Base64.
func corrupt(signature string) string {
	b := []byte(signature)
	middle := len(b) / 2
	if b[middle] == 'A' {
		b[middle] = 'B'
	} else {
		b[middle] = 'A'
	}
	return string(b)
}

// A faultBox holds the faults of the moment.
type faultBox struct {
	mu     sync.Mutex
	faults Faults
}

func (b *faultBox) set(f Faults) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.faults = f
}

func (b *faultBox) get() Faults {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.faults
}

// take returns the faults for one upload and counts it.
func (b *faultBox) take() Faults {
	b.mu.Lock()
	defer b.mu.Unlock()
	f := b.faults
	switch f.Count {
	case 0:
	case 1:
		b.faults = Faults{}
	default:
		b.faults.Count--
	}
	return f
}
