package admission

import (
	"net/url"
	"slices"
	"strings"

	"upcall/internal/fault"
)

// IsPattern reports whether a callback path has parameters.
func IsPattern(path string) bool { return strings.ContainsAny(path, ":*") }

// IsCallbackPath reports whether OSS may call a path.
func (cfg Config) IsCallbackPath(path string) bool {
	return slices.ContainsFunc(cfg.CallbackPaths, func(pattern string) bool { return matchPath(pattern, path) })
}

// IsPlainPath reports whether every proxy spells a path alike, and OSS and MNS do.
func IsPlainPath(path string) bool {
	return strings.HasPrefix(path, "/") && !strings.ContainsAny(path, "?#% ")
}

func checkCallbackPaths(cfg Config) error {
	var faults fault.List
	paths := cfg.CallbackPaths
	if cfg.PublicURL != "" && (len(paths) > 1 || slices.ContainsFunc(paths, IsPattern)) {
		faults.AddAt("", "the public URL stands for one path, but the callback paths are %s: "+
			"have the proxy pass the path through unchanged, and leave the public URL out", strings.Join(paths, ", "))
	}
	for i, path := range paths {
		switch {
		case !IsPlainPath(path):
			faults.AddAt("", "callback path %q is not a plain path: start it with / and use no %%, ? or #, "+
				"which proxies and OSS spell differently", path)
		case !parametersFit(path):
			faults.AddAt("", "callback path %q has : or * elsewhere than at the beginning of a segment, or a * before the end: "+
				"write /oss/:session/:key or /oss/*", path)
		case slices.Contains(paths[:i], path):
			faults.AddAt("", "callback path %q is given twice", path)
		}
	}
	return faults.Err()
}

func parametersFit(path string) bool {
	segments := strings.Split(path, "/")
	for i, segment := range segments {
		parameter := strings.HasPrefix(segment, ":") && len(segment) > 1 ||
			strings.HasPrefix(segment, "*") && i == len(segments)-1
		if parameter {
			segment = segment[1:]
		}
		if IsPattern(segment) {
			return false
		}
	}
	return true
}

// segmented returns the path of a target, decoded, with something else in place of the slashes
// that were percent-encoded: those do not end a segment.
func segmented(target string) string {
	path, _, _ := strings.Cut(target, "?")
	segments := strings.Split(path, "/")
	for i, segment := range segments {
		if decoded, err := url.PathUnescape(segment); err == nil {
			segments[i] = strings.ReplaceAll(decoded, "/", "\x00")
		}
	}
	return strings.Join(segments, "/")
}

// matchPath reports whether a request's path is a callback path.
func matchPath(pattern, path string) bool {
	if pattern == path || !IsPattern(pattern) {
		return pattern == path
	}
	for {
		want, patterns, moreWanted := strings.Cut(pattern, "/")
		have, rest, more := strings.Cut(path, "/")
		switch {
		case strings.HasPrefix(want, "*"):
			return true
		case strings.HasPrefix(want, ":") && have == "", !strings.HasPrefix(want, ":") && have != want, moreWanted != more:
			return false
		case !more:
			return true
		}
		pattern, path = patterns, rest
	}
}
