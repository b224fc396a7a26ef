/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_LEARN_PASS_H
#define KAMEN_LEARN_PASS_H

#include "model/vit.h"

/**
 * The views of one size through the network and back. Where the activations of all would take too
 * much memory, only n_at_once views' are held: all are embedded part by part, and on the way back
 * every part goes forward once more. The loss sees all of them either way; gradients are the same
 * but for the order of their sums (1e-6).
 */
struct pass;

struct pass_options {
	uint32_t px;
	uint32_t first_block;     /* what lies below gets no gradient */
	enum precision precision; /* the slot's too */
};

/** n views; n_at_once 0, or n and above: all at once. */
int pass_new(struct pass **ret_pass, struct vit *vit, uint32_t n, uint32_t n_at_once,
	const struct pass_options *options);
void pass_free(struct pass *pass);
DEFINE_CLEANUP(struct pass *, pass_free)

/** Where the views go: (n, 3, px, px). Kept until after pass_backward(). */
float *pass_input(struct pass *pass);
/** embeddings (n, width) */
int pass_forward(struct pass *pass, const struct slot *slot, float *embeddings);
/** After pass_forward() with the same slot. d_embeddings (n, width); adds to grad (n_elements). */
int pass_backward(
	struct pass *pass, const struct slot *slot, const float *d_embeddings, float *grad);

#endif
