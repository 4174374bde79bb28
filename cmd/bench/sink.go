package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"

	"upcall/internal/cli"
	"upcall/internal/webhook"
)

// sinkCommand is the endpoints, in a process of their own. Each is a port that answers at once
// with 204 and keeps its connections, but the first may hang until the sender gives up. It
// writes HTTP itself, because net/http's server would cost as much as the sender under test.
//
// It begins with a sinkHello. For each byte on standard input it writes a sinkReport of what
// has arrived since the last one.
type sinkCommand struct {
	Endpoints int  `required:""`
	Hang      bool // the first one hangs
	Secret    string
}

type sinkHello struct{ Addrs []string }

// A sinkReport says what has arrived.
type sinkReport struct {
	Arrivals []arrival // at the endpoints that answer
	Unsigned int       // requests without the right signature
	Hung     int       // requests to the endpoint that hangs, since the beginning
	Held     int       // of them, those that hang now
	MostHeld int       // and the most at once, for longer than noticed
}

// An arrival is a request, by the number in its object's name and its time.
type arrival struct {
	Number int32 // -1 if there is none
	At     int64 // when it had been read, in nanoseconds since 1970
}

type sinkServer struct {
	key []byte

	mu sync.Mutex
	sinkReport
}

// Run serves until standard input ends.
func (cmd *sinkCommand) Run(std cli.Stdio) error {
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(cmd.Secret, "whsec_"))
	if err != nil {
		return fmt.Errorf("secret: %w", err)
	}
	s, hello := &sinkServer{key: key}, sinkHello{}
	for i := range cmd.Endpoints {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return fmt.Errorf("listen: %w", err)
		}
		defer listener.Close()
		hello.Addrs = append(hello.Addrs, listener.Addr().String())
		go func() {
			for {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				go s.serve(conn, cmd.Hang && i == 0)
			}
		}()
	}
	out := bufio.NewWriter(std.Out)
	encoder, orders := gob.NewEncoder(out), bufio.NewReader(std.In)
	err = encoder.Encode(hello)
	for err == nil {
		if err = out.Flush(); err != nil {
			break
		}
		if _, err := orders.ReadByte(); err != nil {
			return nil
		}
		s.mu.Lock()
		report := s.sinkReport
		s.Arrivals = nil
		s.mu.Unlock()
		err = encoder.Encode(report)
	}
	return err
}

var noContent = []byte("HTTP/1.1 204 No Content\r\n\r\n")

func (s *sinkServer) serve(conn net.Conn, hangs bool) {
	defer conn.Close()
	mac, r := hmac.New(sha256.New, s.key), bufio.NewReaderSize(conn, 16<<10)
	for {
		body, signed, err := readDelivery(r, func(signed ...[]byte) []byte {
			mac.Reset()
			for _, part := range signed {
				mac.Write(part)
			}
			return mac.Sum(nil)
		})
		if err != nil {
			return
		}
		if hangs {
			s.hang(r)
			return
		}
		a := arrival{number(body), time.Now().UnixNano()}
		s.mu.Lock()
		s.Arrivals = append(s.Arrivals, a)
		if !signed {
			s.Unsigned++
		}
		s.mu.Unlock()
		if _, err := conn.Write(noContent); err != nil {
			return
		}
	}
}

// noticed is how long this process may take to notice that the sender has given up. The sender may
// begin another request before that.
const noticed = 100 * time.Millisecond

// hang waits until the sender gives up.
func (s *sinkServer) hang(r *bufio.Reader) {
	s.mu.Lock()
	s.Hung, s.Held = s.Hung+1, s.Held+1
	s.mu.Unlock()
	counting := time.AfterFunc(noticed, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.MostHeld = max(s.MostHeld, s.Held)
	})
	defer counting.Stop()
	_, _ = r.ReadByte()
	s.mu.Lock()
	s.Held--
	s.mu.Unlock()
}

// readDelivery reads a request, and says whether it has the signature of Standard Webhooks.
func readDelivery(r *bufio.Reader, sum func(signed ...[]byte) []byte) (body []byte, signed bool, err error) {
	var id, timestamp, signature []byte
	length := 0
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return nil, false, err
		}
		name, value, _ := bytes.Cut(bytes.TrimSpace(line), []byte(": "))
		switch string(name) {
		case "":
			body = make([]byte, length)
			_, err = io.ReadFull(r, body)
			want, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(string(signature), "v1,"))
			return body, hmac.Equal(want, sum(id, []byte("."), timestamp, []byte("."), body)), err
		case "Content-Length":
			length, err = strconv.Atoi(string(value))
		case "Webhook-Id":
			id = bytes.Clone(value)
		case "Webhook-Timestamp":
			timestamp = bytes.Clone(value)
		case "Webhook-Signature":
			signature = bytes.Clone(value)
		}
		if err != nil {
			return nil, false, err
		}
	}
}

// number returns the number of the callback that a delivery is of: its object is …/NUMBER.jpg.
func number(body []byte) int32 {
	_, rest, _ := bytes.Cut(body, []byte(`"subject":"`))
	key, _, _ := bytes.Cut(rest, []byte(`"`))
	name := key[bytes.LastIndexByte(key, '/')+1:]
	n, err := strconv.ParseInt(strings.TrimSuffix(string(name), ".jpg"), 10, 32)
	if err != nil {
		return -1
	}
	return int32(n)
}

// A sink is the process of a sinkCommand.
type sink struct {
	sinkHello
	secret webhook.Secret
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	out    *gob.Decoder
}

func startSink(ctx context.Context, program string, endpoints int, hang bool) (*sink, error) {
	s := &sink{secret: webhook.NewSecret()}
	args := []string{"sink", "--endpoints", strconv.Itoa(endpoints), "--secret", s.secret.Reveal()}
	if hang {
		args = append(args, "--hang")
	}
	s.cmd = exec.CommandContext(ctx, program, args...)
	s.cmd.Stderr = os.Stderr
	stdin, stdinErr := s.cmd.StdinPipe()
	stdout, stdoutErr := s.cmd.StdoutPipe()
	if err := errors.Join(stdinErr, stdoutErr, s.cmd.Start()); err != nil {
		return nil, fmt.Errorf("start endpoints: %w", err)
	}
	s.stdin, s.out = stdin, gob.NewDecoder(stdout)
	if err := s.out.Decode(&s.sinkHello); err != nil {
		return nil, errors.Join(fmt.Errorf("endpoints did not start: %w", err), s.stop())
	}
	return s, nil
}

// report returns what has arrived since the last report.
func (s *sink) report() (r sinkReport, err error) {
	if _, err = s.stdin.Write([]byte{'\n'}); err == nil {
		err = s.out.Decode(&r)
	}
	if err != nil {
		return r, fmt.Errorf("ask endpoints: %w", err)
	}
	if r.Unsigned > 0 {
		return r, fmt.Errorf("%d deliveries have a wrong signature", r.Unsigned)
	}
	return r, nil
}

func (s *sink) stop() error { return errors.Join(s.stdin.Close(), s.cmd.Wait()) }
