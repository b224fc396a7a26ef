/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_BASE_ARENA_H
#define KAMEN_BASE_ARENA_H

#include <stddef.h>

#define ARENA_ALIGN 64

/**
 * One allocation that lives as long as its object: sized at load, handed out once, freed whole.
 * Backed by mmap, so that freeing returns the memory to the system. Not thread-safe.
 */
struct arena;

/** Rounds n up to the arena's alignment: what an arena_take() of n bytes uses. */
static inline size_t arena_round(size_t n)
{
	return (n + ARENA_ALIGN - 1) & ~(size_t)(ARENA_ALIGN - 1);
}

/** @return 0, or -ENOMEM. Memory is zero. */
int arena_new(struct arena **ret_arena, size_t bytes);
/** The same on large pages where the kernel has some: for what is wholly used, and here and there. */
int arena_new_huge(struct arena **ret_arena, size_t bytes);
void arena_free(struct arena *arena);

/** 64-byte aligned zeroed memory, or NULL where the arena has no room left. */
void *arena_take(struct arena *arena, size_t bytes);

#include "base/cleanup.h"
DEFINE_CLEANUP(struct arena *, arena_free)

#endif
