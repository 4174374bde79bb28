// Package eventstore keeps upload events in PostgreSQL: the group-commit [Recorder] that
// writes them, the partitions that they are written to, and the queries.
//
// The schema is in package migrations. [Open] makes a pool with the settings that the
// promises here rest on; a pool made otherwise must see to synchronous_commit itself.
package eventstore
