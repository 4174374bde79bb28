package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"
)

// delayPort is where a proxy that delays listens.
const delayPort = "5499"

type delayCommand struct {
	Target string        `arg:"" help:"Address to connect to."`
	By     time.Duration `arg:"" help:"How late what the target sends arrives, from SIGUSR1 on."`

	late atomic.Bool
}

// Run runs the proxy. kong calls it.
func (c *delayCommand) Run(ctx context.Context) error {
	listener, err := net.Listen("tcp", "127.0.0.1:"+delayPort)
	if err != nil {
		return fmt.Errorf("delay: %w", err)
	}
	context.AfterFunc(ctx, func() { listener.Close() })
	begin := make(chan os.Signal, 1)
	signal.Notify(begin, syscall.SIGUSR1)
	go func() {
		<-begin
		c.late.Store(true)
	}()
	for {
		conn, err := listener.Accept()
		if err != nil {
			return fmt.Errorf("delay: %w", err)
		}
		go c.pass(conn)
	}
}

func (c *delayCommand) pass(conn net.Conn) {
	defer conn.Close()
	target, err := net.Dial("tcp", c.Target)
	if err != nil {
		return
	}
	defer target.Close()
	go func() {
		io.Copy(target, conn)
		target.Close()
	}()
	c.copy(conn, target)
}

// A parcel is what was read at a time.
type parcel struct {
	bytes []byte
	due   time.Time
}

// copy copies from one to the other, so that each byte arrives later.
func (c *delayCommand) copy(to io.Writer, from io.Reader) {
	parcels := make(chan parcel, 1<<16)
	go func() {
		defer close(parcels)
		for {
			buffer := make([]byte, 32<<10)
			n, err := from.Read(buffer)
			due := time.Now()
			if c.late.Load() {
				due = due.Add(c.By)
			}
			if n > 0 {
				parcels <- parcel{buffer[:n], due}
			}
			if err != nil {
				return
			}
		}
	}()
	for p := range parcels {
		time.Sleep(time.Until(p.due))
		if _, err := to.Write(p.bytes); err != nil {
			return
		}
	}
}

// detour makes what a primary sends to the node's PostgreSQL go through a proxy, which makes it
// arrive later once it gets SIGUSR1. Healing the machine and ending the proxy ends that.
func (n *node) detour(ctx context.Context, self string, primary *node, by time.Duration) (*exec.Cmd, error) {
	proxy, err := n.start("", nil, self, "delay", primary.addr+":5432", by.String())
	if err != nil {
		return nil, err
	}
	err = n.filter(ctx, "-t nat -A OUTPUT -p tcp -d "+primary.addr+" --dport 5432 -m owner --uid-owner "+superuser+
		" -j REDIRECT --to-ports "+delayPort)
	if err != nil {
		return nil, err
	}
	n.signal(syscall.SIGTERM, walreceiver) // its connection is not redirected; the next one is
	return proxy, nil
}

// walreceiver is how the title of the process begins that receives the primary's log.
const walreceiver = "postgres: upcall: walreceiver"
