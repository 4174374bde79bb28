// Issuer hands out presigned OSS upload URLs whose callback is tied to the upload.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"

	"upcall/internal/setting"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Getenv, stdio{os.Stdin, os.Stdout, os.Stderr})
	stop()
	if err != nil {
		report(os.Stderr, err)
		os.Exit(exitCode(err))
	}
}

// stdio is where a command reads, and where it writes: what was asked for to out,
// remarks to err.
type stdio struct {
	in       io.Reader
	out, err io.Writer
}

// A usageError is what the caller has to change: flags, environment, files of settings.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func exitCode(err error) int {
	if _, ok := errors.AsType[usageError](err); ok {
		return 2
	}
	return 1
}

// report writes one line for each of the errors that were joined.
func report(w io.Writer, err error) {
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintf(w, "issuer: %s\n", strings.TrimRight(line, "\n"))
	}
}

// commands is the command line.
type commands struct {
	Put       putCommand       `cmd:"" help:"Presign one upload: a PUT to OSS that ends in a callback."`
	Multipart multipartCommand `cmd:"" help:"Initiate, complete or abort an upload in parts."`
	Upload    uploadCommand    `cmd:"" help:"Upload files, in parts and in parallel where they are large, and see the callback through."`
	Serve     serveCommand     `cmd:"" help:"Hand out uploads to applications over HTTP."`
	Keys      keysCommand      `cmd:"" help:"Make, list and revoke the API keys of issuer serve."`
}

const description = `Hands out presigned OSS upload URLs whose callback is tied to the upload.

Credentials come from OSS_ACCESS_KEY_ID, OSS_ACCESS_KEY_SECRET and, for temporary ones, OSS_SESSION_TOKEN.
A profile, a RAM role or a command can give them instead; see the flags of a command.
Callbacks carry an upload token where UPCALL_TOKEN_KEYS is set: kid:secret[,kid:secret], the first one signs.
Each of these may be given as a file instead, named by the variable with _FILE at its end.`

// run is the whole program but for signals and the exit status. The error, if any, has
// not been shown yet.
func run(ctx context.Context, args []string, env func(string) string, std stdio) error {
	var cli commands
	helped := false
	parser, err := kong.New(&cli, append(setting.Flags(env),
		kong.Name("issuer"),
		kong.Description(description),
		kong.Writers(std.out, std.err),
		kong.Exit(func(int) { helped = true }), // --help comes through here
		kong.ExplicitGroups([]kong.Group{
			{Key: "service", Title: "The service:"},
			{Key: "database", Title: "The database:"},
			{Key: "upload", Title: "The upload:"},
			{Key: "callback", Title: "The callback:"},
			{Key: "oss", Title: "The way to OSS:"},
			{Key: "output", Title: "The output:"},
		}),
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.Bind(environment(env), std),
	)...)
	if err != nil {
		return fmt.Errorf("build command line: %w", err)
	}
	selected, err := parser.Parse(args)
	switch {
	case helped:
		return nil
	case err != nil:
		return usageError{err}
	}
	return selected.Run()
}

// environment looks variables up, as os.Getenv does.
type environment func(string) string
