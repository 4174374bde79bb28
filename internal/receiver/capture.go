package receiver

import (
	"context"
	"sync"

	"upcall/internal/capture"
	"upcall/internal/doctor"
	"upcall/internal/fault"
	"upcall/internal/intake"
)

// captures keeps refused callbacks, and has them examined. Both are nil if it is off.
type captures struct {
	dir      *capture.Dir
	examiner *capture.Examiner
}

// checkCaptures makes the directory if it is missing, so that one that cannot be used is known at the start.
func (cfg Config) checkCaptures() error {
	if cfg.CaptureDir == "" {
		return nil
	}
	return fault.In("UPCALL_CAPTURE_REFUSED", capture.Check(cfg.CaptureDir))
}

// openCaptures opens the directory of captures. The doctor has the rules of the intake.
func (cfg Config) openCaptures() (captures, error) {
	if cfg.CaptureDir == "" {
		return captures{}, nil
	}
	dir, err := capture.Open(capture.Config{Dir: cfg.CaptureDir, Logger: cfg.Logger})
	if err != nil {
		return captures{}, err
	}
	rules := doctor.Config{Admission: cfg.Admission, TrustKeyURLs: cfg.TrustKeyURLs, Now: cfg.Now}
	if len(rules.Admission.CallbackPaths) == 0 {
		rules.Admission.CallbackPaths = []string{intake.DefaultPath}
	}
	examiner, err := capture.NewExaminer(dir, rules)
	if err != nil {
		dir.Close()
		return captures{}, err
	}
	return captures{dir, examiner}, nil
}

// run writes and examines until ctx ends, after the last callback is answered.
func (c captures) run(ctx context.Context) {
	if c.dir == nil {
		return
	}
	var both sync.WaitGroup
	both.Go(func() { c.dir.Run(ctx) })
	both.Go(func() { c.examiner.Run(ctx) })
	both.Wait()
}

func (c captures) close() {
	if c.dir != nil {
		c.dir.Close()
	}
}
