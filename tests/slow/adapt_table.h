/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_TESTS_ADAPT_TABLE_H
#define KAMEN_TESTS_ADAPT_TABLE_H

#include "adapt_rows.h"

#define ADAPT_MAX_SEEDS 16u

enum adapt_arm {
	ADAPT_FROZEN,
	ADAPT_NATIVE,
	ADAPT_ADAPTED,
	ADAPT_ONE, /* a cascade, dispatcher and one expert */
	ADAPT_ALL, /* and all experts */
	ADAPT_N_ARMS
};
extern const char *const adapt_arm_names[ADAPT_N_ARMS];

/** One set at one size: its rows, as indices; those of the frozen model have one seed. */
struct adapt_bout {
	uint32_t rows[ADAPT_N_ARMS][ADAPT_MAX_SEEDS];
	uint32_t n_seeds[ADAPT_N_ARMS];
	bool is_full; /* no option changed the recipe, all three seeds are there */
	bool at_native;
};

/**
 * Prints a bout: every arm's mean and spread, paired intervals, what the gate lets through.
 * @return 1: something served is harmful, or NEU's acceptance is missed; 0: neither; or an errno
 */
int adapt_table_print(const struct adapt_rows *rows, const struct adapt_bout *bout);

#endif
