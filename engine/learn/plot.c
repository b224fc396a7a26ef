/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "learn/plot.h"

size_t plot_bytes(const struct plot *plots, size_t n_plots)
{
	size_t n = 0;

	for (size_t i = 0; i < n_plots; i++)
		n += plots[i].n;
	return n * sizeof(float);
}

int plot_lay_out(struct arena **ret_arena, const struct plot *plots, size_t n_plots)
{
	_cleanup_(arena_freep) struct arena *arena = NULL;
	size_t bytes = 0;
	int r;

	for (size_t i = 0; i < n_plots; i++)
		bytes += arena_round(plots[i].n * sizeof(float));
	r = arena_new(&arena, bytes);
	if (r < 0)
		return r;
	for (size_t i = 0; i < n_plots; i++) {
		*plots[i].at = arena_take(arena, plots[i].n * sizeof(float));
		if (!*plots[i].at)
			return -ENOMEM;
	}
	*ret_arena = TAKE_PTR(arena);
	return 0;
}
