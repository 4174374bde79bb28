package doctor

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// writeRaw writes a capture as an HTTP message.
func writeRaw(c *Capture) []byte { return append(head(c), c.Body...) }

func head(c *Capture) []byte {
	var out strings.Builder
	fmt.Fprintf(&out, "%s %s HTTP/1.1\r\n", c.Method, c.Target)
	for _, h := range c.Headers {
		fmt.Fprintf(&out, "%s: %s\r\n", h.Name, h.Value)
	}
	out.WriteString("\r\n")
	return []byte(out.String())
}

// writeHAR writes a capture as an archive with a single entry.
func writeHAR(t testing.TB, c *Capture) []byte {
	t.Helper()
	type pair struct {
		Name  string `json:"name"`
		Value string `json:"value"`
	}
	headers := make([]pair, 0, len(c.Headers))
	for _, h := range c.Headers {
		headers = append(headers, pair(h))
	}
	out, err := json.Marshal(map[string]any{
		"request": map[string]any{
			"method": c.Method, "url": c.Target, "headers": headers,
			"postData": map[string]any{"mimeType": "text/plain", "text": string(c.Body)},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// writeTrace writes a capture as curl --trace does.
func writeTrace(c *Capture) []byte {
	out := "15:34:04.649659 == Info:   Trying 127.0.0.1:8080...\n" + traceOf("header", head(c))
	if len(c.Body) > 0 {
		out += traceOf("data", c.Body)
	}
	return []byte(out + "<= Recv header, 17 bytes (0x11)\n" +
		"0000: 48 54 54 50 2f 31 2e 30 20 32 30 30 20 4f 4b 0d HTTP/1.0 200 OK.\n" +
		"0010: 0a                                              .\n")
}

func traceOf(what string, content []byte) string {
	var out strings.Builder
	fmt.Fprintf(&out, "15:34:04.650433 => Send %s, %d bytes (0x%x)\n", what, len(content), len(content))
	for at := 0; at < len(content); at += 16 {
		row := content[at:min(at+16, len(content))]
		digits, plain := "", ""
		for _, b := range row {
			digits += fmt.Sprintf("%02x ", b)
			if b < ' ' || b > 0x7e {
				b = '.'
			}
			plain += string(rune(b))
		}
		fmt.Fprintf(&out, "%04x: %-48s%s\n", at, digits, plain)
	}
	return out.String()
}
