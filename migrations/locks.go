package migrations

// The advisory locks of Upcall's programs, which all versions share: "upcall" and a number.
const (
	LockMigrations = 0x75706361_6c6c0001
	LockPartitions = 0x75706361_6c6c0002 // to make and detach months of events
	LockRetention  = 0x75706361_6c6c0003 // to drop what has expired
	LockRefusals   = 0x75706361_6c6c0004 // to trim refused callbacks
	LockReconcile  = 0x75706361_6c6c0005 // to begin or take over a run of reconcile
)
