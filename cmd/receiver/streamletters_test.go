package main

import (
	"context"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"upcall/internal/callbackspec"
	"upcall/internal/event"
	"upcall/internal/stream"
	"upcall/internal/testing/clitest"
	"upcall/internal/testing/natstest"
	"upcall/internal/testing/wait"
)

// TestStreamCommands has dead letters of a stream listed, exported, retried and discarded while a receiver has it open.
func TestStreamCommands(t *testing.T) {
	t.Parallel()
	servers := natstest.Start(t, nil)
	env := clitest.Env{"UPCALL_STREAM_URL": servers.URL()}
	program.Error(t, env, "stream", "list") // there is no stream, and commands make none

	s, err := stream.Open(context.WithoutCancel(t.Context()), stream.Config{URL: servers.URL(), Name: "UPCALL", MaxBytes: 64 << 20,
		Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	wait.Until(t, "the stream is usable", func() bool { return s.Ready() == nil })
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
	t.Cleanup(cancel)
	put := func(object string) uuid.UUID {
		e := &event.Event{ID: uuid.New(), ReceivedAt: time.Date(2026, 11, 22, 12, 30, 0, 0, time.UTC), Source: event.SourceCallback,
			Callback: callbackspec.Callback{Bucket: "demo", Object: object, RequestID: "R-" + object}}
		if _, err := s.Put(ctx, e); err != nil {
			t.Fatal(err)
		}
		return e.ID
	}
	first, second := put("1.jpg"), put("2.jpg")
	wait.Until(t, "both are dead letters", func() bool {
		if _, err := s.Move(ctx, holdsNothing{}.Record, 10); err != nil {
			t.Fatal(err)
		}
		return s.Stats().DeadLetters == 2
	})
	third := put("3.jpg")

	expect := func(got string, parts ...string) {
		t.Helper()
		for _, part := range parts {
			if !strings.Contains(got, part) {
				t.Errorf("printed\n%swithout %q", got, part)
			}
		}
	}
	expect(program.Output(t, env, "stream", "list"), "ARRIVED", "3.jpg", "waiting", first.String(), second.String(), "dead: ",
		"1 waiting, 2 dead")
	lines := strings.Split(strings.TrimSpace(program.Output(t, env, "stream", "export")), "\n")
	if len(lines) != 3 {
		t.Errorf("exported %d lines, want 3", len(lines))
	}
	for _, line := range lines {
		if !json.Valid([]byte(line)) {
			t.Errorf("%s is not JSON", line)
		}
	}

	for _, refused := range []struct {
		args []string
		want string
	}{
		{[]string{"retry"}, "give the IDs of dead letters, as receiver stream list shows them, or --all"},
		{[]string{"retry", "--all", first.String()}, "or --all"},
		{[]string{"discard", "x"}, `"x" is not an event ID: receiver stream list shows them`},
		{[]string{"discard", first.String(), third.String()}, third.String()}, // waits; nothing is discarded
		{[]string{"discard", uuid.NewString()}, "receiver stream list shows all"},
	} {
		if err := program.Error(t, env, append([]string{"stream"}, refused.args...)...); !strings.Contains(err.Error(), refused.want) {
			t.Errorf("stream %v: %v, want %q", refused.args, err, refused.want)
		}
	}
	if err := program.Error(t, nil, "stream", "list"); !strings.Contains(err.Error(), "set UPCALL_STREAM_URL") {
		t.Errorf("without a stream: %v", err)
	}

	expect(program.Output(t, env, "stream", "discard", first.String()), "1.jpg", "1 discarded, 1 dead")
	expect(program.Output(t, env, "stream", "retry", "--all"), "2.jpg", "1 to be retried, 0 dead")
	expect(program.Output(t, env, "stream", "list"), "2.jpg", "3.jpg", "2 waiting, 0 dead")
}
