/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_LEARN_PASS_H
#define KAMEN_LEARN_PASS_H

#include "learn/branch.h"
#include "model/vit.h"

/**
 * Views of one size through the network and back. Where the activations of all would take too
 * much memory, only n_at_once views' are held: all are embedded part by part, and on the way back
 * every part goes forward once more. The loss sees all of them either way; gradients are the same
 * but for the order of their sums (1e-6).
 */
struct pass;

struct pass_options {
	uint32_t px;
	uint32_t first_block; /* what lies below gets no gradient, where nobody wants its entry */
	enum precision precision; /* the slot's too */
	struct branch branch;     /* of which the views do not matter here */
	const float *pixels;      /* (n, 3, px, px), borrowed and read at every forward */
};

/** n views; n_at_once 0, or n and above: all at once. */
int pass_new(struct pass **ret_pass, struct vit *vit, uint32_t n, uint32_t n_at_once,
	const struct pass_options *options);
/** What its activations take, in bytes; 0: there is none of this kind. */
size_t pass_bytes(
	const struct vit *vit, uint32_t n, uint32_t n_at_once, const struct pass_options *options);
void pass_free(struct pass *pass);
DEFINE_CLEANUP(struct pass *, pass_free)

/** (n, T' - 1) of BRANCH_KEPT, else NULL: which patches enter, the caller's to fill. */
uint32_t *pass_kept(struct pass *pass);
/** (n, grid^2) of BRANCH_REPLACED, else NULL: the caller's to fill. */
bool *pass_replaced(struct pass *pass);
/** Of BRANCH_REPLACED: (width), borrowed. */
void pass_replace_by(struct pass *pass, const float *vector);
/** Of a branch that drops: who draws, of which rate and path are the branch's and `first` is
 * nothing. Before every forward of another step. */
void pass_draw_by(struct pass *pass, const struct vit_drop *drop);

/** out (n, width), or (n, T', width) where all leave */
int pass_forward(struct pass *pass, const struct slot *slot, float *out);
/**
 * After pass_forward() with the same slot, and all that it read as it was.
 *
 * @param d_out    like out
 * @param grad     (n_elements), added to
 * @param d_entry  (n, T', width), overwritten; NULL: not wanted
 */
int pass_backward(struct pass *pass, const struct slot *slot, const float *d_out, float *grad,
	float *d_entry);

#endif
