package migrations

import "context"

// Edition and ViewsDigest identify the views that are compiled in.
const Edition = edition

// UpWith is Up with other views, given as names and definitions in turn. It tries twice
// to change views that are in use.
func UpWith(ctx context.Context, databaseURL string, edition int, views ...string) error {
	set := viewSet{edition: edition, tries: 2}
	for i := 0; i < len(views); i += 2 {
		set.views = append(set.views, view{views[i], views[i+1]})
	}
	return up(ctx, databaseURL, set)
}
