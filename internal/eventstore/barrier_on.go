//go:build !upcall_without_barrier

package eventstore

// Barrier is an expression that is never null, with the effect of the barrier.
const Barrier = "pg_logical_emit_message(true, 'upcall', '')"
