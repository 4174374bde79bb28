// Package ossemu is an emulator of Alibaba Cloud OSS for laptops, tests and demos: an
// http.Handler that speaks enough of OSS's dialect for the official SDKs, stores
// objects, and calls back after an upload exactly as OSS does, signature included.
// Nothing in a callback receiver has to know the difference but one trusted key URL.
//
// # What it speaks
//
// Signature version 4 only, in the Authorization header and in the query (presigned
// URLs), in path style (http://host/bucket/key) and in virtual-host style
// (http://bucket.host/key). PutObject, GetObject with ranges, HeadObject, DeleteObject,
// multipart uploads, PostObject with a V4 policy, ACLs, and CORS preflights under one
// rule. Creating, listing, emptying and deleting buckets, so that a test suite can set up
// and clean up. What it does not have it refuses with NotImplemented and never half does.
//
// Every answer is OSS's to the byte where clients look at bytes: the case of header names,
// ETags of multipart uploads, the order of checks. Server-side encryption is taken and
// shown, but no object is encrypted.
//
// Errors carry OSS's codes and messages, and its EC numbers where they are documented.
// Where OSS's own words are not documented the message says plainly what is wrong, and
// the EC element is left out rather than invented.
//
// # Callbacks
//
// After PutObject, PostObject and CompleteMultipartUpload it POSTs to the callback URLs
// in order until one answers as OSS demands, five seconds each, without redirects and
// without retries. Requests are signed with a 512-bit RSA test key, because OSS signs
// with 512 bits too. The private half is public knowledge: never trust the emulator's
// key URL in production.
//
// Certificates of HTTPS receivers are verified (OSS's own practice is undocumented), and
// the server name is sent only when the callback says callbackSNI.
//
// # Notifications
//
// With Config.NotifyURL it stands for a rule of OSS and a topic and subscription of MNS, too:
// when an object is created or removed, it pushes the event, signed as MNS signs and with the
// same test key, and again up to three times until the receiver answers 204. What waits to be
// pushed is lost when the process ends.
//
// # Its own endpoints
//
// Paths under /_ossemu/ need no signature: the public key, the callbacks and notifications
// that were sent with what came back, the faults to inject (see [Faults]), temporary credentials for
// the holder of the access key, and a health check.
//
// Programs (cmd/ossemu, cmd/demo) and tests import it; the receiver and the issuer do not.
package ossemu
