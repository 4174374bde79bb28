// Package feed reads the log of events in the order of their commits, and keeps durable
// consumers of it.
//
// # The log
//
// The log is the table upcall.upload_events in the order of (recorded_xid, id), where
// recorded_xid is the transaction that wrote the row. Rows from before migration 8 have none;
// they come first, by (received_at, id). A [Log] takes only rows of transactions below
// pg_snapshot_xmin of the snapshot that it reads them with: no transaction that is still
// running can add a row before them. So every reader sees every entry once, in one order, and
// a place in it is a [Cursor].
//
// What holds this watermark back is any transaction with an xid in the whole cluster: long
// writing ones and prepared ones, not those that only read. See [Log.Holders].
//
// Findings about events, which are rows of upcall.findings, have their places in the same order.
// An [Entry] of one has the event, and what was found. Readers get events alone, except by
// [Log.Find], which shows both and leaves the choice to its caller.
//
// Ways to read:
//
//	page, err := log.Page(ctx, after, 1000) // what is there now; perhaps nothing
//	page, err := log.Next(ctx, after, 1000) // waits until there is an entry
//	page, err := log.Find(ctx, after, 1000, wants, &passed) // waits until there is one that it wants
//	cursor, err := log.Now(ctx)             // or Oldest, or Since
//
// Next is made for many callers: those at the head share one reader, which polls PostgreSQL for
// all of them and keeps the latest entries in memory. One that is behind reads for itself.
// A caller that stops calling costs nothing, so a slow client needs no queue here. Find wakes its
// caller only for a page with something in it, and decodes nothing else: most of many hooks want
// little. Entries are shared: do not change them.
//
// Every entry that they return was on the synchronous standbys before they returned: where there
// are any, the statement that reads entries commits a barrier. Only [Log.Outline] does not, for
// consumers whose work is in the same database.
//
// # After a failover or a restore
//
// A cursor names the cluster and its timeline. If those change, positions that PostgreSQL may
// assign again are read again: Page and Next set an older cursor back to the change, and the
// cursors of the entries that follow are of the new timeline. So a reader may see an entry
// twice, but never miss one. If the events come from a dump of another cluster and are
// numbered ahead of this one, all calls return [ErrRestored] until `receiver feed repair` has
// run.
//
// A cursor whose next entries have been dropped by retention is an error that wraps
// [ErrGone], with the oldest cursor there is: see [GoneError].
//
// # Consumers
//
// A consumer is a name and a cursor in upcall.feed_consumers, and a lease: one receiver works
// for it at a time, and if that one is killed, another takes over within the lease. Add it in
// the transaction that makes whatever it is for:
//
//	err := feed.AddConsumer(ctx, tx, "hook/"+id, cursor)
//
// A worker acquires leases again and again, and reads and commits while it has one:
//
//	leases, err := consumers.Acquire(ctx, names) // those that are free, perhaps none
//	ctx = lease.Context()                        // ends when the lease does
//	page, err := log.Next(ctx, lease.Cursor(), 256)
//	… deliver …
//	err = lease.Commit(ctx, page.Next, func(tx pgx.Tx) error { … rows that belong to it … })
//
// Commit moves the cursor and does the work in one transaction, and fails with [ErrLost] if the
// cursor is not where the lease left it: a former holder that stalled changes nothing. What a
// consumer does outside of PostgreSQL comes before the commit, so it happens at least once. Where
// there was nothing to do, [Lease.Skip] moves the cursor together with those of others.
package feed
