package embeddedpg

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// oldest is the oldest major version that will do.
const oldest = 13

// binaries is a directory with postgres and initdb of one version.
type binaries struct {
	dir     string
	major   int
	version string
}

// usualPlaces are where packages put the binaries without putting them on PATH.
var usualPlaces = []string{
	"/usr/lib/postgresql/*/bin",          // Debian, Ubuntu
	"/usr/bin",                           // Fedora
	"/usr/pgsql-*/bin",                   // packages of the PostgreSQL project for Fedora and RHEL
	"/usr/libexec/postgresql*",           // Alpine
	"/opt/homebrew/opt/postgresql@*/bin", // Homebrew on Apple silicon
	"/usr/local/opt/postgresql@*/bin",    // Homebrew on Intel
	"/usr/local/pgsql/bin",               // built from source
}

var versionPattern = regexp.MustCompile(`\(PostgreSQL\) ((\d+)\S*)`)

// chooseBinaries returns the binaries that fit the data, or else the newest ones.
func (s *Server) chooseBinaries(ctx context.Context) (binaries, error) {
	wanted, err := dataVersion(s.pgdata())
	if err != nil {
		return binaries{}, err
	}
	dirs := s.config.BinDirs
	if dirs == nil {
		dirs = searchDirs()
	}
	// What an earlier start fetched has perhaps made the data.
	fetched, err := s.fetchDir()
	if err != nil {
		return binaries{}, err
	}
	dirs = slices.Concat(dirs, glob(filepath.Join(fetched, "*", "bin")))
	found := findBinaries(ctx, dirs, s.user)
	if ctx.Err() != nil { // nothing found then means nothing
		return binaries{}, fmt.Errorf("look for binaries: %w", ctx.Err())
	}
	for _, b := range found {
		if wanted == 0 || b.major == wanted {
			return b, nil
		}
	}
	if len(found) > 0 {
		return binaries{}, fmt.Errorf("%w: its data is of version %d, installed is %s (in %s): install version %d, or choose another directory",
			ErrVersion, wanted, found[0].version, found[0].dir, wanted)
	}
	return s.fetch(ctx, wanted)
}

// dataVersion returns the major version that made the data, 0 if there is none.
func dataVersion(pgdata string) (int, error) {
	content, err := os.ReadFile(filepath.Join(pgdata, "PG_VERSION"))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read the version of the data: %w", err)
	}
	major, err := strconv.Atoi(strings.TrimSpace(string(content)))
	if err != nil {
		return 0, fmt.Errorf("%w: PG_VERSION holds %q", ErrVersion, content)
	}
	return major, nil
}

func searchDirs() []string {
	dirs := filepath.SplitList(os.Getenv("PATH"))
	for _, pattern := range usualPlaces {
		dirs = append(dirs, glob(pattern)...)
	}
	return dirs
}

// glob returns what matches; all patterns here are well-formed, save for odd names of
// directories, which then match nothing.
func glob(pattern string) []string {
	matches, err := filepath.Glob(pattern)
	if err != nil {
		return nil
	}
	return matches
}

// findBinaries returns what the server's user can run, newest major version first.
func findBinaries(ctx context.Context, dirs []string, user runAs) []binaries {
	var found []binaries
	for _, dir := range dirs {
		dir, err := filepath.Abs(dir)
		if err != nil || slices.ContainsFunc(found, func(b binaries) bool { return b.dir == dir }) {
			continue
		}
		if b, err := inspect(ctx, dir, user); err == nil && b.major >= oldest {
			found = append(found, b)
		}
	}
	slices.SortStableFunc(found, func(a, b binaries) int { return b.major - a.major })
	return found
}

// inspect says which version the binaries in dir have.
func inspect(ctx context.Context, dir string, user runAs) (binaries, error) {
	for _, name := range []string{"postgres", "initdb"} {
		path := filepath.Join(dir, name)
		info, err := os.Stat(path)
		if err != nil {
			return binaries{}, fmt.Errorf("look for %s: %w", name, err)
		}
		if info.IsDir() || !user.canEnter(path) {
			return binaries{}, fmt.Errorf("look for %s: user %s cannot run %s", name, user.name, path)
		}
	}
	cmd := exec.CommandContext(ctx, filepath.Join(dir, "postgres"), "--version")
	cmd.Env = environment()
	output, err := cmd.Output()
	if err != nil {
		return binaries{}, fmt.Errorf("ask postgres for its version: %w", err)
	}
	match := versionPattern.FindStringSubmatch(string(output))
	if match == nil {
		return binaries{}, fmt.Errorf("ask postgres for its version: it says %q", output)
	}
	major, err := strconv.Atoi(match[2])
	if err != nil {
		return binaries{}, fmt.Errorf("read version %q: %w", match[2], err)
	}
	return binaries{dir: dir, major: major, version: match[1]}, nil
}
