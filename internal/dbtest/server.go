package dbtest

import (
	"net/url"
	"os"
	"testing"

	"upcall/internal/embeddedpg"
	"upcall/migrations"
)

// A Server is one test's private PostgreSQL, with the newest schema and with fsync on. It stops
// at the test's end.
type Server struct {
	*embeddedpg.Server
	dir, standbyOf string
}

// NewServer starts one.
func NewServer(t testing.TB) *Server {
	t.Helper()
	s := &Server{dir: Dir(t)}
	s.start(t, 0)
	if err := migrations.Up(t.Context(), s.URL()); err != nil {
		t.Fatalf("migrate the test's own PostgreSQL: %v", err)
	}
	return s
}

// NewServerAt starts one without any database but its own, at the port of one that is gone.
func NewServerAt(t testing.TB, port int) *Server {
	t.Helper()
	s := &Server{dir: Dir(t)}
	s.start(t, port)
	u, err := url.Parse(s.URL())
	if err != nil {
		t.Fatal(err)
	}
	u.Path = "/postgres"
	Execute(t, u.String(), "DROP DATABASE upcall")
	return s
}

// NewStandby starts a standby of the server at a URL. It takes pg_basebackup.
func NewStandby(t testing.TB, primaryURL string) *Server {
	t.Helper()
	s := &Server{dir: Dir(t), standbyOf: primaryURL}
	s.start(t, 0)
	return s
}

// Kill ends the server at once, as a crash does.
func (s *Server) Kill(t testing.TB) {
	t.Helper()
	if err := s.Server.Kill(); err != nil {
		t.Fatalf("kill PostgreSQL: %v", err)
	}
}

// Restart starts the server again after Kill, at the same URL.
func (s *Server) Restart(t testing.TB) {
	t.Helper()
	s.start(t, s.Port())
}

func (s *Server) start(t testing.TB, port int) {
	t.Helper()
	config := embeddedpg.Config{DataDir: s.dir, StandbyOf: s.standbyOf, Port: port, MaxConnections: 200, StartTimeout: setUpTimeout}
	server, err := embeddedpg.Start(t.Context(), config)
	if err != nil {
		t.Fatalf("start the test's own PostgreSQL: %v", err)
	}
	t.Cleanup(func() { server.Stop() }) // it may have been killed
	s.Server = server
}

// Dir returns a directory for the data of a private PostgreSQL, which is removed at the test's
// end. If the test runs as root, PostgreSQL's user cannot read the one of t.TempDir.
func Dir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "upcall-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	return dir
}
