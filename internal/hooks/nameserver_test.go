package hooks

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// A nameServer answers each question for an IPv4 address with the next of its answers, and
// repeats the last.
type nameServer struct {
	conn  net.PacketConn
	delay chan struct{} // no answer before it is closed; nil is none

	mu      sync.Mutex
	answers []string
}

func newNameServer(t *testing.T, answers []string, delay chan struct{}) *nameServer {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := &nameServer{conn: conn, answers: answers, delay: delay}
	var work sync.WaitGroup
	work.Go(n.serve)
	t.Cleanup(func() { conn.Close(); work.Wait() })
	return n
}

// resolver asks this server only.
func (n *nameServer) resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", n.conn.LocalAddr().String())
	}}
}

func (n *nameServer) serve() {
	buffer := make([]byte, 1500)
	for {
		size, from, err := n.conn.ReadFrom(buffer)
		if err != nil {
			return
		}
		var question dnsmessage.Message
		if question.Unpack(buffer[:size]) != nil || len(question.Questions) != 1 {
			continue
		}
		asked := question.Questions[0]
		reply := dnsmessage.Message{
			Header: dnsmessage.Header{ID: question.ID, Response: true, RecursionAvailable: true}, Questions: question.Questions}
		if n.delay != nil {
			<-n.delay
		}
		if asked.Type == dnsmessage.TypeA {
			n.mu.Lock()
			addr := netip.MustParseAddr(n.answers[0])
			if len(n.answers) > 1 {
				n.answers = n.answers[1:]
			}
			n.mu.Unlock()
			reply.Answers = []dnsmessage.Resource{{
				Header: dnsmessage.ResourceHeader{Name: asked.Name, Class: asked.Class}, Body: &dnsmessage.AResource{A: addr.As4()},
			}}
		}
		if packed, err := reply.Pack(); err == nil {
			_, _ = n.conn.WriteTo(packed, from)
		}
	}
}
