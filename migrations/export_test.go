package migrations

import (
	"context"

	"github.com/jackc/pgx/v5"
)

// Edition identifies the compiled-in views.
const Edition = edition

// ViewsSince is the first version whose views are not in the numbered files.
const ViewsSince = viewsSince

// UpWith is Up with other views, given as alternating names and definitions. It tries twice to
// change views that are in use.
func UpWith(ctx context.Context, databaseURL string, edition int, views ...string) error {
	return up(ctx, databaseURL, setOf(edition, views), func(string) {})
}

// Forget drops those views, as Down does first.
func Forget(ctx context.Context, conn *pgx.Conn, views ...string) error {
	return changeViews(ctx, conn, 1, func(tx pgx.Tx) error { return setOf(0, views).forget(ctx, tx) })
}

func setOf(edition int, views []string) viewSet {
	set := viewSet{edition: edition, tries: 2}
	for i := 0; i < len(views); i += 2 {
		set.views = append(set.views, view{views[i], views[i+1]})
	}
	return set
}
