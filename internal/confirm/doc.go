// Package confirm asks OSS whether objects are what their callbacks said: a consumer of the log.
//
// A callback is OSS's word for what it stored then. What can be wrong all the same: a field that the
// uploader filled in, because the callback's body is not the default template; an object that was changed
// or deleted since without a callback. Each event has one outcome, which is written once, in
// upcall.confirmations. Those that are disputed or gone are findings, which the log has, too.
//
// An object that differs may be that of a later upload. If the log knows one, the event is overwritten, and
// that is all. If it knows none, the callback of a later upload may be on its way, so the object is looked
// at again after a grace before the event is disputed.
//
// What OSS cannot answer is never a finding. The event waits, is asked for again, and is a dead letter in the
// end; if OSS throttles requests, all wait.
package confirm
