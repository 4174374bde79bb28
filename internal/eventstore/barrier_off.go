//go:build upcall_without_barrier

package eventstore

// Barrier has no effect in a build that shows what is lost without it: see cmd/drill.
const Barrier = "''"
