// Package rollup keeps hourly counts of uploads, and the objects that they went to. It is a consumer
// of the log.
//
// # What is kept
//
// rollup_hourly counts uploads and bytes by hour of receipt, bucket, content type and source, and
// how many of the uploads were the first to their object. rollup_objects has each object with its
// first and its latest upload, and rollup_versions those in between. All of it follows from the
// events alone, whatever their order in the log: an event that waited in a spool for hours counts
// in its own hour, and if it turns out to be the first of its object, the one that was taken for
// the first becomes an overwrite, in its hour.
//
// Uploads of one object are in the order of (received_at, id). If sources of different rank tell of
// the same request to the same object, the upload counts once: a callback is preferred to a
// notification, and that to a listing. The loser is taken out of its hour, and noted in
// rollup_superseded for the views that read events.
//
// Counts and objects are one consumer, named rollup, because both change in the same transaction as
// its cursor: which upload was the first is known from the object, and counted by the hour.
//
// # Days
//
// rollup_funnel has what became of the uploads that were issued on a day, computed once the day is
// over by the same function that the view upload_funnel calls for other days. It is computed in one
// snapshot, beside the counting, and stored if the day's version is still the same. A batch with
// events of uploads of that day raises the version and takes the day back, so that the view computes
// it until it is stored again; so does a revocation, which no event tells of, when it is noticed. An
// upload that is overwritten may be of any day, so that is counted apart, in rollup_overwritten: the
// sum of what was stored and what was counted since is exact.
//
// # How it stays exact
//
// A batch commits with the cursor, so a receiver that is killed, or that has lost its lease, leaves
// nothing behind. After a failover the log is read again from an earlier place; the last event that
// is counted is kept beside the counts, and nothing up to it is counted twice.
//
// [Rebuild] asks for another generation, which [Worker] builds beside the current one from the
// oldest event on. What retention has dropped is copied first, because it cannot be counted
// again. When the new generation has reached the end of the log, it takes the place of the other in
// one transaction.
//
// An event without a bucket or a key is only counted. So is one whose key is too long for an index;
// it is also a dead letter.
package rollup
