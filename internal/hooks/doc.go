// Package hooks tells applications of uploads over HTTP: it keeps endpoints with their filters,
// and sends each the messages that it asked for.
//
// [Endpoints] is what an operator does with endpoints; the command line, the API and the file
// of hooks all call it, and it checks what they are given. A [Pump] delivers: it leases
// endpoints from the other receivers, and each has a lane of its own, so that one that is down
// costs the others nothing.
//
// A delivery is a CloudEvent that is signed as Standard Webhooks are: see [webhook.Message]. Deliveries
// arrive at least once, and begin in the order of the log. Only one that failed has a row, in
// upcall.hook_retries, until a later attempt succeeds; after the last attempt it stays as a
// dead letter.
package hooks
