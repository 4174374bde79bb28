package clitest

import (
	"bytes"
	"fmt"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"

	"upcall/internal/testing/toolchain"
)

// CheckScripts holds that the shells complete each command and flag of a program, and that its manual page names
// them. commands is the program's command line.
func (p Program) CheckScripts(t *testing.T, name string, commands any, options ...kong.Option) {
	t.Helper()
	parser, err := kong.New(commands, append(options, kong.Name(name), kong.Embed(&struct {
		Version bool `help:"Version."`
	}{}))...)
	if err != nil {
		t.Fatal(err)
	}
	var asked []question
	ask(&asked, parser.Model.Node, nil)
	if len(asked) < 4 {
		t.Fatalf("%s has %d commands", name, len(asked))
	}
	t.Run("bash", func(t *testing.T) { p.checkBash(t, name, asked) })
	t.Run("zsh", func(t *testing.T) { p.checkZsh(t, name, asked) })
	t.Run("fish", func(t *testing.T) { p.checkFish(t, name, asked) })
	t.Run("man", func(t *testing.T) { p.checkManual(t, name, asked) })
}

// A question is a command, and what may follow it.
type question struct {
	at              []string
	commands, flags []string
}

func ask(all *[]question, node *kong.Node, at []string) {
	q := question{at: slices.Clone(at)}
	for _, group := range node.AllFlags(true) {
		for _, f := range group {
			q.flags = append(q.flags, "--"+f.Name)
		}
	}
	for _, child := range node.Children {
		q.commands = append(q.commands, child.Name)
	}
	*all = append(*all, q)
	for _, child := range node.Children {
		ask(all, child, append(slices.Clone(at), child.Name))
	}
}

// run runs a script of a shell and returns the lines that it prints.
func run(t *testing.T, script string, shell ...string) []string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), shell[0], shell[1:]...)
	cmd.Stdin = strings.NewReader(script)
	cmd.Dir = t.TempDir()
	cmd.Env = []string{"HOME=" + cmd.Dir, "PATH=/usr/local/bin:/usr/bin:/bin", "LC_ALL=C.UTF-8"}
	var remarks bytes.Buffer
	cmd.Stderr = &remarks
	out, err := cmd.Output()
	if err != nil || remarks.Len() > 0 {
		t.Fatalf("%v: %v: %s", shell, err, &remarks)
	}
	return strings.Split(strings.TrimRight(string(out), "\n"), "\n")
}

// check compares the answers, two lines for each question, with what may follow.
func check(t *testing.T, asked []question, lines []string) {
	t.Helper()
	if len(lines) != 2*len(asked) {
		t.Fatalf("%d answers to %d questions: %q", len(lines), len(asked), lines)
	}
	for i, q := range asked {
		for k, want := range [][]string{q.commands, q.flags} {
			got := strings.Fields(lines[2*i+k])
			for _, word := range want {
				if !slices.Contains(got, word) {
					t.Errorf("after %q %s is not offered: %q", q.at, word, got)
				}
			}
		}
	}
}

// asBash asks a function of bash, whose words are an array, what may follow.
func asBash(name string, asked []question) string {
	var script strings.Builder
	for _, q := range asked {
		for _, begun := range []string{"''", "--"} {
			fmt.Fprintf(&script, "COMP_WORDS=(%s %s %s); COMP_CWORD=%d; COMPREPLY=(); _complete_%[1]s; echo \"${COMPREPLY[*]}\"\n",
				name, strings.Join(q.at, " "), begun, len(q.at)+1)
		}
	}
	return script.String()
}

func (p Program) checkBash(t *testing.T, name string, asked []question) {
	toolchain.Need(t, "bash")
	script := p.Output(t, nil, "completion", "bash")
	check(t, asked, run(t, script+asBash(name, asked), "bash", "--norc", "-eu"))
	if got := run(t, script+"complete -p "+name+"\n", "bash", "--norc"); got[0] != "complete -o default -F _complete_"+name+" "+name {
		t.Errorf("bash knows %q", got)
	}
}

func (p Program) checkZsh(t *testing.T, name string, asked []question) {
	toolchain.Need(t, "zsh")
	script := "autoload -U compinit && compinit -u -D\n" + p.Output(t, nil, "completion", "zsh")
	// With the options that its own completion sets for functions of bash.
	script += "ask() { emulate -L sh; setopt kshglob noshglob braceexpand ksharrays; typeset -a COMP_WORDS COMPREPLY\n" +
		asBash(name, asked) + "}\nask\n"
	check(t, asked, run(t, script, "zsh", "-f"))
}

func (p Program) checkFish(t *testing.T, name string, asked []question) {
	toolchain.Need(t, "fish")
	script := p.Output(t, nil, "completion", "fish")
	for _, q := range asked {
		for _, begun := range []string{"", "--"} {
			script += fmt.Sprintf("echo (complete -C '%s %s' | string split -f1 \\t)\n",
				strings.Join(append([]string{name}, q.at...), " "), begun)
		}
	}
	check(t, asked, run(t, script, "fish", "--no-config"))
}

func (p Program) checkManual(t *testing.T, name string, asked []question) {
	page := p.Output(t, nil, "man")
	plain := strings.ReplaceAll(page, `\-`, "-")
	for _, q := range asked {
		heading := `.SS "` + strings.Join(append([]string{name}, q.at...), " ")
		_, section, found := strings.Cut(plain, heading)
		section, _, _ = strings.Cut(section, "\n.SS ")
		if len(q.commands) > 0 {
			continue // its commands are there, and its flags with them
		}
		if !found {
			t.Errorf("no %s", heading)
		}
		for _, flag := range q.flags {
			if own := flag != "--help" && flag != "--version"; own && !strings.Contains(section, flag) &&
				!strings.Contains(section, "--[no-]"+flag[2:]) || !own && !strings.Contains(plain, flag) {
				t.Errorf("no %s in the section of %v", flag, q.at)
			}
		}
	}
	toolchain.Need(t, "man")
	// A build without a date is no mistake of the page.
	page = regexp.MustCompile(`(?m)^(\.TH "[A-Z]+" "1") ""`).ReplaceAllString(page, `$1 "2026-01-02"`)
	for _, lint := range [][]string{{"mandoc", "-T", "lint", "-W", "warning"}, {"groff", "-man", "-ww", "-W", "break", "-Tutf8", "-z"}} {
		cmd := exec.CommandContext(t.Context(), lint[0], lint[1:]...)
		cmd.Stdin = strings.NewReader(page)
		if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("%v: %v: %s", lint, err, out)
		}
	}
}
