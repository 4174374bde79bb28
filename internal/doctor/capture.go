package doctor

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"upcall/internal/admission"
)

// A Format is a way in which people record an HTTP request.
type Format string

const (
	Auto Format = "auto" // whichever fits
	Raw  Format = "raw"  // the message itself: request line, headers, empty line, body
	Curl Format = "curl" // what curl -v, --trace or --trace-ascii prints
	HAR  Format = "har"  // HTTP Archive 1.2, JSON, as browsers and proxies export it
)

// MaxFile is the longest capture that is read, in bytes.
const MaxFile = 16 << 20

var (
	// ErrFormat means a file that is not in the given format, or not in any known one.
	ErrFormat = errors.New("not a captured request")
	// ErrEntry means a capture without the requested entry.
	ErrEntry = errors.New("no such request in the capture")
)

// A Header is one header field as recorded, without the blanks around the value. A value
// that was wrapped over several lines contains LF.
type Header struct{ Name, Value string }

// A Capture is one recorded request.
type Capture struct {
	Format  Format
	Method  string
	Target  string // from the request line
	Headers []Header
	Body    []byte
	NoBody  bool      // the recording does not show the body
	At      time.Time // when it came; zero if that is not known
	Notes   []string  // what to know about this recording: what it lost, what was ignored
}

// Get returns the first header of that name, as net/http does, or "".
func (c *Capture) Get(name string) string {
	for _, h := range c.Headers {
		if strings.EqualFold(h.Name, name) {
			return h.Value
		}
	}
	return ""
}

// length is what Content-Length says, or -1.
func (c *Capture) length() int {
	n, err := strconv.ParseUint(c.Get("Content-Length"), 10, 31)
	if err != nil {
		return -1
	}
	return int(n)
}

// request is the capture as the receiver would have received it.
func (c *Capture) request() admission.Request {
	r := admission.Request{
		Method: c.Method, Path: messageTo(c.Target)[thePath], Target: c.Target, Length: int64(len(c.Body)), Body: c.Body,
	}
	header := make(http.Header)
	for _, h := range c.Headers {
		header.Add(h.Name, h.Value)
	}
	// A server takes these out of the header.
	for _, name := range []string{"Host", "Transfer-Encoding", "Trailer"} {
		header.Del(name)
	}
	r.SetHeader(header)
	return r
}

// isCallback reports whether the request looks like OSS's.
func (c *Capture) isCallback() bool {
	return c.Get("x-oss-pub-key-url")+c.Get("x-oss-request-id") != "" || c.Method == "POST" && c.Get("Authorization") != ""
}

// Parse reads a capture. If it has several requests, entry picks one, from 1 on; 0 is the
// first that looks like a callback, or else the first. The error wraps ErrFormat or
// ErrEntry, and shows nothing of the file but line numbers.
func Parse(file []byte, format Format, entry int) (*Capture, error) {
	if len(file) > MaxFile {
		return nil, fmt.Errorf("%w: larger than 16 MiB: cut it down to the callback", ErrFormat)
	}
	if bytes.HasPrefix(file, []byte("\xff\xfe")) || bytes.HasPrefix(file, []byte("\xfe\xff")) {
		return nil, fmt.Errorf("%w: the file is UTF-16, as > in PowerShell writes it: record it again with -o or --trace FILE",
			ErrFormat)
	}
	file, marked := bytes.CutPrefix(file, []byte(byteOrderMark))
	if format == Auto {
		var err error
		if format, err = detect(file); err != nil {
			return nil, err
		}
	}
	parse, ok := parsers[format]
	if !ok {
		return nil, fmt.Errorf("format %q is unknown: use auto, raw, curl or har", format)
	}
	found, err := parse(file)
	if err != nil {
		return nil, err
	}
	c, err := pick(found, entry)
	if err != nil {
		return nil, err
	}
	c.Format = format
	if marked {
		c.note("the file begins with a byte order mark, which an editor added: it was ignored")
	}
	return c, nil
}

var parsers = map[Format]func([]byte) ([]*Capture, error){
	Raw:  parseRaw,
	Curl: parseCurl,
	HAR:  parseHAR,
}

var (
	requestLine = regexp.MustCompile(`^([A-Z]{3,10}) (.*) HTTP/[0-9](\.[0-9])?[ \t]*$`)
	curlLine    = regexp.MustCompile(`(?m)^(> [A-Z]{3,10} .* HTTP/[0-9]|` +
		`([0-9:.]+ )?(\[[0-9x-]+\] )?(=> Send header|== Info:)|` +
		`\* (  Trying|Connected to|Added|Host |Uses proxy|Could not|Hostname))`)
)

// detect recognizes a format by its beginning.
func detect(file []byte) (Format, error) {
	text := bytes.TrimLeft(file, " \t\r\n")
	first, _, _ := bytes.Cut(text, []byte("\n"))
	switch {
	case len(text) == 0:
		return "", fmt.Errorf("%w: the file is empty", ErrFormat)
	case text[0] == '{':
		return HAR, nil
	case requestLine.Match(bytes.TrimRight(first, "\r")):
		return Raw, nil
	case curlLine.Match(text):
		return Curl, nil
	}
	return "", fmt.Errorf("%w: it begins neither with a request line such as POST /oss/callback HTTP/1.1 (raw) "+
		"nor with { (HAR), and has no line of curl -v or --trace", ErrFormat)
}

func pick(found []*Capture, entry int) (*Capture, error) {
	switch {
	case len(found) == 0:
		return nil, fmt.Errorf("%w: there is no request in it", ErrFormat)
	case entry < 0 || entry > len(found):
		return nil, fmt.Errorf("%w: entry %d of %d", ErrEntry, entry, len(found))
	case entry > 0:
		return found[entry-1], nil
	}
	i := max(0, slices.IndexFunc(found, (*Capture).isCallback))
	if len(found) > 1 {
		found[i].note(fmt.Sprintf("request %d of the %d in the capture; --entry picks another", i+1, len(found)))
	}
	return found[i], nil
}

func (c *Capture) note(text string) { c.Notes = append(c.Notes, text) }

// setRequestLine takes method and target from a request line. The target may be any
// text: the diagnosis says what is wrong with it.
func (c *Capture) setRequestLine(line string) bool {
	parts := requestLine.FindStringSubmatch(line)
	if parts == nil {
		return false
	}
	c.Method, c.Target = parts[1], parts[2]
	return true
}

// addHeader takes one line of a header section. A line that continues the value before
// it is joined with LF: a folded one, which begins with a blank, or, after Authorization,
// one of Base64 letters only.
func (c *Capture) addHeader(line string) bool {
	if n := len(c.Headers); n > 0 {
		last := &c.Headers[n-1]
		folded := strings.HasPrefix(line, " ") || strings.HasPrefix(line, "\t")
		if folded || strings.EqualFold(last.Name, "Authorization") && base64Line.MatchString(line) {
			last.Value += "\n" + strings.Trim(line, " \t")
			return true
		}
	}
	// In HTTP/2 the parts of the request line are headers that begin with a colon.
	if rest, ok := strings.CutPrefix(line, ":"); ok {
		name, value, ok := strings.Cut(rest, ":")
		if ok && name == "path" {
			c.Target = strings.Trim(value, " \t")
		}
		return ok
	}
	name, value, ok := strings.Cut(line, ":")
	if !ok || !fieldName.MatchString(name) {
		return false
	}
	c.Headers = append(c.Headers, Header{name, strings.Trim(value, " \t")})
	return true
}

var (
	fieldName  = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")
	base64Line = regexp.MustCompile(`^[A-Za-z0-9+/_-]+=*$`)
)
