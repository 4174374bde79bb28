package cli

import (
	"bytes"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
	"github.com/google/go-cmp/cmp"
)

type sample struct {
	Name   string   `placeholder:"NAME" setting:"APP_NAME" default:"nobody" help:"A name."`
	Loud   bool     `setting:"APP_LOUD" help:"Be loud."`
	Words  []string `sep:"none" setting:"APP_WORDS" help:"Words."`
	List   []string `setting:"APP_LIST" help:"A list."`
	Hidden string   `help:"Has no variable."`
}

func TestFlags(t *testing.T) {
	t.Parallel()
	env := map[string]string{"APP_NAME": "ann", "APP_LOUD": "true", "APP_WORDS": "a,b\r\n\n c=${d} ", "APP_LIST": "p,q", "HIDDEN": "x"}
	tests := []struct {
		name    string
		env     map[string]string
		args    []string
		want    sample
		wantErr string
	}{
		{"nothing", nil, nil, sample{Name: "nobody"}, ""},
		{"empty is not set", map[string]string{"APP_NAME": "", "APP_WORDS": ""}, nil, sample{Name: "nobody"}, ""},
		{"environment", env, nil, sample{Name: "ann", Loud: true, Words: []string{"a,b", " c=${d} "}, List: []string{"p", "q"}}, ""},
		{"flags win", env, []string{"--name=bob", "--words=z", "--hidden=h"},
			sample{Name: "bob", Loud: true, Words: []string{"z"}, List: []string{"p", "q"}, Hidden: "h"}, ""},
		{"an empty flag wins too", env, []string{"--name="},
			sample{Loud: true, Words: []string{"a,b", " c=${d} "}, List: []string{"p", "q"}}, ""},
		{"not UTF-8", map[string]string{"APP_NAME": "a\xff"}, []string{"--hidden=\xc0\xae"}, sample{Name: "a\xff", Hidden: "\xc0\xae"}, ""},
		{"not a boolean", map[string]string{"APP_LOUD": "maybe"}, nil, sample{}, "--loud"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var got sample
			parser, err := kong.New(&got, settings(tt.env)...)
			if err != nil {
				t.Fatal(err)
			}
			_, err = parser.Parse(tt.args)
			if tt.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), tt.wantErr) {
					t.Fatalf("error %v, want one about %s", err, tt.wantErr)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("flags (-want +got):\n%s", diff)
			}
		})
	}
}

func TestFlagsHelp(t *testing.T) {
	t.Parallel()
	var help bytes.Buffer
	parser, err := kong.New(new(sample), append(settings(Env{"APP_NAME": "hunter2"}),
		kong.Writers(&help, &help), kong.Exit(func(int) {}))...)
	if err != nil {
		t.Fatal(err)
	}
	parser.Parse([]string{"--help"}) // the error does not matter: help is printed before it
	if text := help.String(); !strings.Contains(text, "A name. Default nobody ($APP_NAME).") || strings.Contains(text, "hunter2") {
		t.Errorf("help:\n%s", text)
	}
}
