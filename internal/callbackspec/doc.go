// Package callbackspec is the contract of an OSS upload callback for both of its sides:
// the two JSON documents that an upload carries, the template of the callback's body, and
// the typed Callback that such a body parses into.
//
// The issuing side builds a [Parameter] (the x-oss-callback header) and [Vars] (the
// x-oss-callback-var header) and encodes them. Encoding first checks every rule that
// OSS checks, so that a mistake is found where it was made and not in a browser.
// An emulator decodes both and fills the template in with [Expand]. The receiving
// side turns any body that OSS sends, from any template, into a [Callback] with
// [Parse], but only after package verify has accepted it.
//
// Facts are from Alibaba Cloud's "Callback" reference (2025-09-19), its 2021 edition,
// the "0007" error-code pages, and genuinely signed callbacks.
package callbackspec
