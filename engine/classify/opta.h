/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_CLASSIFY_OPTA_H
#define KAMEN_CLASSIFY_OPTA_H

#include <stdbool.h>

#include "classify/prototype.h"

/**
 * OpTA (algorithms.md 4.5): a batch of images is told apart at once. Optimal transport assigns the same
 * number of them to every class and moves each prototype to the mean of what it was assigned, some
 * times over; then the nearest one counts as ever. That the classes are equally frequent in the batch
 * is an assumption: where one class is ten times as frequent as others the answers are far worse
 * than plain prototypes'. opta_classify() therefore looks before.
 */

/** Room to work in; nothing is allocated afterwards. */
struct opta;
/** @return 0, -EINVAL: a size is 0, or all of them are too much, -ENOMEM */
int opta_new(struct opta **ret_opta, uint32_t max_classes, uint32_t max_queries, uint32_t dim);
void opta_free(struct opta *opta);
DEFINE_CLEANUP(struct opta *, opta_free)

/** Passes by supports of a class: the fewer, the farther off prototypes are to begin with. */
static inline uint32_t opta_passes(uint32_t n_shots)
{
	return n_shots > 1 ? 2 : 5;
}

/**
 * Without a look at whether it is allowed. In double and one after the other: the same bits for the
 * same input.
 *
 * @param means    (n_classes, dim) of supports
 * @param queries  (n, dim), of length 1
 * @param moved    (n_classes, dim)
 */
void opta_move(struct opta *opta, const float *means, uint32_t n_classes, const float *queries,
	uint32_t n, uint32_t n_passes, float *moved);

/**
 * The same batch without any assumption about shares: a mixture of one direction a class, seen from
 * the middle of the classes, each held where its supports are as if these were six times as many.
 *
 * @param n_supports  (n_classes)
 * @param answers     (n), or NULL; cosines as seen from the middle
 * @return how far the shares that it finds are from equal ones, in nats
 */
double opta_mixture(struct opta *opta, const float *means, const uint32_t *n_supports,
	uint32_t n_classes, const float *queries, uint32_t n, struct prototype_answer *answers);

struct opta_report {
	bool is_balanced; /* false: the answers are the mixture's */
	/* What the mixture finds, and what a batch of equal shares seldom exceeds: the fewer supports,
	 * the less is known of where classes are. */
	double imbalance, most_imbalance;
};
/**
 * OpTA where the batch looks balanced, else the mixture. With fewer than two classes: plain
 * prototypes.
 *
 * @param features  (n, dim), of any length; n and the classes at most what there is room for
 * @param answers   (n); cosines to the moved prototypes
 */
void opta_classify(struct opta *opta, const struct prototypes *prototypes, const float *features,
	uint32_t n, struct prototype_answer *answers, struct opta_report *ret_report);

#endif
