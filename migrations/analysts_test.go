package migrations_test

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"upcall/internal/dbtest"
	"upcall/migrations"
)

const (
	analysts     = "SELECT rolname || ' ' || rolcanlogin FROM pg_roles WHERE rolname = 'upcall_analyst'"
	analystViews = `SELECT relname::text FROM pg_class WHERE relnamespace = 'upcall'::regnamespace AND relkind IN ('r', 'p', 'v', 'S')
		AND has_schema_privilege('upcall_analyst', 'upcall', 'USAGE') AND has_table_privilege('upcall_analyst', oid, 'SELECT') ORDER BY 1`
	ownViews = "SELECT viewname::text FROM pg_views WHERE schemaname = 'upcall' ORDER BY 1"
)

// TestAnalystRole makes the role of analysts from many databases at once, and takes it back from
// one.
func TestAnalystRole(t *testing.T) {
	t.Parallel()
	server := dbtest.NewServer(t) // a cluster of its own
	conn := connect(t, server.URL())
	want(t, conn, "made by Up", analysts, "upcall_analyst false")
	execute(t, conn, "DROP OWNED BY upcall_analyst; DROP ROLE upcall_analyst")
	urls := []string{server.URL()}
	for i := range 4 {
		name := fmt.Sprintf("other%d", i)
		execute(t, conn, "CREATE DATABASE "+name)
		urls = append(urls, at(t, server.URL(), name, nil))
	}
	var group sync.WaitGroup
	for _, url := range urls {
		group.Go(func() {
			if err := migrations.Up(t.Context(), url); err != nil {
				t.Errorf("%s: %v", url, err)
			}
		})
	}
	group.Wait()
	for _, url := range urls {
		other := connect(t, url)
		if diff := cmp.Diff(lines(t, other, ownViews), lines(t, other, analystViews)); diff != "" {
			t.Errorf("%s: analysts can read (-views +got): %s", url, diff)
		}
	}
	// What others need stays.
	if err := migrations.Down(t.Context(), urls[1], int(migrations.Latest())); err != nil {
		t.Fatal(err)
	}
	if left := lines(t, connect(t, urls[1]), analystViews); len(left) > 0 {
		t.Errorf("analysts can read %q after down", left)
	}
	if diff := cmp.Diff(lines(t, conn, ownViews), lines(t, conn, analystViews)); diff != "" {
		t.Errorf("after down elsewhere: %s", diff)
	}
	// A view that is made again, or that the role lost.
	execute(t, conn, "REVOKE ALL ON upcall.upload_status FROM upcall_analyst; REVOKE ALL ON SCHEMA upcall FROM upcall_analyst")
	if err := migrations.Up(t.Context(), server.URL()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(lines(t, conn, ownViews), lines(t, conn, analystViews)); diff != "" {
		t.Errorf("after another up: %s", diff)
	}
}

// TestAnalystRoleByHand migrates with a role that cannot make roles.
func TestAnalystRoleByHand(t *testing.T) {
	t.Parallel()
	server := dbtest.NewServer(t)
	conn := connect(t, server.URL())
	execute(t, conn, "DROP OWNED BY upcall_analyst; DROP ROLE upcall_analyst")
	execute(t, conn, "CREATE ROLE modest LOGIN PASSWORD 'secret'")
	execute(t, conn, "CREATE DATABASE theirs OWNER modest")
	theirs := at(t, server.URL(), "theirs", url.UserPassword("modest", "secret"))
	up := func(url string) (printed []string) {
		t.Helper()
		if err := migrations.UpReporting(t.Context(), url, func(line string) { printed = append(printed, line) }); err != nil {
			t.Fatal(err)
		}
		return printed
	}
	printed := up(theirs)
	if len(printed) != 4 || !slices.ContainsFunc(printed, func(line string) bool { return line == "  CREATE ROLE upcall_analyst NOLOGIN;" }) {
		t.Fatalf("printed %q", printed)
	}
	execute(t, conn, strings.TrimSpace(printed[1]))
	admin := connect(t, at(t, server.URL(), "theirs", nil))
	if printed := up(theirs); len(printed) > 0 { // the owner can do the rest
		t.Errorf("printed %q", printed)
	}
	if diff := cmp.Diff(lines(t, admin, ownViews), lines(t, admin, analystViews)); diff != "" {
		t.Errorf("analysts can read (-views +got): %s", diff)
	}
	// The schema belongs to another role: that one must run what is printed.
	execute(t, admin, "REVOKE ALL ON SCHEMA upcall FROM upcall_analyst; ALTER SCHEMA upcall OWNER TO CURRENT_USER")
	execute(t, admin, "GRANT ALL ON SCHEMA upcall TO modest")
	printed = up(theirs)
	if len(printed) != 2 {
		t.Fatalf("printed %q", printed)
	}
	execute(t, admin, strings.TrimSpace(printed[1]))
	if printed := up(theirs); len(printed) > 0 {
		t.Errorf("printed %q", printed)
	}
}

// TestAnalystRoleRaces has the role made and dropped again and again meanwhile.
func TestAnalystRoleRaces(t *testing.T) {
	t.Parallel()
	server := dbtest.NewServer(t)
	ctx, stop := context.WithCancel(t.Context())
	var group sync.WaitGroup
	defer group.Wait()
	defer stop()
	group.Go(func() {
		conn, err := pgx.Connect(ctx, server.URL())
		if err != nil {
			return
		}
		defer conn.Close(context.WithoutCancel(ctx))
		for ctx.Err() == nil {
			for _, statement := range []string{"REVOKE ALL ON upcall.hook_status, upcall.upload_status FROM upcall_analyst",
				"REVOKE ALL ON SCHEMA upcall FROM upcall_analyst", "GRANT USAGE ON SCHEMA upcall TO upcall_analyst"} {
				_, _ = conn.Exec(ctx, statement) // it may collide, too
			}
		}
	})
	for range 10 {
		if err := migrations.Up(ctx, server.URL()); err != nil {
			t.Fatal(err)
		}
	}
}

// at returns the URL with another database and, unless it is nil, user.
func at(t *testing.T, base, database string, user *url.Userinfo) string {
	t.Helper()
	u, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	u.Path = "/" + database
	if user != nil {
		u.User = user
	}
	return u.String()
}
