/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_BENCH_LEARN_SUBJECT_H
#define KAMEN_BENCH_LEARN_SUBJECT_H

#include "learn/round.h"

struct learn_subject_options {
	const char *file, *random; /* one of them */
	enum precision precision;
	uint32_t batch;   /* 0: the recipe's */
	uint32_t px;      /* the site's input, 0: the model's own */
	uint32_t n_steps; /* that the round is made for */
};

/** A learning round as the learner runs one, over images that are made for it. */
struct learn_subject {
	struct base *base;
	struct vit *vit;
	struct image **images;
	struct recipe recipe;
	struct round *round;
};

/**
 * The default recipe of a site with many images. The scores are those of the late part of a round:
 * one in 500 lies near where its bit flips, so that every step moves bits, as steps there do.
 *
 * @param s  zeroed; to be given to learn_subject_done() in any case
 * @return 0, -EOPNOTSUPP: this CPU has no such precision (diag), ...
 */
int learn_subject_init(
	struct learn_subject *s, const struct learn_subject_options *options, struct diag *diag);
void learn_subject_done(struct learn_subject *s);

#endif
