package migrations

// theLog is the index that orders the log. Migration 8 makes what is on the table itself.
var theLog = partitionedIndex{name: "upload_events_log", suffix: "_log",
	columns: "(recorded_xid, id) WITH (deduplicate_items = off) WHERE recorded_xid IS NOT NULL"}
