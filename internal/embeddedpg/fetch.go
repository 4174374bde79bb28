package embeddedpg

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	embeddedpostgres "github.com/fergusstrange/embedded-postgres"
)

const defaultRepository = "https://repo1.maven.org/maven2"

// fetchVersions are the builds that the library knows, by major version.
var fetchVersions = map[int]embeddedpostgres.PostgresVersion{
	18: embeddedpostgres.V18,
	17: embeddedpostgres.V17,
	16: embeddedpostgres.V16,
	15: embeddedpostgres.V15,
	14: embeddedpostgres.V14,
	13: embeddedpostgres.V13,
}

const newestFetched = 18

// fetch gets a build from a Maven repository, or from an earlier fetch. major is that of
// the data, 0 if there is none.
func (s *Server) fetch(ctx context.Context, major int) (binaries, error) {
	version, ok := fetchVersions[cmp.Or(major, newestFetched)]
	if !ok {
		return binaries{}, fmt.Errorf("%w: its data is of version %d, which is not installed: install it, or choose another directory", ErrVersion, major)
	}
	dir, err := s.fetchDir()
	if err != nil {
		return binaries{}, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return binaries{}, fmt.Errorf("make directory for fetched binaries: %w", err)
	}
	// One fetch at a time: the second finds what the first has fetched.
	lock, err := waitLock(ctx, filepath.Join(dir, "lock"))
	if err != nil {
		return binaries{}, err
	}
	defer lock.Close()

	tree := filepath.Join(dir, string(version))
	if b, err := inspect(ctx, filepath.Join(tree, "bin"), s.user); err == nil {
		return b, nil
	}
	repository := strings.TrimRight(cmp.Or(s.config.RepositoryURL, defaultRepository), "/")
	// Tells people why their first start takes long.
	s.config.Logger.LogAttrs(ctx, slog.LevelInfo, "no PostgreSQL is installed, fetching one",
		slog.String("version", string(version)), slog.String("repository", repository))
	if err := download(ctx, dir, tree, version, repository); err != nil {
		return binaries{}, fmt.Errorf("%w: none is installed, and none came from %s: install PostgreSQL %d or newer (Debian: apt install postgresql): %w",
			ErrNoBinaries, repository, oldest, err)
	}
	b, err := inspect(ctx, filepath.Join(tree, "bin"), s.user)
	if err != nil {
		return binaries{}, fmt.Errorf("%w: the fetched build does not run here: install PostgreSQL %d or newer: %w", ErrNoBinaries, oldest, err)
	}
	return b, nil
}

func (s *Server) fetchDir() (string, error) {
	dir := s.config.FetchDir
	if dir == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("find a directory for fetched binaries: %w", err)
		}
		dir = filepath.Join(cache, "upcall", "postgres")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("find a directory for fetched binaries: %w", err)
	}
	return s.user.place(dir), nil
}

// download puts the build at tree, whole or not at all.
//
// The library fetches only in the course of starting a server. Its data path here is one
// that cannot exist, so that it stops with an error once the binaries are unpacked; what
// counts is whether they are there.
func download(ctx context.Context, dir, tree string, version embeddedpostgres.PostgresVersion, repository string) error {
	work, err := os.MkdirTemp(dir, "fetch-")
	if err != nil {
		return fmt.Errorf("make directory for unpacking: %w", err)
	}
	defer os.RemoveAll(work)
	unpacked := filepath.Join(work, "tree")
	library := embeddedpostgres.NewDatabase(embeddedpostgres.DefaultConfig().
		Version(version).
		BinaryRepositoryURL(repository).
		CachePath(filepath.Join(work, "archive")).
		BinariesPath(unpacked).
		RuntimePath(filepath.Join(work, "runtime")).
		DataPath("/dev/null/data").
		Port(0).
		Logger(io.Discard))
	done := make(chan error, 1)
	go func() { done <- library.Start() }()
	select {
	case err = <-done:
	case <-ctx.Done():
		return fmt.Errorf("fetch binaries: %w", ctx.Err())
	}
	if _, statErr := os.Stat(filepath.Join(unpacked, "bin", "postgres")); statErr != nil {
		return fmt.Errorf("fetch binaries: %s", strings.Join(strings.Fields(err.Error()), " "))
	}
	if err := openToAll(unpacked); err != nil {
		return err
	}
	if err := errors.Join(os.RemoveAll(tree), os.Rename(unpacked, tree)); err != nil {
		return fmt.Errorf("keep fetched binaries: %w", err)
	}
	return nil
}

// openToAll lets every user read the tree, and run what its owner can run: a strict
// umask of root would shut out the user whom the server runs as.
func openToAll(tree string) error {
	return filepath.WalkDir(tree, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.Type()&fs.ModeSymlink != 0 {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		mode := info.Mode().Perm() | 0o444
		if mode&0o100 != 0 {
			mode |= 0o111
		}
		return os.Chmod(path, mode)
	})
}

// waitLock locks the file as soon as others have let it go.
func waitLock(ctx context.Context, path string) (*os.File, error) {
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		lock, err := acquireLock(ctx, path, time.Minute)
		if err == nil || !errors.Is(err, ErrInUse) {
			return lock, err
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for another fetch, in %s: %w", strconv.Quote(path), ctx.Err())
		}
	}
}
