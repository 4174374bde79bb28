package embeddedpg

import (
	"context"
	"fmt"
	"net/url"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// copyPrimary makes the data a copy of that of the server at Config.StandbyOf, set up to
// follow it, and returns its password.
func (s *Server) copyPrimary(ctx context.Context, fresh string) (string, error) {
	primary, err := url.Parse(s.config.StandbyOf)
	if err != nil {
		return "", fmt.Errorf("read the primary's URL: %w", err)
	}
	password, _ := primary.User.Password()
	primary.User = url.User(primary.User.Username())
	program := filepath.Join(s.bin.dir, "pg_basebackup")
	if real, err := filepath.EvalSymlinks(filepath.Join(s.bin.dir, "postgres")); err == nil {
		program = filepath.Join(filepath.Dir(real), "pg_basebackup") // not all programs may be linked
	}
	cmd := exec.CommandContext(ctx, program, "-D", fresh, "-d", primary.String(),
		"--write-recovery-conf", "--checkpoint=fast", "--wal-method=stream", "--no-sync")
	cmd.Dir = s.home
	cmd.Env = append(environment(), "PGPASSWORD="+password) // a command line is for all to see
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.user.credential()}
	cmd.WaitDelay = time.Second
	if output, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("pg_basebackup as user %s: %w: %s", s.user.name, err, tail(output))
	}
	return password, nil
}

// Synchronous makes commits wait for a standby, and returns when one follows.
func (s *Server) Synchronous(ctx context.Context) error {
	if err := s.run(ctx, "ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()"); err != nil {
		return fmt.Errorf("wait for a standby: %w", err)
	}
	conn, err := s.connect(ctx, s.config.StartTimeout)
	if err != nil {
		return fmt.Errorf("wait for a standby: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		var follows bool
		const query = "SELECT EXISTS (SELECT FROM pg_stat_replication WHERE sync_state = 'sync')"
		if err := conn.QueryRow(ctx, query).Scan(&follows); err != nil || follows {
			return err
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return fmt.Errorf("wait for a standby: %w", ctx.Err())
		}
	}
}

// Promote makes a standby a primary.
func (s *Server) Promote(ctx context.Context) error {
	if err := s.run(ctx, "SELECT pg_promote()"); err != nil {
		return fmt.Errorf("promote the standby: %w", err)
	}
	return nil
}

func (s *Server) run(ctx context.Context, statements ...string) error {
	conn, err := s.connect(ctx, s.config.StartTimeout)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	for _, statement := range statements {
		if _, err := conn.Exec(ctx, statement); err != nil {
			return err
		}
	}
	return nil
}
