/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdint.h>
#include <sys/mman.h>

#include "base/arena.h"

struct arena {
	char *base;
	size_t size;
	size_t used;
};

int arena_new(struct arena **ret_arena, size_t bytes)
{
	_cleanup_(freep) struct arena *arena = calloc(1, sizeof(*arena));

	if (!arena || bytes > SIZE_MAX - ARENA_ALIGN)
		return -ENOMEM;

	arena->size = arena_round(bytes ? bytes : 1);
	arena->base =
		mmap(NULL, arena->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (arena->base == MAP_FAILED)
		return -ENOMEM;

	*ret_arena = TAKE_PTR(arena);
	return 0;
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
