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
)

// oldest is the oldest major version that works.
const oldest = 13

// binaries is a directory with postgres and initdb of one version.
type binaries struct {
	dir     string
	major   int
	version string
}

// usualPlaces are where packages install the binaries without adding them to PATH.
var usualPlaces = []string{
	"/usr/lib/postgresql/*/bin",          // Debian, Ubuntu
	"/usr/bin",                           // Fedora
	"/usr/pgsql-*/bin",                   // packages of the PostgreSQL project for Fedora and RHEL
	"/usr/libexec/postgresql*",           // Alpine
	"/opt/homebrew/opt/postgresql@*/bin", // Homebrew on Apple silicon
	"/usr/local/opt/postgresql@*/bin",    // Homebrew on Intel
	"/usr/local/pgsql/bin",               // built from source
}

var versionPattern = regexp.MustCompile(`\(PostgreSQL\) ((\d{1,9})\S*)`)

// chooseBinaries returns the binaries of the version that made the data, or the newest ones
// if there is no data.
func (s *Server) chooseBinaries(ctx context.Context) (binaries, error) {
	wanted, err := dataVersion(s.pgdata())
	if err != nil {
		return binaries{}, err
	}
	dirs := s.config.BinDirs
	if dirs == nil {
		dirs = searchDirs()
	}
	// A build that an earlier start fetched may have made the data.
	fetched, err := s.fetchDir()
	if err != nil {
		return binaries{}, err
	}
	dirs = slices.Concat(dirs, glob(filepath.Join(fetched, "*", "bin")))
	found := findBinaries(ctx, dirs, s.user)
	if ctx.Err() != nil { // the search was cut short
		return binaries{}, fmt.Errorf("look for binaries: %w", ctx.Err())
	}
	for _, b := range found {
		if wanted == 0 || b.major == wanted {
			return b, nil
		}
	}
	if len(found) > 0 {
		return binaries{}, fmt.Errorf("%w: its data is of version %d, but %s is installed (in %s): "+
			"install version %d, or choose another directory", ErrVersion, wanted, found[0].version, found[0].dir, wanted)
	}
	return s.fetch(ctx, wanted)
}

// dataVersion returns the major version that made the data, or 0 if there is no data.
func dataVersion(pgdata string) (int, error) {
	major, err := readNumber(filepath.Join(pgdata, "PG_VERSION"))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return 0, nil
	case errors.Is(err, strconv.ErrSyntax):
		return 0, fmt.Errorf("%w: read PG_VERSION: %w", ErrVersion, err)
	case err != nil:
		return 0, fmt.Errorf("read the version of the data: %w", err)
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

// glob returns what matches. A malformed pattern, from the odd name of a directory, matches
// nothing.
func glob(pattern string) []string {
	matches, _ := filepath.Glob(pattern)
	return matches
}

// findBinaries returns the binaries that the server's user can run, newest major version
// first.
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

// inspect asks the binaries in dir for their version.
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
	major, _ := strconv.Atoi(match[2]) // always a number
	return binaries{dir: dir, major: major, version: match[1]}, nil
}
