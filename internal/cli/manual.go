package cli

import (
	"fmt"
	"strings"

	"github.com/alecthomas/kong"

	"upcall/internal/buildinfo"
)

// A page is a manual page in roff's macros of man(7).
type page struct{ strings.Builder }

// manual returns the page of a program. It is the same for the same build.
func manual(app *kong.Application, build buildinfo.Build) string {
	p := new(page)
	date, _, known := strings.Cut(build.Date, "T")
	if !known {
		date = ""
	}
	summary, _, _ := strings.Cut(app.Help, "\n")
	fmt.Fprintf(p, ".TH \"%s\" \"1\" \"%s\" \"%s\" \"Upcall\"\n", strings.ToUpper(app.Name), date, escaped(app.Name+" "+build.Version))
	p.macro("SH", "NAME")
	p.line(app.Name + " - " + strings.TrimSuffix(summary, "."))
	p.macro("SH", "SYNOPSIS")
	p.macro("B", app.Name)
	p.line("command [flags] [arguments]")
	p.macro("SH", "DESCRIPTION")
	p.text(app.Help)
	p.macro("SH", "FLAGS OF ALL COMMANDS")
	p.flags(app.Flags)
	p.macro("SH", "COMMANDS")
	for _, l := range levelsOf(app)[1:] {
		if len(l.commands) == 0 {
			p.command(app.Name, l.node)
		}
	}
	p.macro("SH", "EXIT STATUS")
	p.line("0 for success, 2 for a mistake in the command line, a variable or a setting, 1 for everything else.")
	return p.String()
}

// command describes a command with its own flags and those of the commands above it.
func (p *page) command(program string, node *kong.Node) {
	p.macro("SS", program+" "+node.Summary())
	p.text(node.Help + "\n\n" + node.Detail)
	for _, arg := range node.Positional {
		p.item(arg.Summary(), arg)
	}
	for above := node; above.Parent != nil; above = above.Parent {
		p.flags(above.Flags)
	}
}

func (p *page) flags(flags []*kong.Flag) {
	for _, flag := range flags {
		if flag.Hidden {
			continue
		}
		name := flag.Summary()
		if flag.Tag.Negatable != "" {
			name = "--[no-]" + strings.TrimPrefix(name, "--")
		}
		if flag.Short != 0 {
			name = "-" + string(flag.Short) + ", " + name
		}
		p.item(name, flag.Value)
	}
}

func (p *page) item(name string, value *kong.Value) {
	p.macro("TP")
	p.macro("B", name)
	p.line(explain(value))
	if of := choices(value); of != nil {
		p.line("One of " + strings.Join(of, ", ") + ".")
	}
}

// text writes paragraphs. Lines that begin with spaces are examples and stay as they are.
func (p *page) text(text string) {
	example := false
	for line := range strings.Lines(strings.TrimSpace(text)) {
		line = strings.TrimRight(line, "\n")
		if indented := strings.HasPrefix(line, " "); indented != example && line != "" {
			if example = indented; example {
				p.macro("nf")
			} else {
				p.macro("fi")
			}
		}
		switch {
		case line != "":
			p.line(line)
		case example:
			p.macro("sp")
		default:
			p.macro("PP")
		}
	}
	if example {
		p.macro("fi")
	}
}

// macro writes a macro with its arguments.
func (p *page) macro(name string, args ...string) {
	p.WriteString("." + name)
	for _, arg := range args {
		fmt.Fprintf(p, ` "%s"`, strings.ReplaceAll(escaped(arg), `"`, `\(dq`))
	}
	p.WriteByte('\n')
}

// line writes a line of text, which is no macro whatever it begins with.
func (p *page) line(text string) {
	if strings.TrimSpace(text) == "" {
		return
	}
	p.WriteString(`\&` + escaped(text) + "\n")
}

// escaped returns text as roff shows it: a dash is a dash, which can be copied, and a backslash is one. What is not ASCII is
// given by its number, because roff's own input has no UTF-8.
func escaped(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, "`", `\(ga`, "^", `\(ha`, "~", `\(ti`, "\n", " ").Replace(text)
	var ascii strings.Builder
	for _, r := range text {
		if r < 0x80 {
			ascii.WriteRune(r)
		} else {
			fmt.Fprintf(&ascii, `\[u%04X]`, r)
		}
	}
	return ascii.String()
}
