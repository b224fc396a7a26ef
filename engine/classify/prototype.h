/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_CLASSIFY_PROTOTYPE_H
#define KAMEN_CLASSIFY_PROTOTYPE_H

#include <stdint.h>

#include "base/cleanup.h"

/** What a class's supports, each left out of its own mean, say of it. */
struct prototype_worth {
	uint32_t n_judged; /* 0: it has one, or is the only class */
	uint32_t n_right;  /* of them, that are nearest to it */
	float confidence;  /* in it, their mean; NAN: none is judged */
};

/**
 * Classes by a handful of examples each, their supports (algorithms.md 4.5): a class is the mean of
 * its supports' features, each of length 1, an image belongs to the class of the largest cosine.
 * Immutable; the supports are not needed afterwards.
 */
struct prototypes {
	uint32_t n_classes, dim;
	float *rows;          /* (n_classes, dim), length 1 */
	float *means;         /* (n_classes, dim) before: what opta_move() takes */
	uint32_t *n_supports; /* (n_classes) */
	float *spreads; /* (n_classes) how far supports are from their class, 1: as usual, as in one of a
			   single support, or made of means */
	float temperature;             /* of the confidences */
	struct prototype_worth *worth; /* (n_classes); NULL: made of means */
};

/** Temperature where there are too few supports to find one. */
#define PROTOTYPE_TEMPERATURE .05F

/**
 * Where two classes or more have two supports or more the temperature is the one by which these say
 * best, each left out of its own mean, what they are, beside one more of which nobody knows that.
 *
 * @param features  (n, dim), of any length
 * @param labels    (n), 0..n_classes-1
 * @return 0, -EINVAL: no classes, one without a support or a label beyond them, -ENOMEM
 */
int prototypes_new(struct prototypes **ret_prototypes, const float *features,
	const uint32_t *labels, uint32_t n, uint32_t dim, uint32_t n_classes);
/** The same from the means, the counts and the temperature that others have.
 * @return 0, -EINVAL: no classes, or one without a support, -ENOMEM */
int prototypes_of_means(struct prototypes **ret_prototypes, const float *means,
	const uint32_t *n_supports, uint32_t n_classes, uint32_t dim, float temperature);
void prototypes_free(struct prototypes *prototypes);
DEFINE_CLEANUP(struct prototypes *, prototypes_free)

struct prototype_answer {
	uint32_t class;
	float cosine;     /* to it */
	float distance;   /* to it, 1 - cosine over its spread; OpTA says none */
	float confidence; /* its share of softmax(cosines / temperature), (0, 1] */
};
/**
 * Allocates nothing.
 *
 * @param feature      (dim), of any length; one without a direction has cosines of 0
 * @param confidences  (n_classes), or NULL
 */
struct prototype_answer prototypes_classify(
	const struct prototypes *prototypes, const float *feature, float *confidences);

/** How far features (n, dim) of one class are from its mean without themselves, 1 - cosine over the
 * class's spread, to distances of those whose class has two or more.
 * @return how many these are, or -ENOMEM */
int prototypes_leave_one_out(const struct prototypes *prototypes, const float *features,
	const uint32_t *labels, uint32_t n, float *distances);

#endif
