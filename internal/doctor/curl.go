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
	lines := strings.SplitAfter(string(file), "\n")
	if traceBlock.Match(file) {
		return parseTrace(lines)
	}
	return parseVerbose(lines)
}

var (
	// curl puts the time and the connection before these lines if asked to.
	traceBlock = regexp.MustCompile(
		`(?m)^(?:[0-9:.]+ )?(?:\[[0-9x-]+\] )?=> Send (header|data), ([0-9]+) bytes \(0x[0-9a-f]+\)\r?$`)
	traceLine = regexp.MustCompile(`^([0-9a-f]{4,8}): ?(.*)$`)
	traceHex  = regexp.MustCompile(`^(?:[0-9a-f]{2} ){1,16}`)
)

// A traced is a block of a trace.
type traced struct {
	header bool
	size   int // bytes that the block announces
	line   int // of the file
	rows   []tracedRow
	ended  bool // by output of curl itself
}

type tracedRow struct{ offset, text string }

// parseTrace reads the blocks of a trace. A header block begins a request, and a data
// block belongs to the request before it.
func parseTrace(lines []string) ([]*Capture, error) {
	blocks, err := tracedBlocks(lines)
	if err != nil {
		return nil, err
	}
	var found []*Capture
	for _, b := range blocks {
		content, lossy, err := b.content()
		if err != nil {
			return nil, fmt.Errorf("%w: block at line %d %w", ErrFormat, b.line, err)
		}
		if b.header {
			requests, err := parseRaw(content)
			if err != nil {
				return nil, err
			}
			requests[0].Notes = nil
			found = append(found, requests[0])
			continue
		}
		if len(found) == 0 {
			return nil, fmt.Errorf("%w: the trace begins with data: the block of headers is missing", ErrFormat)
		}
		c := found[len(found)-1]
		c.Body = append(c.Body, content...)
		if lossy {
			c.note("--trace-ascii shows a dot for each byte that it does not print, such as LF: record with --trace instead")
		}
	}
	for _, c := range found {
		if c.isChunked() {
			c.Body, _ = dechunk(c.Body)
		}
	}
	return found, nil
}

func tracedBlocks(lines []string) ([]*traced, error) {
	var blocks []*traced
	block := &traced{ended: true}
	for i, line := range lines {
		line = strings.TrimRight(line, "\r\n")
		if start := traceBlock.FindStringSubmatch(line); start != nil {
			size, err := strconv.Atoi(start[2])
			if err != nil || size > MaxFile {
				return nil, fmt.Errorf("%w: line %d: block of %s bytes", ErrFormat, i+1, start[2])
			}
			block = &traced{header: start[1] == "header", size: size, line: i + 1}
			blocks = append(blocks, block)
		} else if row := traceLine.FindStringSubmatch(line); row != nil && !block.ended {
			block.rows = append(block.rows, tracedRow{row[1], row[2]})
		} else if line != "" {
			block.ended = true
		}
	}
	return blocks, nil
}

// content joins the block's bytes. It is lossy if a dot may be another byte.
func (b *traced) content() (content []byte, lossy bool, err error) {
	if content, ok := b.exact(); ok {
		return content, false, nil
	}
	// The ASCII format breaks lines at CRLF, which the offsets reveal, and shows a dot for
	// each byte that it does not print.
	for _, row := range b.rows {
		if row.offset == offsetOf(len(content)+2) {
			content = append(content, "\r\n"...)
		}
		if row.offset != offsetOf(len(content)) {
			return nil, false, fmt.Errorf("lacks bytes before offset %s", row.offset)
		}
		content = append(content, row.text...)
	}
	if missing := b.size - len(content); missing == 2 || missing == 4 {
		content = append(content, "\r\n\r\n"[:missing]...)
	}
	if len(content) != b.size {
		return nil, false, fmt.Errorf("has %d bytes instead of the %d that it announces", len(content), b.size)
	}
	return content, !b.header && bytes.ContainsRune(content, '.'), nil
}

// exact returns the bytes of a hexadecimal block, each of whose lines except the last shows
// 16 bytes.
func (b *traced) exact() (content []byte, ok bool) {
	for _, row := range b.rows {
		digits := traceHex.FindString(row.text)
		shown, _ := hex.DecodeString(strings.ReplaceAll(digits, " ", "")) // traceHex has two digits for each byte
		full := len(shown) > 0 && len(shown) == min(b.size-len(content), 16)
		if !full || row.offset != offsetOf(len(content)) {
			return nil, false
		}
		content = append(content, shown...)
	}
	return content, len(content) == b.size
}

// offsetOf is how a trace writes an offset.
func offsetOf(n int) string { return fmt.Sprintf("%04x", n) }

var verboseProgress = regexp.MustCompile(`^[{}] \[[0-9]+ bytes data\]$`)

// parseVerbose reads curl -v: lines of the request begin with "> ". curl does not show
// the body of a request, but people paste it where it belongs: the text between the
// request and curl's next line is the body.
func parseVerbose(lines []string) ([]*Capture, error) {
	var found []*Capture
	var c *Capture
	inBody := false
	for i, line := range lines {
		text := strings.TrimRight(line, "\r\n")
		sent, isSent := strings.CutPrefix(text, ">")
		sent = strings.TrimPrefix(sent, " ")
		inHead := isSent && c != nil && !inBody
		switch {
		case isSent && requestLine.MatchString(sent):
			c, inBody = new(Capture), false
			c.setRequestLine(sent)
			found = append(found, c)
		case inHead && strings.TrimSpace(sent) == "":
			inBody = true
		case inHead:
			if !c.addHeader(sent) {
				return nil, fmt.Errorf("%w: line %d is not a header such as > Name: value", ErrFormat, i+1)
			}
		case strings.HasPrefix(text, "* ") || strings.HasPrefix(text, "< ") || text == "<":
			if inBody {
				c, inBody = nil, false
			}
		case verboseProgress.MatchString(text):
		case inBody:
			c.Body = append(c.Body, line...)
		case c != nil && text != "" && !c.addHeader(text):
			return nil, fmt.Errorf("%w: line %d is neither from curl nor a wrapped header", ErrFormat, i+1)
		}
	}
	for _, c := range found {
		c.NoBody = len(c.Body) == 0 && c.Get("Content-Length") != "0"
	}
	return found, nil
}
