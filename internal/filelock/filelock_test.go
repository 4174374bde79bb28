package filelock

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestWait(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "lock")
	held, err := Wait(t.Context(), path, nil)
	if err != nil {
		t.Fatal(err)
	}
	late, stubborn := errors.New("too late"), errors.New("its owner is alive")
	now, cancel := context.WithTimeoutCause(t.Context(), 0, late)
	defer cancel()
	if _, err := Wait(now, path, nil); !errors.Is(err, late) || !strings.Contains(err.Error(), path) {
		t.Errorf("without time to wait: error %v", err)
	}
	if _, err := Wait(t.Context(), path, func() error { return stubborn }); !errors.Is(err, stubborn) {
		t.Errorf("giving up: error %v", err)
	}
	asked := 0
	lock, err := Wait(t.Context(), path, func() error {
		if asked++; asked == 3 {
			return held.Close()
		}
		return nil
	})
	if err != nil {
		t.Fatalf("after %d attempts: %v", asked, err)
	}
	lock.Close()
	if lock, err = Wait(now, path, nil); err != nil {
		t.Errorf("a free lock needs no time: %v", err)
	}
	lock.Close()
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("the file: %v, %v", info, err)
	}
	if _, err := Wait(t.Context(), filepath.Join(path, "x"), nil); !errors.Is(err, syscall.ENOTDIR) {
		t.Errorf("in a file: error %v", err)
	}
}
