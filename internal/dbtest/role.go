package dbtest

import (
	"crypto/rand"
	"net/url"
	"os"
	"regexp"
	"strings"
	"testing"
)

// Role makes a role that can log in, runs the statements, in which ROLE stands for its name,
// with the role of the URL, and returns the URL for the new role, which is dropped at the
// test's end.
func Role(t testing.TB, databaseURL string, statements ...string) string {
	t.Helper()
	name := "upcall_test_" + strings.ToLower(rand.Text())
	run := func(statement string) {
		t.Helper()
		if err := execute(databaseURL, strings.ReplaceAll(statement, "ROLE", name)); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	if err := execute(databaseURL, "CREATE ROLE "+name+" LOGIN PASSWORD 'secret'"); err != nil {
		t.Fatalf("make role: %v", err)
	}
	t.Cleanup(func() {
		if err := execute(databaseURL, "DROP OWNED BY "+name); err != nil {
			t.Errorf("drop what belongs to a role: %v", err)
		}
		if err := execute(databaseURL, "DROP ROLE "+name); err != nil {
			t.Errorf("drop role: %v", err)
		}
	})
	for _, statement := range statements {
		run(statement)
	}
	u, err := url.Parse(databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword(name, "secret")
	return u.String()
}

// Grants returns the statements that a page of the documentation has for a role, each with
// ROLE for its name.
func Grants(t testing.TB, page, role string) []string {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	statements := regexp.MustCompile(`(?m)^GRANT .* TO `+role+`;$`).FindAllString(string(text), -1)
	if len(statements) == 0 {
		t.Fatalf("%s grants nothing to %s", page, role)
	}
	for i := range statements {
		statements[i] = strings.TrimSuffix(strings.Replace(statements[i], "TO "+role, "TO ROLE", 1), ";")
	}
	return statements
}

// Execute runs a statement on the database of a URL, in a session of its own: past any pooler.
func Execute(t testing.TB, databaseURL, statement string) {
	t.Helper()
	if err := execute(databaseURL, statement); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}
