package fold

import (
	"testing"
	"time"

	"github.com/google/uuid"

	"upcall/internal/dbtest"
	"upcall/internal/eventstore"
)

// TestRole folds, and deletes what need not be kept, with the rights that the docs give to a receiver.
func TestRole(t *testing.T) {
	t.Parallel()
	owner := dbtest.URL(t)
	if err := eventstore.EnsurePartitions(t.Context(), dbtest.Open(t, owner, eventstore.Open), noon); err != nil {
		t.Fatal(err)
	}
	role := dbtest.Role(t, owner, dbtest.Grants(t, "../../docs/database.md", "upcall_receiver")...)
	w := worldAt(t, role, func(c *Config) { c.Grace = 0 })
	recorded, removal := notification(valid(uuid.New()), "a", "R1", "E1"), notification(uuid.NullUUID{}, "b", "R2", "")
	foreign := notification(uuid.NullUUID{}, "c", "R3", "E3")
	removal.Callback.Operation = "DeleteObjects"
	w.record(t, recorded, removal, foreign)
	w.fold(t)
	for id, want := range map[uuid.UUID]string{recorded.ID: "recorded", removal.ID: "removal", foreign.ID: "foreign"} {
		if got := w.outcome(t, id); got != want {
			t.Errorf("it became %q, want %s", got, want)
		}
	}
	deleted, _, err := eventstore.KeepNotifications(t.Context(), w.pool, time.Now().AddDate(0, 2, 0))
	if err != nil || deleted != 3 {
		t.Errorf("%d rows were deleted, %v; want 3", deleted, err)
	}
}
