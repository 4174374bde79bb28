package issueapi

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"

	"upcall/internal/eventstore"
)

// Repeats keeps the answers to requests that may come again. It is an interface so that tests can make it fail, and a
// benchmark can do without a database.
type Repeats interface {
	Begin(ctx context.Context, r eventstore.Repeatable) (eventstore.Repeatable, []byte, error)
	Answer(ctx context.Context, r eventstore.Repeatable, answer []byte) error
	Forget(ctx context.Context, r eventstore.Repeatable) error
}

// maxRepeatKey is how long an Idempotency-Key may be, in bytes.
const maxRepeatKey = 255

// forgetTimeout limits how long a request that failed takes to be forgotten.
const forgetTimeout = 2 * time.Second

// repeatable returns a handler that gives a request with an Idempotency-Key the answer that it had, if it comes again: a
// client whose connection broke cannot know whether its request was answered. Only answers that issued something are
// kept; a request that was refused may be repeated, and is then judged again.
func (s *Server) repeatable(
	handle func(context.Context, *gin.Context, *caller) (any, error),
) func(context.Context, *gin.Context, *caller) (any, error) {
	return func(ctx context.Context, c *gin.Context, who *caller) (any, error) {
		names := c.Request.Header.Values("Idempotency-Key")
		if len(names) == 0 {
			return handle(ctx, c, who)
		}
		if err := checkRepeatKey(names); err != nil {
			return nil, err
		}
		body, err := readBody(c.Request)
		if err != nil {
			return nil, err
		}
		c.Request.Body = io.NopCloser(bytes.NewReader(body))
		box, err := newBox(c.Request.Header.Get("Authorization"), names[0])
		if err != nil {
			return nil, err
		}
		request, kept, err := s.cfg.Repeats.Begin(ctx, eventstore.Repeatable{
			APIKeyID: who.id, Key: digest("key", names[0]), Request: digest("request", c.FullPath(), string(body)),
		})
		switch {
		case errors.Is(err, eventstore.ErrOtherRequest):
			return nil, problemOf(kindReused, "was used with another request in the last day; give each request its own")
		case errors.Is(err, eventstore.ErrRepeat):
			return nil, inProgress(err)
		case err != nil:
			return nil, err
		case kept != nil:
			return box.open(kept)
		}
		answer, err := handle(ctx, c, who)
		if err == nil {
			var text []byte
			if text, err = marshalAnswer(answer); err == nil {
				err = s.cfg.Repeats.Answer(ctx, request, box.seal(text))
			}
			if errors.Is(err, eventstore.ErrRepeat) {
				return nil, inProgress(err)
			}
		}
		if err != nil {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), forgetTimeout)
			defer cancel()
			return nil, errors.Join(err, s.cfg.Repeats.Forget(ctx, request))
		}
		return answer, nil
	}
}

// checkRepeatKey accepts one text of printable ASCII, as of most clients: a UUID.
func checkRepeatKey(names []string) error {
	if len(names) == 1 && names[0] != "" && len(names[0]) <= maxRepeatKey && !bytes.ContainsFunc([]byte(names[0]),
		func(r rune) bool { return r < ' ' || r >= 0x7f }) {
		return nil
	}
	return problemOf(kindRepeatKey, fmt.Sprintf("is not one text of 1 to %d printable ASCII characters; give a UUID", maxRepeatKey))
}

func inProgress(cause error) error {
	p := problemOf(kindInProgress, "an earlier request with this Idempotency-Key is being answered; try again")
	p.cause, p.retryAfter = cause, time.Second
	return p
}

// digest is over parts that no other parts have in common with them.
func digest(parts ...string) []byte {
	hash := sha256.New()
	for _, part := range parts {
		fmt.Fprintf(hash, "%d:%s", len(part), part)
	}
	return hash.Sum(nil)
}

// A box encrypts answers with a key that only the application has: until they expire, presigned URLs are as sensitive as
// passwords, and a reader of the database or its backups must not be able to upload.
type box struct{ sealer cipher.AEAD }

func newBox(authorization, name string) (box, error) {
	key, err := hkdf.Key(sha256.New, []byte(authorization), []byte(name), "upcall answer 1", 32)
	if err != nil {
		return box{}, fmt.Errorf("derive key: %w", err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return box{}, fmt.Errorf("use key: %w", err)
	}
	sealer, err := cipher.NewGCMWithRandomNonce(block)
	return box{sealer}, err
}

// seal also compresses: a manifest has thousands of URLs that are alike.
func (b box) seal(text []byte) []byte {
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	_, _ = w.Write(text) // to memory
	_ = w.Close()
	return b.sealer.Seal(nil, nil, packed.Bytes(), nil)
}

func (b box) open(sealed []byte) (any, error) {
	packed, err := b.sealer.Open(nil, nil, sealed, nil)
	if err != nil {
		return nil, fmt.Errorf("read the answer that was kept: %w", err)
	}
	r, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, fmt.Errorf("read the answer that was kept: %w", err)
	}
	text, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("read the answer that was kept: %w", err)
	}
	return json.RawMessage(text), nil
}

// marshalAnswer returns an answer as it is sent.
func marshalAnswer(answer any) ([]byte, error) {
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false) // URLs are full of ampersands
	if err := enc.Encode(answer); err != nil {
		return nil, fmt.Errorf("marshal answer: %w", err)
	}
	return text.Bytes(), nil
}

var (
	kindRepeatKey  = kind{"malformed", http.StatusBadRequest, "The request cannot be read", "idempotency_key"}
	kindInProgress = kind{"in-progress", http.StatusConflict, "The same request is being answered", "idempotency_key"}
	kindReused     = kind{"reused-key", http.StatusUnprocessableEntity, "The Idempotency-Key belongs to another request", "idempotency_key"}
)
