/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_LEARN_PLOT_H
#define KAMEN_LEARN_PLOT_H

#include "base/arena.h"

/** Where an array of an arena goes and how many floats it has. */
struct plot {
	float **at;
	size_t n;
};

size_t plot_bytes(const struct plot *plots, size_t n_plots);
/** One arena for all of them, all 0. */
int plot_lay_out(struct arena **ret_arena, const struct plot *plots, size_t n_plots);

#endif
