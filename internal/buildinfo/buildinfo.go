// Package buildinfo says which build of the programs is running.
package buildinfo

import (
	"cmp"
	"fmt"
	"log/slog"
	"runtime"
	"runtime/debug"
	"strings"
)

// The linker sets these in a build without a clone of the repository around it, as in
// -X upcall/internal/buildinfo.version=v1.2.3. Otherwise the go command knows them from Git.
var version, commit, date string

// unknown stands for what neither the linker nor the go command knows, as in go run.
const unknown = "unknown"

// A Build is one build of the programs.
type Build struct {
	Version string // as in v1.2.3, or devel
	Commit  string // 40 hex digits, with +dirty added if files were changed; or unknown
	Date    string // of the commit, RFC 3339; or unknown
	Go      string // the version of Go, as in go1.26.0
}

// Current returns the build that is running.
func Current() Build {
	b := Build{Version: version, Commit: commit, Date: date, Go: runtime.Version()}
	var modified bool
	if info, ok := debug.ReadBuildInfo(); ok {
		if main := info.Main.Version; main != "(devel)" {
			b.Version = cmp.Or(b.Version, main)
		}
		for _, s := range info.Settings {
			switch s.Key {
			case "vcs.revision":
				b.Commit = cmp.Or(b.Commit, s.Value)
			case "vcs.time":
				b.Date = cmp.Or(b.Date, s.Value)
			case "vcs.modified":
				modified = s.Value == "true" && commit == ""
			}
		}
	}
	if modified {
		b.Commit += "+dirty"
	}
	return Build{cmp.Or(b.Version, "devel"), cmp.Or(b.Commit, unknown), cmp.Or(b.Date, unknown), b.Go}
}

// String is the line that --version prints after a program's name.
func (b Build) String() string {
	short, dirty := strings.CutSuffix(b.Commit, "+dirty")
	if short = short[:min(len(short), 12)]; dirty {
		short += "+dirty"
	}
	return fmt.Sprintf("%s (commit %s of %s, %s %s/%s)", b.Version, short, b.Date, b.Go, runtime.GOOS, runtime.GOARCH)
}

// LogValue has the members that a log line about the build has.
func (b Build) LogValue() slog.Value {
	return slog.GroupValue(slog.String("version", b.Version), slog.String("commit", b.Commit), slog.String("date", b.Date),
		slog.String("go", b.Go))
}
