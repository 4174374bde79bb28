package fold

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"upcall/internal/event"
	"upcall/internal/eventstore"
	"upcall/internal/rollup"
)

// TestWrongGuess: two uploads were issued for each key, and a listing takes the object for the one that was not
// used. Whatever the order of callback, notification and listing, the upload counts once, and a consumer that minds
// supersedes holds one event; also if the callback does not name the key.
func TestWrongGuess(t *testing.T) {
	t.Parallel()
	t.Run("counted at once", func(t *testing.T) { t.Parallel(); wrongGuess(t, false) })
	t.Run("counted late", func(t *testing.T) { t.Parallel(); wrongGuess(t, true) })
}

// wrongGuess has roll-ups read the log after each step, or only at the end.
func wrongGuess(t *testing.T, late bool) {
	w := newWorld(t, nil)
	w.now = noon.Add(5 * time.Minute)
	counted := w.rollups(t)
	type guessed struct {
		key   string
		token bool // the notification has it
		bare  bool // the callback names no key
		steps []*event.Event
		want  string
	}
	var all []*guessed
	for i, order := range slices.Repeat(orders("cnl"), 4) {
		kind := i / len(orders("cnl"))
		g := &guessed{key: fmt.Sprintf("%02b/%s", kind, order), token: kind&1 != 0, bare: kind&2 != 0}
		used, other := valid(w.issue(t, g.key, `{}`)), valid(w.issue(t, g.key, `{}`))
		by := uuid.NullUUID{}
		if g.token {
			by = used
		}
		told := map[rune]*event.Event{'c': callback(used, g.key, "R"+g.key, "E1"), 'n': notification(by, g.key, "R"+g.key, "e1"),
			'l': listed(other, g.key, `"E1"`)}
		if g.bare {
			told['c'].Callback.Object = ""
		}
		told['n'].Callback.Vars = map[string]json.RawMessage{"uid": json.RawMessage(`"42"`)}
		for _, step := range order {
			g.steps = append(g.steps, told[step])
		}
		switch {
		case strings.Contains(order, "c"):
			g.want = "callback"
		case order == "l", order == "ln" && !g.token: // as far as the notification can tell
			g.want = "reconcile"
		default:
			g.want = "notification"
		}
		all = append(all, g)
	}
	for step := range 3 {
		for _, g := range all {
			if step >= len(g.steps) {
				continue
			}
			if e := g.steps[step]; e.Source == event.SourceReconcile {
				if _, err := eventstore.Recover(t.Context(), w.pool, []*event.Event{e}); err != nil {
					t.Fatal(err)
				}
			} else {
				w.record(t, e)
			}
		}
		if !late {
			counted()
		}
		w.now = w.now.Add(3 * time.Minute)
		w.fold(t)
	}
	check := func() {
		t.Helper()
		counted()
		held := w.consume(t)
		for _, g := range all {
			if got := held[g.key]; !slices.Equal(got, []string{g.want}) {
				t.Errorf("%s: a consumer holds %q, want %s", g.key, got, g.want)
			}
			got := w.lines(t, "SELECT source FROM upcall.upload_log WHERE object_key = $1 OR request_id = $2", g.key, "R"+g.key)
			if !slices.Equal(got, []string{g.want}) {
				t.Errorf("%s: upload_log has %q, want %s", g.key, got, g.want)
			}
			got = w.lines(t, "SELECT source || ' ' || uploads FROM upcall.uploads WHERE object_key = $1", g.key)
			if !slices.Equal(got, []string{g.want + " 1"}) {
				t.Errorf("%s: uploads has %q, want one by %s", g.key, got, g.want)
			}
		}
		if lines, compared, err := rollup.Differences(t.Context(), w.pool, 20); err != nil || compared == 0 || len(lines) > 0 {
			t.Errorf("plain queries and what is kept differ: %v\n%s", err, strings.Join(lines, "\n"))
		}
	}
	check()
	if err := rollup.Rebuild(t.Context(), w.pool); err != nil {
		t.Fatal(err)
	}
	check()
}
