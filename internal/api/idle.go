package api

import (
	"net/http"
	"time"
)

// idleEvery is how often a call looks whether there is work left.
const idleEvery = 50 * time.Millisecond

// getIdle answers once nothing has work to do, for tests of applications.
func (s *Server) getIdle(w http.ResponseWriter, r *http.Request) error {
	p := parseQuery(r.URL.RawQuery, "wait")
	until := time.Now().Add(p.wait())
	if err := p.faults.Err(); err != nil {
		return err
	}
	ctx, done, err := s.wait(r.Context(), byPoll)
	if err != nil {
		return err
	}
	defer done()
	for {
		var behind []string
		for _, look := range s.cfg.Behind {
			more, err := look(ctx)
			if err != nil {
				return err
			}
			behind = append(behind, more...)
		}
		if len(behind) == 0 {
			writeBody(w, http.StatusOK, "application/json", []byte(`{"idle":true}`))
			return nil
		}
		if ctx.Err() != nil || time.Now().After(until) {
			return &problem{kind: kindBehind, detail: behind[0], behind: behind}
		}
		pause(ctx, idleEvery)
	}
}
