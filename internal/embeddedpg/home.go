package embeddedpg

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"upcall/internal/filelock"
)

// varDir holds root's data where the server's user cannot enter the wanted place, such as a
// folder that mktemp -d made.
const varDir = "/var/lib/upcall"

// makeHome makes the directory that holds the data and returns its absolute path.
func makeHome(config Config, user runAs) (string, error) {
	if config.DataDir == "" {
		return makeThrowaway(user)
	}
	home, err := filepath.Abs(config.DataDir)
	if err != nil {
		return "", fmt.Errorf("find data directory: %w", err)
	}
	wanted := home
	if moved := user.place(home); moved != home {
		config.Logger.LogAttrs(context.Background(), slog.LevelWarn, "postgres data is kept elsewhere",
			slog.String("wanted", home), slog.String("data_dir", moved),
			slog.String("reason", "the user "+user.name+", whom PostgreSQL runs as, cannot enter the wanted path"))
		home = moved
		if err := removeAbandoned(varDir); err != nil {
			return "", err
		}
	}
	// With mode 0711, others may pass through but not list it; what is inside has stricter modes.
	if err := os.MkdirAll(home, user.dirMode()); err != nil {
		return "", fmt.Errorf("make data directory: %w", err)
	}
	if home == wanted {
		return home, nil
	}
	return home, noteWanted(home, wanted)
}

// makeThrowaway makes a temporary directory in the first place that the server's user can
// enter. It belongs to that user so that the watchdog, which runs as the same user, can
// remove it.
func makeThrowaway(user runAs) (string, error) {
	for _, parent := range []string{os.TempDir(), "/tmp", "/var/tmp"} {
		if !user.canEnter(parent) {
			continue
		}
		dir, err := os.MkdirTemp(parent, "upcall-postgres-")
		if err != nil {
			return "", fmt.Errorf("make temporary data directory: %w", err)
		}
		return dir, user.own(dir)
	}
	return "", fmt.Errorf("make temporary data directory: the user %s, whom PostgreSQL runs as, cannot enter %s: "+
		"set TMPDIR to a directory that this user can enter", user.name, os.TempDir())
}

// place returns path if the user can enter as much of it as exists, else a directory for it
// in varDir.
func (u runAs) place(path string) string {
	if u.canEnter(path) {
		return path
	}
	sum := sha256.Sum256([]byte(path))
	return filepath.Join(varDir, filepath.Base(path)+"-"+hex.EncodeToString(sum[:4]))
}

// initialize makes the cluster if there is none, and returns its password.
func (s *Server) initialize(ctx context.Context) (string, error) {
	passwordFile := filepath.Join(s.home, "password")
	switch _, err := os.Stat(filepath.Join(s.pgdata(), "PG_VERSION")); {
	case err == nil:
		password, err := os.ReadFile(passwordFile)
		if err != nil {
			return "", fmt.Errorf("read the password of existing data: %w", err)
		}
		return strings.TrimSpace(string(password)), nil
	case !errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("look at the data: %w", err)
	}

	// The data is made beside its final place, so that an interrupted run does not leave what
	// looks like data.
	fresh := s.pgdata() + ".new"
	if err := errors.Join(os.RemoveAll(fresh), os.Mkdir(fresh, 0o700), s.user.own(fresh)); err != nil {
		return "", fmt.Errorf("prepare data directory: %w", err)
	}
	create := s.createData
	if s.config.StandbyOf != "" {
		create = s.copyPrimary
	}
	password, err := create(ctx, fresh)
	if err == nil {
		err = writeSecret(passwordFile, password)
	}
	if err != nil {
		return "", err
	}
	if err := os.Rename(fresh, s.pgdata()); err != nil {
		return "", fmt.Errorf("keep new data: %w", err)
	}
	return password, nil
}

// createData makes an empty cluster and returns its password.
func (s *Server) createData(ctx context.Context, fresh string) (string, error) {
	// The user of initdb must be able to read its copy of the password.
	password, copied := rand.Text(), filepath.Join(s.home, "password.new")
	defer os.Remove(copied)
	if err := errors.Join(writeSecret(copied, password), s.user.own(copied)); err != nil {
		return "", fmt.Errorf("prepare data directory: %w", err)
	}
	args := []string{"-D", fresh, "-U", role, "--pwfile=" + copied,
		"-A", "scram-sha-256", "--encoding=UTF8", "--locale=C"}
	if s.config.NoFsync {
		args = append(args, "--no-sync")
	}
	cmd := exec.CommandContext(ctx, filepath.Join(s.bin.dir, "initdb"), args...)
	cmd.Dir = s.home
	cmd.Env = environment()
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.user.credential()}
	cmd.WaitDelay = time.Second
	if output, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("initdb as user %s: %w: %s", s.user.name, err, tail(output))
	}
	return password, nil
}

// writeSecret writes a file that only its owner can ever read.
func writeSecret(path, secret string) error {
	if err := os.RemoveAll(path); err != nil {
		return fmt.Errorf("remove old password: %w", err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("write password: %w", err)
	}
	_, err = f.WriteString(secret + "\n")
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write password: %w", err)
	}
	return nil
}

// dying is how long a killed process may still look alive.
const dying = 2 * time.Second

// acquireLock locks the data directory for this process. If another process owns it and is
// alive, acquireLock soon returns an error. If the owner is gone, its server is being
// stopped, and acquireLock waits for that.
func acquireLock(ctx context.Context, path string, timeout time.Duration) (*os.File, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, timeout,
		fmt.Errorf("%w by the server of a process that has ended, and that server does not stop", ErrInUse))
	defer cancel()
	started := time.Now()
	lock, err := filelock.Wait(ctx, path, func() error {
		// Until the system has cleared away a killed process, it looks alive.
		owner, err := readNumber(path)
		if err == nil && owner > 0 && processLives(owner) && time.Since(started) > dying {
			return fmt.Errorf("%w by process %d: stop it, or choose another directory", ErrInUse, owner)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(path, fmt.Appendln(nil, os.Getpid()), 0o600); err != nil {
		lock.Close()
		return nil, fmt.Errorf("write lock: %w", err)
	}
	return lock, nil
}

// readNumber reads the first line of a file. An error wraps strconv.ErrSyntax if it is not
// a number.
func readNumber(path string) (int, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	line, _, _ := strings.Cut(string(content), "\n")
	return strconv.Atoi(line)
}

func processLives(pid int) bool {
	err := syscall.Kill(pid, 0)
	return err == nil || errors.Is(err, syscall.EPERM)
}
