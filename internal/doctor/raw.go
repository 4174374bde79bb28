package doctor

import (
	"bytes"
	"fmt"
	"io"
	"net/http/httputil"
	"regexp"
	"strings"
)

// maxLines bounds the header section.
const maxLines = 1000

// parseRaw reads an HTTP/1 message. Lines may end in LF or CRLF up to the empty one;
// from there on every byte is body.
func parseRaw(file []byte) ([]*Capture, error) {
	rest := bytes.TrimLeft(file, "\r\n")
	skipped := bytes.Count(file[:len(file)-len(rest)], []byte("\n"))
	c := new(Capture)
	bareLF := false
	for n := 1; ; n++ {
		line, after, ended := bytes.Cut(rest, []byte("\n"))
		text, crlf := bytes.CutSuffix(line, []byte("\r"))
		bareLF = bareLF || ended && !crlf
		rest = after
		switch {
		case n == 1:
			if !c.setRequestLine(string(text)) {
				return nil, fmt.Errorf("%w: line %d is not a request line such as POST /oss/callback HTTP/1.1",
					ErrFormat, skipped+n)
			}
		case n > maxLines:
			return nil, fmt.Errorf("%w: more than %d lines without the empty line that ends the headers", ErrFormat, maxLines)
		case len(text) == 0:
			if !ended {
				c.note("the file ends after the headers, with no empty line and no body")
			}
			c.finishRaw(rest, bareLF)
			return []*Capture{c}, nil
		case !c.addHeader(string(text)):
			return nil, fmt.Errorf("%w: line %d is not a header such as Name: value; an empty line separates headers and body",
				ErrFormat, skipped+n)
		}
	}
}

var laterResponse = regexp.MustCompile(`(?:\r?\n)*HTTP/1\.[01] [1-5][0-9][0-9] `)

func (c *Capture) finishRaw(body []byte, bareLF bool) {
	if bareLF {
		c.note("header lines end in LF, so an editor wrote this file: it may have changed the body, too")
	}
	if c.isChunked() {
		if whole, ok := dechunk(body); ok {
			c.Body = whole
			c.note("the body was chunked; its chunks were joined")
			return
		}
		c.note("the headers say that the body is chunked, but it is not")
	}
	// A recording of the whole connection has the response after the request.
	if n := c.length(); n >= 0 && n < len(body) {
		if at := laterResponse.FindIndex(body[n:]); at != nil && at[0] == 0 {
			body = body[:n]
			c.note("a response after the request was ignored")
		}
	}
	c.Body = bytes.Clone(body)
}

func (c *Capture) isChunked() bool { return strings.EqualFold(c.Get("Transfer-Encoding"), "chunked") }

// dechunk undoes the chunked transfer coding, or returns body if not all of it is chunked.
func dechunk(body []byte) (whole []byte, ok bool) {
	whole, err := io.ReadAll(io.LimitReader(httputil.NewChunkedReader(bytes.NewReader(body)), MaxFile))
	if err != nil {
		return body, false
	}
	return whole, true
}
