// Package eventstore keeps upload events and issued uploads in PostgreSQL: the [Recorder]
// and the [Ledger], which write them by one and the same group commit, the partitions
// that events are written to, the keys of the issuer's API, and the queries.
//
// An event belongs to the issued upload whose id its token carries. Neither needs the
// other: a callback may come before the ledger's row is visible, and of uploads that the
// ledger does not hold.
//
// The schema is in package migrations. [Open], [OpenReader] and [OpenRecorder] make pools
// with the settings that the promises here rest on; a pool made otherwise must see to
// synchronous_commit itself.
package eventstore
