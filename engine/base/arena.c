/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/mman.h>

#include "base/arena.h"

/* Where it may, the kernel backs an aligned run of this with one entry of the TLB. */
#define HUGE_PAGE ((size_t)2 << 20)
#define PAGE ((size_t)4096)

struct arena {
	char *base;
	size_t size;
	size_t used;
};

static char *map(size_t size)
{
	return mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

/* Aligned, for what is not is not made huge: maps more, and gives back what lies around. */
static char *map_huge(size_t size)
{
	char *p = map(size + HUGE_PAGE);
	size_t before;

	if (p == MAP_FAILED)
		return p;
	before = -(uintptr_t)p & (HUGE_PAGE - 1);
	if (before > 0)
		(void)munmap(p, before);
	p += before;
	/* From the first page that is all beyond. */
	size = (size + PAGE - 1) & ~(PAGE - 1);
	if (before < HUGE_PAGE)
		(void)munmap(p + size, HUGE_PAGE - before);
	/* Ordinary pages do as well. */
	(void)madvise(p, size, MADV_HUGEPAGE);
	return p;
}

static int make(struct arena **ret_arena, size_t bytes, bool huge)
{
	_cleanup_(freep) struct arena *arena = calloc(1, sizeof(*arena));

	if (!arena || bytes > SIZE_MAX - 2 * HUGE_PAGE)
		return -ENOMEM;

	arena->size = arena_round(bytes ? bytes : 1);
	arena->base = huge && arena->size >= HUGE_PAGE ? map_huge(arena->size) : map(arena->size);
	if (arena->base == MAP_FAILED)
		return -ENOMEM;

	*ret_arena = TAKE_PTR(arena);
	return 0;
}

int arena_new(struct arena **ret_arena, size_t bytes)
{
	return make(ret_arena, bytes, false);
}

int arena_new_huge(struct arena **ret_arena, size_t bytes)
{
	return make(ret_arena, bytes, true);
}

void arena_free(struct arena *arena)
{
	if (!arena)
		return;
	(void)munmap(arena->base, arena->size);
	free(arena);
}

void *arena_take(struct arena *arena, size_t bytes)
{
	void *p = arena->base + arena->used;

	if (bytes > arena->size - arena->used || arena_round(bytes) > arena->size - arena->used)
		return NULL;
	arena->used += arena_round(bytes);
	return p;
}
