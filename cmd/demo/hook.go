package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"

	"upcall/internal/hooks"
	"upcall/internal/httpserver"
	"upcall/internal/receiver"
	"upcall/internal/webhook"
	applisten "upcall/internal/webhook/listen"
)

const (
	// hookSecret is whsec_ and, in Base64, "a secret of this machine only".
	hookSecret = "whsec_YSBzZWNyZXQgb2YgdGhpcyBtYWNoaW5lIG9ubHk="
	// thisMachine are the addresses that deliveries may go to.
	thisMachine = "127.0.0.0/8"
)

// told is what the application was told.
type told struct {
	first chan http.Header // of the first delivery
	lines chan string      // that it prints, with --stay between those for callbacks
	ended chan struct{}    // nobody reads any more
}

func newTold() *told {
	return &told{first: make(chan http.Header, 1), lines: make(chan string, 100), ended: make(chan struct{})}
}

// Write makes the application's lines wait for a reader.
func (t *told) Write(line []byte) (int, error) {
	select {
	case t.lines <- string(line):
		return len(line), nil
	case <-t.ended:
		return 0, errors.New("the program ends")
	}
}

// startApp starts an application that is told of uploads, the one of receiver hooks listen.
func (l *loop) startApp(ctx context.Context, opts *command) error {
	secret, err := webhook.ParseSecret(hookSecret)
	if err != nil {
		return err
	}
	app, err := applisten.New(applisten.Config{Secret: secret, Out: l.told})
	if err != nil {
		return err
	}
	listener, err := listen("hooks", opts.AppPort, 8090)
	if err != nil {
		return err
	}
	l.appURL = "http://" + listener.Addr().String() + "/"
	server := httpserver.New(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case l.told.first <- r.Header:
		default:
		}
		app.ServeHTTP(w, r)
	}), l.logger)
	server.RegisterOnShutdown(func() { close(l.told.ended) })
	l.background(ctx, func(ctx context.Context) error {
		return httpserver.Serve(ctx, l.logger, drain, httpserver.Site{Server: server, Listener: listener})
	})
	return nil
}

// hooks returns the settings with which a receiver tells the application, as UPCALL_HOOKS_FILE
// does.
func (l *loop) hooks() (receiver.HooksConfig, error) {
	secret, err := webhook.ParseSecret(hookSecret)
	return receiver.HooksConfig{
		Rules: hooks.Rules{AllowHTTP: true, AllowedCIDRs: []netip.Prefix{netip.MustParsePrefix(thisMachine)}},
		// One at a time, so that the lines are in the order of the uploads.
		Declared: []hooks.Declared{{Settings: hooks.Settings{Name: "demo", URL: l.appURL, MaxInFlight: 1}, Secret: secret}},
	}, err
}

// printHook prints what the application was sent, and what it printed of so many uploads.
func (l *loop) printHook(ctx context.Context, out io.Writer, uploads int) error {
	var lines []string
	for range uploads {
		select {
		case line := <-l.told.lines:
			if !strings.Contains(line, " verified recorded: ") {
				return fmt.Errorf("the application printed %s", line)
			}
			lines = append(lines, line)
		case <-ctx.Done():
			return fmt.Errorf("the application was told of %d uploads, want %d", len(lines), uploads)
		}
	}
	header := <-l.told.first
	fmt.Fprintf(out, "   It gets a CloudEvent that is signed as Standard Webhooks says,\n\n   POST %s\n", l.appURL)
	for _, name := range []string{"Content-Type", "Webhook-Id", "Webhook-Timestamp", "Webhook-Signature"} {
		fmt.Fprintf(out, "   %s: %s\n", strings.ToLower(name), header.Get(name))
	}
	fmt.Fprintf(out, "\n   and prints, once it has verified the signatures:\n\n   %s", strings.Join(lines, "   "))
	return nil
}

// printLines prints a line for each callback and each delivery until a signal or the end of a part.
func (l *loop) printLines(ctx context.Context, out io.Writer) {
	for {
		select {
		case line := <-l.told.lines:
			fmt.Fprint(out, line)
		case <-ctx.Done():
			return
		case <-l.ended:
			return
		}
	}
}
