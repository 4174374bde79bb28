package manifest

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
)

// MaxSize is the maximum size of a manifest, in bytes. One of 10,000 parts takes about eight
// million, or five times that with the longest key.
const MaxSize = 64 << 20

// ErrManifest means something other than a manifest, or one that asks for more than an
// upload needs.
var ErrManifest = errors.New("bad manifest")

func badManifest(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrManifest}, args...)...)
}

// Read reads and checks a manifest, or a presigned URL alone. It ignores unknown fields. The
// error wraps ErrManifest or is about reading. It never holds a URL, because anyone who has
// one may upload.
func Read(r io.Reader) (Manifest, error) {
	var read bytes.Buffer
	if file, ok := r.(*os.File); ok {
		// A large manifest is not copied from buffer to larger buffer.
		if info, err := file.Stat(); err == nil && info.Mode().IsRegular() {
			read.Grow(int(min(info.Size(), MaxSize)) + bytes.MinRead)
		}
	}
	if _, err := read.ReadFrom(io.LimitReader(r, MaxSize+1)); err != nil {
		return Manifest{}, fmt.Errorf("read manifest: %w", err)
	}
	if read.Len() > MaxSize {
		return Manifest{}, badManifest("it is longer than %d bytes; give the JSON of `issuer put` or `issuer multipart create`", MaxSize)
	}
	m, err := parse(bytes.TrimSpace(read.Bytes()))
	if err != nil {
		return Manifest{}, err
	}
	return m, m.Check()
}

func parse(text []byte) (m Manifest, err error) {
	if bytes.HasPrefix(text, []byte("http://")) || bytes.HasPrefix(text, []byte("https://")) {
		return Manifest{Put: &Upload{Method: http.MethodPut, URL: string(text)}}, nil
	}
	// The two kinds share upload_id and more; these fields tell them apart.
	var kind struct {
		URL   *anything `json:"url"`
		Parts *anything `json:"parts"`
		Form  *anything `json:"fields"`
	}
	if err := json.Unmarshal(text, &kind); err != nil {
		return m, badManifest("it is neither a URL nor a JSON object; " +
			"give the JSON of `issuer put --format json` or `issuer multipart create`")
	}
	switch {
	case kind.Form != nil:
		return m, badManifest("it is a form, which a web page sends; give the JSON of `issuer put --format json` or `issuer multipart create`")
	case kind.URL != nil && kind.Parts != nil:
		return m, badManifest("it has both a url and parts; give one upload")
	case kind.URL != nil:
		m.Put = new(Upload)
		err = json.Unmarshal(text, m.Put)
	case kind.Parts != nil:
		m.Multipart = new(Multipart)
		err = json.Unmarshal(text, m.Multipart)
	default:
		return m, badManifest("it has neither a url nor parts; give the JSON of `issuer put --format json` or `issuer multipart create`")
	}
	if err != nil {
		return m, badManifest("%s", jsonProblem(err))
	}
	return m, nil
}

// anything is a value whose content does not matter.
type anything struct{}

func (*anything) UnmarshalJSON([]byte) error { return nil }

// jsonProblem says what is wrong with a document without quoting it.
func jsonProblem(err error) string {
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return fmt.Sprintf("%s has the wrong type, %s", cmp.Or(wrong.Field, "it"), wrong.Value)
	}
	return "a value is malformed, for example a UUID or an RFC 3339 time"
}
