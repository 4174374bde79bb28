package main

import (
	"errors"
	"strings"
	"testing"

	"upcall/internal/cli"
	"upcall/internal/dbtest"
	"upcall/internal/testing/clitest"
)

// TestRetentionIsChecked tests typing mistakes, which must not delete events.
func TestRetentionIsChecked(t *testing.T) {
	t.Parallel()
	for _, given := range []string{"30d", "400", "0d", "400h", "-400d"} {
		err := program.Error(t, clitest.Env{"UPCALL_RETENTION": given, "UPCALL_TOKEN": "off",
			"UPCALL_DATABASE_URL": "postgres://nobody@127.0.0.1:1/none"}, "serve")
		if !errors.Is(err, cli.ErrUsage) || !strings.Contains(err.Error(), "UPCALL_RETENTION") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: got %v, want one line about UPCALL_RETENTION", given, err)
		}
	}
}

// TestMaintain: the owner's role makes the partitions and drops what has expired; another
// role learns who can.
func TestMaintain(t *testing.T) {
	t.Parallel()
	owner := dbtest.URL(t)
	role := dbtest.Role(t, owner, dbtest.Grants(t, "../../docs/database.md", "upcall_receiver")...)
	env := clitest.Env{"UPCALL_DATABASE_URL": role}
	if err := program.Error(t, env, "maintain"); !strings.Contains(err.Error(), "run receiver maintain with the role that owns the tables") {
		t.Errorf("with a role that owns nothing: %v", err)
	}
	env["UPCALL_DATABASE_URL"] = owner
	for range 2 {
		if got := program.Output(t, env, "maintain"); got != "partitions: 2 months ahead\n" {
			t.Errorf("printed %q", got)
		}
	}
	dbtest.Execute(t, owner, "CREATE TABLE upcall.upload_events_2001_02 PARTITION OF upcall.upload_events "+
		"FOR VALUES FROM ('2001-02-01') TO ('2001-03-01')")
	env["UPCALL_RETENTION"] = "400d"
	env["UPCALL_DATABASE_URL"] = role
	if err := program.Error(t, env, "maintain"); !strings.Contains(err.Error(), "permission denied for table feed_log") ||
		!strings.Contains(err.Error(), "run receiver maintain --retention with the role that owns the tables") {
		t.Errorf("retention with a role that owns nothing: %v", err)
	}
	env["UPCALL_DATABASE_URL"] = owner
	if _, stderr, err := program.Execute(t, env, "maintain"); err != nil || !strings.Contains(stderr, "2001_02") {
		t.Errorf("nothing was dropped: %v\n%s", err, stderr)
	}
	env["UPCALL_RETENTION"] = "3d"
	if err := program.Error(t, env, "maintain"); !errors.Is(err, cli.ErrUsage) {
		t.Errorf("a retention that is too short: %v", err)
	}
}
