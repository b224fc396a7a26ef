/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_LEARN_HEAD_H
#define KAMEN_LEARN_HEAD_H

#include <stddef.h>
#include <stdint.h>

/**
 * The throw-away head of SwAV: y = A f + b, z = y / |y|, o = C z (algorithms.md 1.6). Its values
 * lie in one flat array of the caller's, so do its gradients and velocities.
 */
struct head {
	uint32_t width, dim, n_prototypes;
	float *weight;     /* A (dim, width) */
	float *bias;       /* b (dim) */
	float *prototypes; /* C (n_prototypes, dim) */
};

static inline size_t head_size(uint32_t width, uint32_t dim, uint32_t n_prototypes)
{
	return (size_t)dim * width + dim + (size_t)n_prototypes * dim;
}

/** A head over flat (head_size) values. */
struct head head_map(float *flat, uint32_t width, uint32_t dim, uint32_t n_prototypes);

/** Brings every prototype back to length 1. */
void head_renormalise(const struct head *head);

/** f (n, width) -> z (n, dim), lengths |y| (n). */
void head_project(const struct head *head, const float *f, uint32_t n, float *z, float *lengths);
/** z (n, dim) -> o (n, n_prototypes). */
void head_score(const struct head *head, const float *z, uint32_t n, float *o);

/**
 * The scores' part of the way back.
 *
 * @param d_prototypes  (n_prototypes, dim), added to
 * @param d_z           (n, dim), overwritten
 */
void head_score_backward(float *d_prototypes, float *d_z, const struct head *head, const float *z,
	const float *d_o, uint32_t n);

/**
 * @param grad   overwritten
 * @param d_f    (n, width), overwritten
 * @param f, z, lengths  of the forward pass
 * @param d_o    (n, n_prototypes)
 * @param d_z    (n, dim), scratch
 */
void head_backward(const struct head *grad, float *d_f, const struct head *head, const float *f,
	const float *z, const float *lengths, const float *d_o, uint32_t n, float *d_z);

#endif
