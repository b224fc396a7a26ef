/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_CLASSIFY_FIGURES_INTERNAL_H
#define KAMEN_CLASSIFY_FIGURES_INTERNAL_H

#include "classify/figures.h"

/** The images sorted by class: members of class c are order[first[c]] .. order[first[c + 1] - 1]. */
struct figures_set {
	float *rows; /* (n, dim), normalised */
	const uint32_t *labels;
	uint32_t *order; /* (n) */
	uint32_t *first; /* (n_classes + 1) */
	uint32_t n, dim, n_classes;
};

static inline uint32_t figures_argmax(const double *values, uint32_t n)
{
	uint32_t best = 0;

	for (uint32_t i = 1; i < n; i++)
		if (values[i] > values[best])
			best = i;
	return best;
}

/* figures_episode.c */

/** Accuracies of the episodes of one number of supports: (n_episodes) each. */
struct figures_episodes {
	double *plain;
	double *opta, *guarded; /* NULL: not asked for */
	uint32_t n_balanced;    /* of them that looked it */
	double *queries;        /* (n) as figures_detail.query1 */
};
/** Fills what is allocated. 0 or -ENOMEM */
int figures_episodes_run(struct figures_episodes *episodes, const struct figures_set *set,
	uint32_t shots, const struct figures_options *options);

#endif
