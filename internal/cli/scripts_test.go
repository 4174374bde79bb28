package cli

import (
	"bytes"
	"os/exec"
	"strings"
	"testing"

	"github.com/alecthomas/kong"

	"upcall/internal/buildinfo"
	"upcall/internal/testing/toolchain"
)

type typed struct {
	Show struct {
		Format string `enum:"text,json" default:"text" help:"text or json."`
		Listen string `help:".not a macro, 'quoted', a \\ and 50 % – of it."`
		Quiet  bool   `negatable:"" help:"Less."`
	} `cmd:"" help:"Show something."`
	Deep struct {
		Down struct{} `cmd:"" help:"Down."`
	} `cmd:"" help:"Deeper."`
	ScriptCommands
}

// TestCompletion asks bash what follows words, as it splits them itself.
func TestCompletion(t *testing.T) {
	t.Parallel()
	toolchain.Need(t, "bash")
	var script bytes.Buffer
	if err := (Program{Name: "app"}).Run(t.Context(), &typed{}, []string{"completion", "bash"}, nil, Stdio{Out: &script}); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ words, want string }{
		{"sh", "show"}, {"''", "show deep completion man"}, {"deep ''", "down"}, {"deep down ''", ""},
		{"show --f", "--format"}, {"show --no", "--no-quiet"}, {"show --format ''", "text json"}, {"show --format = j", "json"},
		{"show --format =", "text json"}, {"show --format=j", "--format=json"}, {"show --listen ''", ""}, // and bash completes files
		{"show --listen deep --f", "--format"},   // not the command deep
		{"show --listen = deep --f", "--format"}, // nor here
		{"show --quiet deep --f", "--format"},    // no value follows a switch
		{"--listen show --q", "--quiet"},         // the program has no such flag, so show is the command
		{"completion ''", "bash zsh fish"}, {"nonsense --vers", "--version"},
	} {
		ask := "COMP_WORDS=(app " + tt.words + "); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _complete_app; echo \"${COMPREPLY[*]}\"\n"
		bash := exec.CommandContext(t.Context(), "bash", "--norc", "-eu")
		bash.Stdin = strings.NewReader(script.String() + ask)
		out, err := bash.CombinedOutput()
		got := strings.TrimSpace(string(out))
		if err != nil || got != tt.want {
			t.Errorf("after %s: %q, %v, want %q", tt.words, got, err, tt.want)
		}
	}
	var out bytes.Buffer
	err := (Program{Name: "app"}).Run(t.Context(), &typed{}, []string{"completion", "csh"}, nil, Stdio{Out: &out})
	if err == nil || out.Len() > 0 {
		t.Errorf("csh: %v, %s", err, &out)
	}
}

// TestManual: text stays text, and the same build makes the same page.
func TestManual(t *testing.T) {
	t.Parallel()
	parser, err := kong.New(&typed{}, kong.Name("app"), kong.Description("Does it.\n\nAn example:\n\n  app show\n\nThe end."))
	if err != nil {
		t.Fatal(err)
	}
	page := manual(parser.Model, buildinfo.Build{Version: "v1.2-3", Date: "2026-01-02T03:04:05Z"})
	for _, want := range []string{".TH \"APP\" \"1\" \"2026-01-02\" \"app v1.2\\-3\" \"Upcall\"\n", "\\&app \\- Does it\n",
		"\\&Does it.\n.PP\n\\&An example:\n.PP\n.nf\n\\&  app show\n.sp\n.fi\n\\&The end.\n", ".SS \"app deep down",
		"\\&.not a macro, \\(aqquoted\\(aq, a \\e and 50 % \\[u2013] of it.\n", "\\&One of text, json.\n", ".B \"\\-\\-[no\\-]quiet\"\n"} {
		if !strings.Contains(page, want) {
			t.Errorf("%q is not in\n%s", want, page)
		}
	}
}
