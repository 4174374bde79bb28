package api

import (
	"context"
	"testing"
)

func TestIdle(t *testing.T) {
	t.Parallel()
	looks := 0
	w := newWorld(t, func(c *Config) {
		c.Behind = append(c.Behind, func(context.Context) ([]string, error) {
			if looks++; looks < 4 {
				return []string{"spool: 1 callbacks"}, nil
			}
			return nil, nil
		})
	})
	if got := w.call(t, "GET", "/v1/idle", w.viewer, ""); got.status != 503 || len(got.body.Behind) != 1 {
		t.Errorf("with work to do: %d %s", got.status, got.text)
	}
	if got := w.call(t, "GET", "/v1/idle?wait=10s", w.viewer, ""); got.status != 200 {
		t.Errorf("after a wait: %d %s", got.status, got.text)
	}
	if got := w.call(t, "GET", "/v1/idle?wait=31s", w.viewer, ""); got.status != 400 {
		t.Errorf("a wait that is too long: %d %s", got.status, got.text)
	}
}
