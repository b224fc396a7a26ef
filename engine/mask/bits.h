/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_MASK_BITS_H
#define KAMEN_MASK_BITS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/cleanup.h"
#include "base/digest.h"

/** One maskable tensor. Weights and biases are tensors of their own (algorithms.md 1.2). */
struct mask_tensor {
	const char *name; /* borrowed from the model */
	size_t n;         /* elements */
	size_t offset;    /* of its first element in any flat array of scores or gradients */
	size_t word;      /* of its first bit: every tensor begins on a fresh 64-bit word */
};

/** The canonical list of a model's maskable tensors. Owned by the model, outlives every mask. */
struct mask_layout {
	struct mask_tensor *tensors;
	unsigned n_tensors;
	size_t n_elements; /* sum of n: length of the flat arrays */
	size_t n_words;
};

int mask_layout_new(struct mask_layout **ret_layout, unsigned n_tensors, const char *const *names,
	const size_t *sizes);
void mask_layout_free(struct mask_layout *layout);
DEFINE_CLEANUP(struct mask_layout *, mask_layout_free)

/** One bit per weight: 1 keeps, 0 drops. Immutable once shared. */
struct mask {
	const struct mask_layout *layout;
	uint64_t *words; /* (n_words); bits past a tensor's end are 0 */
	size_t *n_on;    /* (n_tensors) */
};

/** All bits 1: the frozen model. */
int mask_new(struct mask **ret_mask, const struct mask_layout *layout);
void mask_free(struct mask *mask);
DEFINE_CLEANUP(struct mask *, mask_free)

/** M_i = S_i > mu, strict (algorithms.md 1.2). scores (n_elements). Overwrites mask. */
void mask_from_scores(struct mask *mask, const float *scores, float mu);
/** Turns every bit on. */
void mask_fill(struct mask *mask);
/** Both of one layout. */
void mask_copy(struct mask *mask, const struct mask *from);
/** n_on anew, after words were written as a whole. */
void mask_count(struct mask *mask);

static inline bool mask_get(const struct mask *mask, unsigned tensor, size_t i)
{
	return mask->words[mask->layout->tensors[tensor].word + i / 64] >> (i % 64) & 1;
}

/** Clears or sets one bit and keeps n_on right. */
void mask_put(struct mask *mask, unsigned tensor, size_t i, bool on);

/** Share of kept bits over all tensors; of one tensor; of the tensor that lost most. */
double mask_density(const struct mask *mask);
double mask_tensor_density(const struct mask *mask, unsigned tensor);
double mask_lowest_density(const struct mask *mask);
/** alpha = sqrt(max(n_on, 1) / n) of a tensor (algorithms.md 1.2, guard of m = 0 included). */
float mask_alpha(const struct mask *mask, unsigned tensor);
/** Bits in which two masks of one layout differ. */
size_t mask_distance(const struct mask *a, const struct mask *b);
/** Of the bits and the layout's sizes. */
struct digest mask_digest(const struct mask *mask);

/* dst[i] = bit i of words ? src[i] : 0, for one run of n floats. dst may be src. */
typedef void kern_mask_row_fn(float *dst, const float *src, const uint64_t *words, size_t n);
struct kern_mask_impl {
	const char *name;
	const char *cpu; /* of cpu_has(); NULL: the reference */
	kern_mask_row_fn *row;
};
extern const struct kern_mask_impl
	kern_mask_impls[]; /* fastest first, reference last, NULL row ends */
/** Whether this CPU has what the row needs. */
/** The fastest that this CPU has. */
kern_mask_row_fn *kern_mask_row(void);

#endif
