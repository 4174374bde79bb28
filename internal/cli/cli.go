// Package cli is what the programs under cmd have in common: how they start and end, read
// flags, variables and secrets, and report mistakes.
//
// A program is a function that takes its context, arguments, environment and streams, and
// returns an error. [Main] runs it as a process. A test calls it directly, so that one test
// can run many programs side by side.
package cli

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

	"upcall/internal/fault"
)

// Env holds variables. An empty one counts as not set.
type Env map[string]string

// Environ returns the variables of this process.
func Environ() Env {
	env := make(Env)
	for _, entry := range os.Environ() {
		name, value, _ := strings.Cut(entry, "=")
		env[name] = value
	}
	return env
}

// Stdio is where a program reads and writes: results go to Out, messages and logs to Err.
type Stdio struct {
	In       io.Reader
	Out, Err io.Writer
}

// Main runs a program as this process. SIGINT and SIGTERM end its context. Main prints an
// error and exits with its code.
func Main(name string, run func(ctx context.Context, args []string, env Env, std Stdio) error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], Environ(), Stdio{os.Stdin, os.Stdout, os.Stderr})
	stop()
	if err != nil {
		Report(os.Stderr, name, err)
		os.Exit(ExitCode(err))
	}
}

// A Program describes a program for its help.
type Program struct {
	Name        string
	Description string
	Groups      []kong.Group // of flags, in the order of the help
	Vars        kong.Vars    // for ${name} in the tags of flags
}

// Run reads args and env into commands, a pointer to a struct of kong's, and runs the
// chosen command, or commands itself if it has none. Its Run method may take a
// context.Context, an [Env], a [Stdio], and [Settings]. Run does not print its error, which is an
// [ErrUsage] if the command line or the name of a variable is wrong; it then has what the
// command's Check method finds as well.
func (p Program) Run(ctx context.Context, commands any, args []string, env Env, std Stdio) error {
	helped := false
	parser, err := kong.New(commands, append(settings(env),
		kong.Name(p.Name),
		kong.Description(p.Description),
		kong.ExplicitGroups(p.Groups),
		kong.PostBuild(p.fill),
		kong.Writers(std.Out, std.Err),
		kong.Exit(func(int) { helped = true }), // --help and --version come through here
		kong.Embed(&rootFlags{}),
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.Bind(env, std),
	)...)
	if err != nil {
		return fmt.Errorf("read own flags: %w", err)
	}
	selected, err := parser.Parse(args)
	switch {
	case helped:
		return nil
	case err != nil:
		command := p.Name
		if parse, ok := errors.AsType[*kong.ParseError](err); ok && parse.Context.Selected() != nil {
			command = parse.Context.Selected().FullPath()
		}
		return Usage(fmt.Errorf("%w; see %s --help", err, command))
	}
	if err := checkVariables(p.Name, parser.Model, env); err != nil {
		command := selected.Model.Target
		if node := selected.Selected(); node != nil {
			command = node.Target
		}
		if c, ok := command.Addr().Interface().(interface{ Check(env Env) error }); ok {
			err = fault.Join(err, c.Check(env))
		}
		return Usage(err)
	}
	return selected.Run(settingsOf(selected, env))
}

// fill puts Vars into the model. kong would do so as well, but looks for variables in the text of each
// variable for each flag: with a hundred of each, most of the time that a program takes to start.
func (p Program) fill(parser *kong.Kong) error {
	var pairs []string
	for name, text := range p.Vars {
		pairs = append(pairs, "${"+name+"}", text)
	}
	texts := strings.NewReplacer(pairs...)
	return kong.Visit(parser.Model, func(node kong.Visitable, next kong.Next) error {
		switch node := node.(type) {
		case *kong.Node:
			node.Help = texts.Replace(node.Help)
		case *kong.Value:
			node.Help, node.Default = texts.Replace(node.Help), texts.Replace(node.Default)
		}
		return next(nil)
	})
}
