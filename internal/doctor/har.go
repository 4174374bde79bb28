package doctor

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
)

// harFile is the part of an HTTP Archive that the doctor reads.
//
// Source: HTTP Archive 1.2 (http://www.softwareishard.com/blog/har-12-spec/).
type harFile struct {
	Log struct {
		Entries []harEntry `json:"entries"`
	} `json:"log"`
	harEntry // a single one, as some tools copy it
}

type harEntry struct {
	Request *harRequest `json:"request"`
}

type harRequest struct {
	Method   string   `json:"method"`
	URL      string   `json:"url"`
	Headers  []Header `json:"headers"`
	PostData *struct {
		MimeType string   `json:"mimeType"`
		Text     *string  `json:"text"`
		Encoding string   `json:"encoding"` // "base64" in archives of some proxies
		Params   []Header `json:"params"`
	} `json:"postData"`
	BodySize *int64 `json:"bodySize"`
}

func parseHAR(file []byte) ([]*Capture, error) {
	var archive harFile
	if err := json.Unmarshal(file, &archive); err != nil {
		return nil, fmt.Errorf("%w: the archive is not JSON in HAR's format: %w", ErrFormat, err)
	}
	entries := archive.Log.Entries
	if archive.Request != nil {
		entries = append(entries, archive.harEntry)
	}
	var found []*Capture
	for i, entry := range entries {
		r := entry.Request
		if r == nil || r.Method == "" || r.URL == "" {
			return nil, fmt.Errorf("%w: entry %d of the archive has no request with method and url", ErrFormat, i+1)
		}
		c, err := r.capture()
		if err != nil {
			return nil, fmt.Errorf("%w: entry %d of the archive: %w", ErrFormat, i+1, err)
		}
		found = append(found, c)
	}
	return found, nil
}

func (r *harRequest) capture() (*Capture, error) {
	c := &Capture{Method: r.Method, Target: cutOrigin(r.URL)}
	for _, h := range r.Headers {
		switch {
		case h.Name == ":path": // of HTTP/2: the target itself
			c.Target = h.Value
		case !strings.HasPrefix(h.Name, ":"):
			c.Headers = append(c.Headers, h)
		}
	}
	data := r.PostData
	switch {
	case data == nil:
		c.NoBody = r.BodySize == nil || *r.BodySize != 0
		return c, nil
	case data.Text != nil && data.Encoding == "base64":
		body, err := base64.StdEncoding.DecodeString(*data.Text)
		if err != nil {
			return nil, fmt.Errorf("postData.text is not Base64: %w", err)
		}
		c.Body = body
	case data.Text != nil && (*data.Text != "" || len(data.Params) == 0):
		c.Body = []byte(*data.Text)
	default:
		var pairs []string
		for _, p := range data.Params {
			pairs = append(pairs, url.QueryEscape(p.Name)+"="+url.QueryEscape(p.Value))
		}
		c.Body = []byte(strings.Join(pairs, "&"))
		c.note("the archive has the fields of the body but not the body itself, which was rebuilt from the fields")
	}
	if c.Get("Content-Type") == "" && data.MimeType != "" {
		c.Headers = append(c.Headers, Header{"Content-Type", data.MimeType})
	}
	return c, nil
}

// cutOrigin returns the request target of a URL: what follows scheme and host.
func cutOrigin(raw string) string {
	_, rest, ok := strings.Cut(raw, "://")
	if !ok {
		return raw
	}
	rest, _, _ = strings.Cut(rest, "#")
	target := strings.TrimLeftFunc(rest, func(c rune) bool { return c != '/' && c != '?' })
	if !strings.HasPrefix(target, "/") {
		return "/" + target
	}
	return target
}
