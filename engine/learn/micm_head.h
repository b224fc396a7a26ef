/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_LEARN_MICM_HEAD_H
#define KAMEN_LEARN_MICM_HEAD_H

#include "model/vit.h"

/**
 * The projection head of MICM (algorithms.md 4.2), for class tokens and patches alike, of student
 * and teacher: two hidden layers with GELU, a third to `dim`, z = its direction, and a last layer
 * without bias whose rows have a direction and a gain of their own: o = gain * (V / |V|) z.
 */
struct micm_head;

struct micm_head_shape {
	uint32_t width, hidden, dim, n_outputs;
};

/** Its values; so lie their gradients and moments. */
struct micm_head_values {
	float *w1, *b1; /* (hidden, width), (hidden) */
	float *w2, *b2; /* (hidden, hidden), (hidden) */
	float *w3, *b3; /* (dim, hidden), (dim) */
	float *v;       /* (n_outputs, dim) */
	float *gain;    /* (n_outputs) */
};

size_t micm_head_size(const struct micm_head_shape *shape);
struct micm_head_values micm_head_map(const struct micm_head_shape *shape, float *flat);
/** As its authors begin: weights N(0, .02) cut at two deviations, biases 0, gains 1, and V as a
 * linear layer usually begins. */
void micm_head_draw(const struct micm_head_shape *shape, float *flat, uint64_t seed);

/** For up to max_rows rows at a time, on the model's oneDNN, which must outlive it. @return 0, -ENOMEM, -EIO */
int micm_head_new(struct micm_head **ret_head, struct vit *vit, const struct micm_head_shape *shape,
	uint32_t max_rows);
/** What it holds for them, but for oneDNN's own. */
size_t micm_head_bytes(const struct micm_head_shape *shape, uint32_t max_rows);
void micm_head_free(struct micm_head *head);
DEFINE_CLEANUP(struct micm_head *, micm_head_free)

/** Where the caller puts what goes in: (max_rows, width). */
float *micm_head_input(struct micm_head *head);
/** What came out: (max_rows, n_outputs), until the next forward. */
const float *micm_head_outputs(const struct micm_head *head);
/** Where the caller puts the gradient of that before micm_head_backward(): like it. */
float *micm_head_d_outputs(struct micm_head *head);
/** Then the gradient of what went in: (max_rows, width). */
const float *micm_head_d_input(const struct micm_head *head);

/** The first n rows; the input behind them is used up. */
int micm_head_forward(struct micm_head *head, const float *flat, uint32_t n);
/** After micm_head_forward() of the same. grad, like flat, is overwritten. */
int micm_head_backward(struct micm_head *head, const float *flat, uint32_t n, float *grad);

#endif
