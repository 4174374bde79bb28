// Package filelock locks files, so that one process at a time owns what they stand for.
package filelock

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
)

// Wait locks the file at path as soon as no other process holds the lock. It creates the
// file if it is missing. The lock lasts while any process has the returned descriptor.
//
// Wait ends early with an error that wraps the cause of ctx, or the error of giveUp, which
// it calls between attempts. A nil giveUp never gives up.
func Wait(ctx context.Context, path string, giveUp func() error) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if errors.Is(err, syscall.EWOULDBLOCK) || errors.Is(err, syscall.EINTR) {
			err = nil
			if giveUp != nil {
				err = giveUp()
			}
		}
		if err == nil {
			select {
			case <-ticker.C:
				continue
			case <-ctx.Done():
				err = context.Cause(ctx)
			}
		}
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
}
