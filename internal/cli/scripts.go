package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/alecthomas/kong"

	"upcall/internal/buildinfo"
)

// ScriptCommands are the commands of programs that people type. Both work from the model of flags that kong has.
//
// Kong's companions were tried: mango-kong and kongplete are of 2022 and 2023, and build on roff and complete, which
// take help texts for formats, write today's date into a page, and offer flags where the name of a file goes.
type ScriptCommands struct {
	Completion completionCommand `cmd:"" help:"Print the script with which a shell completes commands and flags."`
	Man        manCommand        `cmd:"" help:"Print the manual page."`
}

type completionCommand struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"bash, zsh or fish."`
}

// Run prints the script.
func (c completionCommand) Run(app *kong.Context, std Stdio) error {
	script := bashScript
	switch c.Shell {
	case "zsh":
		script = zshScript
	case "fish":
		script = fishScript
	}
	if _, err := io.WriteString(std.Out, script(app.Model.Name, levelsOf(app.Model))); err != nil {
		return fmt.Errorf("write script: %w", err)
	}
	return nil
}

type manCommand struct{}

// Run prints the page.
func (manCommand) Run(app *kong.Context, std Stdio) error {
	if _, err := io.WriteString(std.Out, manual(app.Model, buildinfo.Current())); err != nil {
		return fmt.Errorf("write manual page: %w", err)
	}
	return nil
}

// A level is a command, and what may follow it.
type level struct {
	at       string // /migrate/up; empty for the program itself
	node     *kong.Node
	commands []*kong.Node
	flags    []*kong.Flag
	args     []*kong.Positional
}

// levelsOf returns the program and all its commands, from the top down.
func levelsOf(app *kong.Application) []level {
	var all []level
	var add func(node *kong.Node, at string)
	add = func(node *kong.Node, at string) {
		l := level{at: at, node: node, args: node.Positional, flags: slices.Concat(node.AllFlags(true)...)}
		if node.DefaultCmd != nil {
			l.flags = append(l.flags, node.DefaultCmd.Flags...)
		}
		for _, child := range node.Children {
			if !child.Hidden {
				l.commands = append(l.commands, child)
			}
		}
		all = append(all, l)
		for _, child := range l.commands {
			add(child, at+"/"+child.Name)
		}
	}
	add(app.Node, "")
	return all
}

// spellings returns how a flag may be written.
func spellings(flag *kong.Flag) []string {
	names := []string{"--" + flag.Name}
	if flag.Tag.Negatable != "" {
		names = append(names, "--no-"+flag.Name)
	}
	if flag.Short != 0 {
		names = append(names, "-"+string(flag.Short))
	}
	return names
}

// takesValue reports whether the word after a flag belongs to it.
func takesValue(flag *kong.Flag) bool { return !flag.IsBool() && !flag.IsCounter() }

// choices returns the words that a value may be, none if it may be others.
func choices(value *kong.Value) []string {
	if value.Enum == "" {
		return nil
	}
	return value.EnumSlice()
}

// explain says of a flag or an argument what --help says: its default, and its variable.
func explain(value *kong.Value) string {
	if value.Help == "" {
		return ""
	}
	text := strings.TrimSuffix(value.Help, ".")
	if value.HasDefault && value.Tag.PlaceHolder != "" {
		text += ". Default " + value.Default
	}
	if name := value.Tag.Get(settingTag); name != "" {
		text += " ($" + name + ")"
	}
	return text + "."
}
