/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_MASK_SCORES_H
#define KAMEN_MASK_SCORES_H

#include "mask/bits.h"

/**
 * The other rule (algorithms.md 1.2, topk): per tensor the lowest scores are dropped, of equal ones
 * the first: of n as many as (1 - keep) * n has whole ones in double, as its authors count. That is
 * one fewer than .1 * 10 where 1 - .9 is a little below .1. Overwrites mask.
 *
 * @param may_drop  the bits among which it chooses, the others stay on; NULL: all
 */
void scores_keep_top(
	struct mask *mask, const float *scores, float keep, const struct mask *may_drop);

/** Makes 0 what belongs to a bit that is off: values (n_elements). */
void scores_confine(float *values, const struct mask *mask);

/**
 * Straight-through gradient of the scores (algorithms.md 1.3), per tensor with density m:
 *
 *   dS_j = G_j W_j m^(-1/2) - 1/(2N) m^(-3/2) sum_i G_i W_i M_i
 *
 * The main term is there for dropped weights too: that is how one comes back.
 *
 * @param dscores     (n_elements), overwritten; may be grad
 * @param grad        (n_elements) G = dL/dW' of every maskable tensor
 * @param weights     (n_tensors) pointers to the frozen values, each (n)
 * @param alpha_term  false leaves the second term out (for comparison)
 */
void scores_backward(float *dscores, const float *grad, const float *const *weights,
	const struct mask *mask, bool alpha_term);

/** What of a tensor's gradient is the same for all its scores: dS_j = G_j W_j inverse - shared. */
struct scores_term {
	float inverse, shared;
};
/** grad (n) of tensor t, weight (n) likewise. */
struct scores_term scores_term(const float *grad, const float *weight, const struct mask *mask,
	unsigned t, bool alpha_term);

/** sum_i G_i W_i M_i */
typedef double kern_scores_kept_fn(
	const float *grad, const float *weight, const uint64_t *words, size_t n);
/** dscores may be grad. */
typedef void kern_scores_grad_fn(float *dscores, const float *grad, const float *weight, size_t n,
	float inverse, float shared);
/** Bit i is scores[i] > threshold, bits past n are 0. @return how many are on */
typedef size_t kern_scores_bits_fn(uint64_t *words, const float *scores, size_t n, float threshold);
struct kern_scores_impl {
	const char *name;
	const char *cpu; /* of cpu_has(); NULL: the reference */
	kern_scores_kept_fn *kept;
	kern_scores_grad_fn *grad;
	kern_scores_bits_fn *bits;
};
/** Fastest first; name NULL ends it. */
extern const struct kern_scores_impl kern_scores_impls[];
/** The fastest that this CPU has. */
const struct kern_scores_impl *kern_scores(void);

kern_scores_kept_fn kern_scores_kept_c, kern_scores_kept_avx2, kern_scores_kept_avx512;
kern_scores_grad_fn kern_scores_grad_c, kern_scores_grad_avx2, kern_scores_grad_avx512;
kern_scores_bits_fn kern_scores_bits_c, kern_scores_bits_avx2, kern_scores_bits_avx512;

#endif
