package doctor

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// parseCurl reads what curl -v prints, or what curl --trace or --trace-ascii writes.
func parseCurl(file []byte) ([]*Capture, error) {
	if traceBlock.Match(file) {
		return parseTrace(file)
	}
	return parseVerbose(file)
}

// curl puts the time and the connection before these lines if asked to.
const tracePrefix = `(?:[0-9:.]+ )?(?:\[[0-9x-]+\] )?`

var (
	traceBlock = regexp.MustCompile(`(?m)^` + tracePrefix + `=> Send (header|data), ([0-9]+) bytes \(0x[0-9a-f]+\)\r?$`)
	traceOther = regexp.MustCompile(`^` + tracePrefix + `(?:== Info:|<= Recv |=> Send )`)
	traceLine  = regexp.MustCompile(`^([0-9a-f]{4,8}): ?(.*)$`)
	traceHex   = regexp.MustCompile(`^((?:[0-9a-f]{2} ){1,16}) *`)
)

// parseTrace reads the blocks of a trace. The hexadecimal kind is exact. The ASCII
// kind breaks lines where CRLF was, which the offsets tell, and shows a dot for each
// byte that it does not print.
func parseTrace(file []byte) ([]*Capture, error) {
	var found []*Capture
	var block *traced
	finish := func() error {
		if block == nil {
			return nil
		}
		done := block
		block = nil
		content, lossy, err := done.content()
		if err != nil {
			return err
		}
		return sendTraced(&found, done.header, content, lossy)
	}
	for i, line := range strings.Split(string(file), "\n") {
		line = strings.TrimSuffix(line, "\r")
		if start := traceBlock.FindStringSubmatch(line); start != nil {
			if err := finish(); err != nil {
				return nil, err
			}
			size, err := strconv.Atoi(start[2])
			if err != nil || size > MaxFile {
				return nil, fmt.Errorf("%w: line %d: block of %s bytes", ErrFormat, i+1, start[2])
			}
			block = &traced{header: start[1] == "header", size: size, line: i + 1}
			continue
		}
		if traceOther.MatchString(line) {
			if err := finish(); err != nil {
				return nil, err
			}
			continue
		}
		if block != nil && line != "" {
			block.lines = append(block.lines, line)
		}
	}
	if err := finish(); err != nil {
		return nil, err
	}
	for _, c := range found {
		if strings.EqualFold(c.Get("Transfer-Encoding"), "chunked") {
			if whole, ok := dechunk(c.Body); ok {
				c.Body = whole
			}
		}
	}
	return found, nil
}

// sendTraced adds a block of sent bytes: headers begin a request, data belongs to the
// one before.
func sendTraced(found *[]*Capture, header bool, content []byte, lossy bool) error {
	if header {
		requests, err := parseRaw(content)
		if err != nil {
			return err
		}
		c := requests[0]
		c.Notes = nil
		*found = append(*found, c)
		return nil
	}
	if len(*found) == 0 {
		return fmt.Errorf("%w: the trace begins with data: the block of headers is missing", ErrFormat)
	}
	c := (*found)[len(*found)-1]
	c.Body = append(c.Body, content...)
	if lossy {
		c.note("--trace-ascii shows a dot for each byte that it does not print, such as LF: record with --trace instead")
	}
	return nil
}

// A traced is one block of a trace.
type traced struct {
	header bool
	size   int // bytes that the block says it has
	line   int // of the file
	lines  []string
}

// content puts the block's bytes together.
func (b *traced) content() (content []byte, lossy bool, err error) {
	content = make([]byte, 0, min(b.size, 1<<16))
	exact := b.isHex()
	for _, line := range b.lines {
		parts := traceLine.FindStringSubmatch(line)
		if parts == nil {
			break // output of curl itself, mixed in
		}
		offset, err := strconv.ParseUint(parts[1], 16, 31)
		if err != nil {
			return nil, false, fmt.Errorf("%w: block at line %d: offset %s", ErrFormat, b.line, parts[1])
		}
		if !exact && int(offset) == len(content)+2 {
			content = append(content, "\r\n"...)
		}
		if int(offset) != len(content) {
			return nil, false, fmt.Errorf("%w: block at line %d: bytes are missing before offset %s", ErrFormat, b.line, parts[1])
		}
		if !exact {
			content = append(content, parts[2]...)
			lossy = lossy || strings.Contains(parts[2], ".")
			continue
		}
		digits := strings.ReplaceAll(traceHex.FindStringSubmatch(parts[2])[1], " ", "")
		raw, err := hex.DecodeString(digits)
		if err != nil {
			return nil, false, fmt.Errorf("%w: block at line %d: %w", ErrFormat, b.line, err)
		}
		content = append(content, raw...)
	}
	if missing := b.size - len(content); !exact && (missing == 2 || missing == 4) {
		content = append(content, "\r\n\r\n"[:missing]...)
	}
	if len(content) != b.size {
		return nil, false, fmt.Errorf("%w: block at line %d has %d bytes instead of the %d that it announces",
			ErrFormat, b.line, len(content), b.size)
	}
	return content, lossy && !b.header, nil
}

// isHex tells a hexadecimal block from an ASCII one: each of its lines but the last
// tells of 16 bytes.
func (b *traced) isHex() bool {
	left := b.size
	for _, line := range b.lines {
		parts := traceLine.FindStringSubmatch(line)
		if parts == nil {
			break
		}
		digits := traceHex.FindStringSubmatch(parts[2])
		if digits == nil || len(digits[1]) != 3*min(left, 16) {
			return false
		}
		left -= min(left, 16)
	}
	return left == 0
}

var verboseProgress = regexp.MustCompile(`^[{}] \[[0-9]+ bytes data\]$`)

// parseVerbose reads curl -v: lines of the request begin with "> ". curl does not show
// the body of a request; what stands between the request and the next line of curl's
// is taken for it, as people paste it there.
func parseVerbose(file []byte) ([]*Capture, error) {
	var found []*Capture
	var c *Capture
	inBody := false
	var body bytes.Buffer
	finish := func() {
		if c == nil {
			return
		}
		c.Body = bytes.Clone(body.Bytes())
		if body.Len() == 0 {
			c.NoBody = c.Get("Content-Length") != "0"
		}
		body.Reset()
		found, c, inBody = append(found, c), nil, false
	}
	for i, line := range strings.SplitAfter(string(file), "\n") {
		text := strings.TrimRight(line, "\r\n")
		sent, isSent := strings.CutPrefix(text, ">")
		sent = strings.TrimPrefix(sent, " ")
		switch {
		case isSent && requestLine.MatchString(sent):
			finish()
			c = new(Capture)
			c.setRequestLine(sent)
		case isSent && c != nil && !inBody && strings.TrimSpace(sent) == "":
			inBody = true
		case isSent && c != nil && !inBody:
			if !c.addHeader(sent) {
				return nil, fmt.Errorf("%w: line %d is not a header such as > Name: value", ErrFormat, i+1)
			}
		case strings.HasPrefix(text, "* ") || strings.HasPrefix(text, "< ") || text == "<":
			if inBody {
				finish()
			}
		case verboseProgress.MatchString(text):
		case inBody:
			body.WriteString(line)
		case c != nil && text != "" && !c.addHeader(text):
			return nil, fmt.Errorf("%w: line %d is neither from curl nor a wrapped header", ErrFormat, i+1)
		}
	}
	finish()
	return found, nil
}
