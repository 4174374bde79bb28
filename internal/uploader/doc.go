// Package uploader sends files to OSS by presigned requests, as a client
// without credentials does: a single PUT, or a multipart upload in parallel that resumes where
// it was broken off.
//
// It checks CRC-64 from the file to OSS's answer, retries what may be retried, and
// never takes a 203 CallbackFailed for success. A manifest tells it where to send; that
// comes from elsewhere, and nothing is sent before all of it has been checked.
//
// `issuer upload` imports it. It makes no manifests and reads no configuration.
package uploader
