// Package reconcile compares what a bucket holds with what the log tells of it, records the uploads
// that the log does not know, and notes which objects are gone.
//
// A run is a row of upcall.reconcile_runs. It first lists the bucket, or reads an inventory, into
// upcall.reconcile_objects, and then goes through both sides in the order of keys: known objects are
// found in the roll-up of current objects by its primary key, and only what is left is looked for
// among issued uploads, asked of OSS by HEAD, and recorded. Each step reads first and then commits
// what it found, with how far it has come, in a transaction of its own. So a run that is killed goes
// on where it was, no transaction is long, and the memory that it takes does not grow with the bucket.
package reconcile
