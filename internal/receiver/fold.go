package receiver

import (
	"fmt"
	"time"

	"upcall/internal/eventstore"
	"upcall/internal/fault"
	"upcall/internal/feed"
	"upcall/internal/fold"
	"upcall/internal/intake"
)

// DefaultNotifyGrace is longer than OSS and a receiver take for a callback, and shorter than people wait.
const DefaultNotifyGrace = 2 * time.Minute

// newFold returns what makes events of notifications. It works with the pool of ordinary statements.
func (cfg Config) newFold(janitor *eventstore.Janitor, metrics *intake.Metrics, log *feed.Log) (*fold.Worker, error) {
	return fold.New(fold.Config{Pool: janitor.Pool, Grace: cfg.NotifyGrace, RetentionDays: cfg.RetentionDays,
		Known: metrics.ObserveKnown, Wake: log.Wake, Logger: cfg.Logger, Now: cfg.Now})
}

// checkGrace returns an error if notifications would wait longer than OSS's message service repeats them.
func checkGrace(grace time.Duration) error {
	if most := 24 * time.Hour; grace < 0 || grace > most {
		return fault.New(nil, "UPCALL_NOTIFY_GRACE", fmt.Sprintf("write %s, or 0s for none", DefaultNotifyGrace),
			"%s is not between 0s and %s", grace, most)
	}
	return nil
}
