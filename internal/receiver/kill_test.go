package receiver

import (
	"maps"
	"testing"

	"github.com/google/uuid"

	"upcall/internal/dbtest"
	"upcall/internal/testing/ossfake"
	"upcall/internal/testing/proc"
	"upcall/internal/testing/wait"
)

// TestReceiverKilled kills receivers with SIGKILL while they spool and while they drain. The next
// receiver resumes, and in the end each acknowledged callback has a row.
func TestReceiverKilled(t *testing.T) {
	t.Parallel()
	database, keyURL, dir := dbtest.NewServer(t), ossfake.KeyURL(t), t.TempDir()
	acknowledged, uncertain := make(map[uuid.UUID]bool), 0
	database.Kill(t)
	for round := range 4 {
		if round == 2 {
			database.Restart(t)
		}
		child := proc.Start(t, "receiver", database.URL(), dir, keyURL)
		l := startLoad(t, "http://"+child.FirstLine(t), keyURL, 8, func(r reply) bool { return r.err != nil || r.late() })
		wait.Until(t, "callbacks are acknowledged", func() bool { return l.answers("spool")+l.answers("postgres") >= 400 })
		child.Kill(t)
		l.stop()
		maps.Copy(acknowledged, l.ids)
		uncertain += l.refused
	}
	receiver := start(t, Config{DatabaseURL: database.URL(), TrustKeyURLs: []string{keyURL}, SpoolDir: dir, SpoolMinFreeBytes: -1})
	wait.Until(t, "the spool is empty", func() bool { return receiver.Metric(t, "upcall_spool_depth") == 0 })
	wantRows(t, database.URL(), acknowledged, uncertain)
}
