package export

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"encoding/json"
	"io"

	"upcall/internal/event"
)

// A Format is how events are written.
type Format struct {
	extension   string // of files, without the dot, which is the format's name
	contentType string
	begin       func(w io.Writer) (encoder, error)
}

// Formats are all formats.
var Formats = []Format{
	{"csv", "text/csv; charset=utf-8", beginCSV},
	{"jsonl", "application/jsonl", beginJSON},
	{"parquet", "application/vnd.apache.parquet", beginParquet},
}

// FormatNamed returns a format by the extension of its files.
func FormatNamed(name string) (Format, bool) {
	for _, f := range Formats {
		if f.extension == name {
			return f, true
		}
	}
	return Format{}, false
}

// An encoder writes events to a file.
type encoder interface {
	add(e *event.Event) error
	end() error
}

// columnNames are the names of the columns in every format.
func columnNames() []string {
	var names []string
	for _, c := range event.Members {
		names = append(names, c.Member())
	}
	return names
}

// jsonLines writes one event a line.
type jsonLines struct {
	w    *bufio.Writer
	line []byte
}

func beginJSON(w io.Writer) (encoder, error) {
	return &jsonLines{w: bufio.NewWriterSize(w, writeBuffer)}, nil
}

func (j *jsonLines) add(e *event.Event) (err error) {
	if j.line, err = e.AppendJSON(j.line[:0]); err != nil {
		return err
	}
	j.line = append(j.line, '\n')
	_, err = j.w.Write(j.line)
	return err
}

func (j *jsonLines) end() error { return j.w.Flush() }

// lines writes RFC 4180 with a header, but with line feeds alone. An empty field is null: no
// text of an event is empty.
type lines struct {
	w      *csv.Writer
	record []string
	text   []byte
}

func beginCSV(w io.Writer) (encoder, error) {
	names := columnNames()
	l := &lines{w: csv.NewWriter(w), record: make([]string, len(names))}
	return l, l.w.Write(names)
}

func (l *lines) add(e *event.Event) error {
	for i, c := range event.Members {
		if text, ok := c.Field(e).(*string); ok {
			l.record[i] = *text
			continue
		}
		var err error
		if l.text, err = appendText(l.text[:0], c, e); err != nil {
			return err
		}
		l.record[i] = string(l.text)
	}
	return l.w.Write(l.record)
}

func (l *lines) end() error {
	l.w.Flush()
	return l.w.Error()
}

// appendText appends the value of a column that is not a text, as in JSON, but without quotes
// and with nothing for null.
func appendText(dst []byte, c event.Column, e *event.Event) ([]byte, error) {
	member, err := c.AppendMember(dst, e)
	if err != nil {
		return dst, err
	}
	_, value, _ := bytes.Cut(member[len(dst):], []byte{':'})
	if _, isVars := c.Field(e).(*map[string]json.RawMessage); !isVars {
		value = bytes.Trim(value, `"`)
	}
	if string(value) == "null" {
		value = nil
	}
	return append(dst, value...), nil
}
