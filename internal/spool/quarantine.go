package spool

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"
)

// quarantine renames a damaged file to an unused name that ends in .unread. If this process
// is interrupted, the next one recovers the intact records.
func (s *Spool) quarantine(ctx context.Context, path string, damage error) error {
	for now := s.config.Now().UTC(); ; now = now.Add(time.Second) {
		read := s.path(damagedName + now.Format("20060102T150405Z"))
		unread := read + unreadName
		if exists(read) || exists(unread) {
			continue
		}
		if err := os.Rename(path, unread); err != nil {
			return fmt.Errorf("set damaged file aside: %w", errors.Join(damage, err))
		}
		if err := s.dir.Sync(); err != nil {
			_ = s.fail(err) // every put returns it
		}
		s.config.Logger.ErrorContext(ctx, "damaged spool file set aside; its intact callbacks will be recovered",
			slog.String("file", unread), slog.String("error", damage.Error()))
		return nil
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// markRead renames damaged files after their intact records have been recovered.
func (s *Spool) markRead(ctx context.Context, unread []string) {
	for _, path := range unread {
		read := strings.TrimSuffix(path, unreadName)
		if err := os.Rename(path, read); err != nil {
			s.config.Logger.WarnContext(ctx, "damaged spool file will be read again at the next start", slog.String("error", err.Error()))
			continue
		}
		s.config.Logger.WarnContext(ctx, "intact callbacks recovered from a damaged spool file", slog.String("file", read))
	}
}

// countDamaged counts the files that were set aside and returns the paths of the unread ones,
// oldest first.
func (s *Spool) countDamaged() (unread []string, err error) {
	entries, err := os.ReadDir(s.config.Dir)
	if err != nil {
		return nil, err
	}
	damaged := 0
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), damagedName) {
			continue
		}
		damaged++
		if strings.HasSuffix(e.Name(), unreadName) {
			unread = append(unread, s.path(e.Name()))
		}
	}
	s.mu.Lock()
	s.stats.Damaged = damaged
	s.mu.Unlock()
	return unread, nil
}
