package intake

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"upcall/internal/callbackspec"
)

// TestEveryAnswerIsOurs sends what net/http answers without a handler, and a callback behind it on the
// same connection: there is one answer for each request, and none for a callback that is not recorded.
func TestEveryAnswerIsOurs(t *testing.T) {
	t.Parallel()
	o := newOSS(t)
	s := serve(t, o, nil, nil)
	genuine := func(reqID string) []byte {
		var message bytes.Buffer
		r := o.request(t, s.Public, path, form, issued(t, "a.txt", reqID).body(t, callbackspec.Form))
		if err := r.Write(&message); err != nil {
			t.Fatal(err)
		}
		return message.Bytes()
	}
	t.Run("table", func(t *testing.T) {
		for i, tt := range []struct {
			name, message string
			status        int
			goesOn        bool // the connection stays open for more
		}{
			{"OPTIONS *", "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", 404, true},
			{"OPTIONS of the path", "OPTIONS " + path + " HTTP/1.1\r\nHost: x\r\n\r\n", 405, true},
			{"POST *", "POST * HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", 404, true},
			{"OPTIONS * of HTTP/1.0", "OPTIONS * HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", 404, true},
			{"unknown expectation", "POST " + path + " HTTP/1.1\r\nHost: x\r\nExpect: nonsense\r\nContent-Length: 0\r\n\r\n", 400, false},
			{"two expectations", "POST " + path + " HTTP/1.1\r\nHost: x\r\nExpect: 200-ok, 100-go\r\nContent-Length: 0\r\n\r\n", 400, false},
			{"unknown expectation of HTTP/1.0", "POST " + path + " HTTP/1.0\r\nExpect: x\r\nContent-Length: 0\r\n\r\n", 400, false},
			{"unknown expectation, body on the way",
				"POST " + path + " HTTP/1.1\r\nHost: x\r\nExpect: x\r\nContent-Length: 3000000\r\n\r\n" + strings.Repeat("a", 3e6), 400, false},
			{"HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 404, false},
			{"HTTP/3", "POST " + path + " HTTP/3.0\r\nHost: x\r\n\r\n", 400, false},
		} {
			t.Run(tt.name, func(t *testing.T) {
				t.Parallel()
				conn, err := net.Dial("tcp", strings.TrimPrefix(s.Public, "http://"))
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				conn.SetDeadline(time.Now().Add(30 * time.Second))
				go conn.Write(append([]byte(tt.message), genuine(fmt.Sprintf("R%d", i))...))
				answers := bufio.NewReader(conn)
				response, err := http.ReadResponse(answers, nil)
				if err != nil {
					t.Fatal(err)
				}
				if got := readAnswer(t, response); got.Code != tt.status || got.Error.Message == "" {
					t.Errorf("got %d %s, want %d", got.Code, got.Raw, tt.status)
				}
				if !tt.goesOn {
					if rest, err := io.ReadAll(answers); len(rest) != 0 || err != nil {
						t.Errorf("the answer is followed by %q, %v; want the connection closed", rest, err)
					}
					return
				}
				response, err = http.ReadResponse(answers, nil)
				if err != nil {
					t.Fatal(err)
				}
				if got := readAnswer(t, response); got.Code != 200 {
					t.Errorf("the callback behind it got %d %s", got.Code, got.Raw)
				}
				conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
				if rest, _ := answers.Peek(1); len(rest) != 0 {
					all, _ := answers.Peek(answers.Buffered())
					t.Errorf("the answers are followed by %q", all)
				}
			})
		}
	})
	if n := count(t, s.pool); n != 4 {
		t.Errorf("%d rows, want those of the 4 callbacks that were answered", n)
	}
}

// TestStrangersHeaders: headers that do not end cost little memory, whatever they offer, and a long
// path costs little log.
func TestStrangersHeaders(t *testing.T) {
	t.Parallel()
	o := newOSS(t)
	s := serve(t, o, nil, nil)
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	const strangers, offered = 150, 19 * 100 << 10
	flood := []byte("POST " + path + " HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("X: "+strings.Repeat("a", 1<<10)+"\r\n", offered>>10))
	before := heap()
	var most uint64
	var sent sync.WaitGroup
	answers := make(chan answered, strangers)
	for range strangers {
		conn, err := net.Dial("tcp", strings.TrimPrefix(s.Public, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		sent.Go(func() {
			go conn.Write(flood)
			answers <- answerOn(t, conn)
		})
	}
	go func() { sent.Wait(); close(answers) }()
	for got := range answers {
		most = max(most, heap())
		if got.Code != 413 {
			t.Errorf("got %d %s", got.Code, got.Raw)
		}
	}
	if grown := int(most-before) / strangers; most > before && grown > 400<<10 {
		t.Errorf("each connection takes %d KiB", grown>>10)
	}

	for _, target := range []string{"/" + strings.Repeat("\xff", 70<<10), "/" + strings.Repeat("%0a", 20<<10), "/" + strings.Repeat("文", 20<<10)} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(s.Public, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		go fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", target)
		if got := answerOn(t, conn); got.Code != 404 {
			t.Errorf("got %d %s", got.Code, got.Raw)
		}
	}
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(s.log.String()) {
		if len(line) > 14<<10 {
			t.Errorf("a log line of %d bytes: %s…", len(line), line[:200])
		}
	}
}
