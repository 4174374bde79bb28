// Package export writes recorded events to files: CSV, JSON lines or Parquet, on this machine, to
// standard output, or to OSS.
//
// The columns are the members of an event's JSON, in their order: event_id first, recorded_xid
// not. Everything is in UTC.
//
// # What an export holds
//
// Events are read in the order of their receipt, in short statements and not in one snapshot. An
// export has each event, once, that was committed before its day was begun. An event that is
// committed later, as those that waited in a spool are, may be in it or not. An event is written when
// a synchronous standby, if commits wait for one, has it, too, so that no failover takes it back.
// If retention drops events while they are read, the export ends with [ErrDropped].
//
// # Files
//
// A file gets its name when it is complete and on the disk; until then there is none, or the
// former one. In a directory each day of receipt has one, day=2026-11-26/part-0.parquet, and a
// file _export-parquet.json says which days are complete. With it, a run continues what a run with
// the same [Config] left when it was killed. A run that ended is not continued: the next one
// writes all its days again. Files of days that are not in the span stay.
package export
