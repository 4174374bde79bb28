//go:build !linux

package pgdial

import "syscall"

// limitSilence does nothing: other systems have no such limit, or call it otherwise. Keep-alive
// probes and the deadlines of statements remain.
func limitSilence(_, _ string, _ syscall.RawConn) error { return nil }
