/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_PROTO_SHM_RING_H
#define KAMEN_PROTO_SHM_RING_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/*
 * Single producer, single consumer, one cache line a cursor; the only place that spells memory
 * order. The side's own cursor is private; only a copy of it is published. Entries are copied in
 * and out, so that what is checked is what is used.
 */
struct shm_ring {
	uint8_t *entries;
	size_t entry_bytes;
	uint32_t n;      /* power of two */
	uint32_t cursor; /* private: entries produced (producer) or consumed (consumer) */
};

/**
 * Producer: room for one more? peer_tail is what the consumer published; a lie outside of
 * [cursor - n, cursor] reads as full.
 */
static inline bool shm_ring_has_room(const struct shm_ring *ring, const _Atomic uint32_t *peer_tail)
{
	/* Acquire: the consumer has finished with the entry before we write over it. */
	uint32_t used = ring->cursor - atomic_load_explicit(peer_tail, memory_order_acquire);

	return used < ring->n;
}

static inline void shm_ring_put(struct shm_ring *ring, const void *entry)
{
	memcpy(ring->entries + (size_t)(ring->cursor & (ring->n - 1)) * ring->entry_bytes, entry,
		ring->entry_bytes);
	ring->cursor++;
}

/** Release: everything written before, entries and slots, is seen by who reads the cursor. */
static inline void shm_ring_publish(const struct shm_ring *ring, _Atomic uint32_t *shared)
{
	atomic_store_explicit(shared, ring->cursor, memory_order_release);
}

/**
 * The same, of who may have to wake its consumer. False: the consumer says that it looks.
 * Sequentially consistent, as is what a consumer does before it sleeps (shm_awake_end(), then
 * shm_ring_ready()): either it sees the cursor, or we see that it no longer looks.
 */
static inline bool shm_ring_announce(const struct shm_ring *ring, _Atomic uint32_t *shared,
	const _Atomic uint32_t *consumer_awake)
{
	atomic_store_explicit(shared, ring->cursor, memory_order_seq_cst);
	return atomic_load_explicit(consumer_awake, memory_order_seq_cst) == 0;
}

/** Consumer: from now on it looks, until shm_awake_end(). Seen late, it costs a bell. */
static inline void shm_awake_begin(_Atomic uint32_t *awake)
{
	atomic_store_explicit(awake, 1, memory_order_relaxed);
}

/** Consumer: it will look once more, and then wants to be rung for. */
static inline void shm_awake_end(_Atomic uint32_t *awake)
{
	atomic_store_explicit(awake, 0, memory_order_seq_cst);
}

/**
 * Consumer: entries ready to be read, at most n; -1 where the producer's cursor is a lie.
 */
static inline int64_t shm_ring_ready(const struct shm_ring *ring, const _Atomic uint32_t *peer_head)
{
	/* Acquire, and in one order with shm_awake_end(). */
	uint32_t ready = atomic_load_explicit(peer_head, memory_order_seq_cst) - ring->cursor;

	return ready > ring->n ? -1 : (int64_t)ready;
}

static inline void shm_ring_get(struct shm_ring *ring, void *ret_entry)
{
	memcpy(ret_entry,
		ring->entries + (size_t)(ring->cursor & (ring->n - 1)) * ring->entry_bytes,
		ring->entry_bytes);
	ring->cursor++;
}

#endif
