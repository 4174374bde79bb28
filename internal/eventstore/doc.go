// Package eventstore keeps upload events and issued uploads in PostgreSQL: the [Recorder] and
// the [Ledger], which share a group commit, the partitions of events, the keys of the
// issuer's API, and the queries.
//
// An event belongs to the issued upload whose id is in its token. Neither needs the other: a
// callback may come before the ledger's row is visible, and for uploads that are not in the
// ledger.
//
// The schema is in package migrations. Use pools of [Open], [OpenReader], [OpenRecorder] and [OpenFeed]:
// the promises here depend on their settings, above all on synchronous_commit.
package eventstore
