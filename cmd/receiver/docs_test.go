package main

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"

	"upcall/internal/cli"
	"upcall/internal/dbtest"
	"upcall/internal/testing/clitest"
)

var (
	shellBlock = regexp.MustCompile("(?ms)^```sh\n(.*?)^```")
	// A command for the database, perhaps with variables before it or in a container, and a comment after it.
	databaseCommand = regexp.MustCompile(`(?m)^(?:[A-Z_]+=\S+ |docker compose exec (?:-T )?receiver )*receiver ` +
		`((?:analyst|erase|index|maintain|publication|rebuild) [^#\n]+|maintain)(?: *#.*)?$`)
)

// pages returns README.md and the pages in docs by their names.
func pages(t *testing.T) map[string]string {
	t.Helper()
	paths, err := filepath.Glob("../../docs/*.md")
	if err != nil || len(paths) < 10 {
		t.Fatalf("found %d pages, %v", len(paths), err)
	}
	found := make(map[string]string)
	for _, path := range append(paths, "../../README.md") {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		found[filepath.Base(path)] = string(text)
	}
	return found
}

// TestDatabaseCommandsOfPages runs each command of the pages that changes the database, in the order of
// each page. Those of receiver export and of spools have tests of their own.
func TestDatabaseCommandsOfPages(t *testing.T) {
	t.Parallel()
	all, ran := pages(t), make(map[string]bool)
	for _, page := range slices.Sorted(maps.Keys(all)) {
		var env clitest.Env
		for _, block := range shellBlock.FindAllStringSubmatch(all[page], -1) {
			for _, command := range databaseCommand.FindAllStringSubmatch(block[1], -1) {
				if env == nil {
					env = clitest.Env{"UPCALL_DATABASE_URL": dbtest.NewServer(t).URL()} // roles are the cluster's
				}
				words := strings.Fields(command[1])
				if _, _, err := program.Execute(t, env, words...); err != nil {
					t.Errorf("%s: %s: %v", page, command[1], err)
				}
				if len(words) > 1 && regexp.MustCompile("^[a-z]+$").MatchString(words[1]) {
					ran[words[0]+" "+words[1]] = true
				}
				ran[words[0]] = true
			}
		}
	}
	for _, command := range []string{"analyst add", "analyst list", "analyst remove", "erase", "index add", "index list", "index remove",
		"maintain", "publication create", "publication drop", "rebuild rollup"} {
		if !ran[command] {
			t.Errorf("no page has receiver %s in a block", command)
		}
	}
}

// TestCommandsAreInPages holds that a page names each command.
func TestCommandsAreInPages(t *testing.T) {
	t.Parallel()
	parser, err := kong.New(&commands{}, helpTexts().CloneWith(cli.OSSHelp()))
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Join(slices.Collect(maps.Values(pages(t))), "\n")
	leaves := parser.Model.Leaves(true)
	if len(leaves) < 20 {
		t.Fatalf("found %d commands", len(leaves))
	}
	for _, leaf := range leaves {
		if command := "receiver " + leaf.Path(); !strings.Contains(text, command) {
			t.Errorf("no page names %s", command)
		}
	}
}
