/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_LEARN_ROUND_H
#define KAMEN_LEARN_ROUND_H

#include "learn/recipe.h"

/** Where a round's images come from: n of them in manifest order. */
struct image_source {
	void *owner;
	uint32_t n;
	/** View of image i, valid until the source is closed or the next get. 0 or a negative errno. */
	int (*get)(void *owner, uint32_t i, struct image_view *ret_view);
	struct digest manifest; /* digest of the sorted list of image hashes */
	/* (n) class of each image, n_classes or above: not known. NULL: none is. */
	const uint32_t *labels;
	uint32_t n_classes;
};

/** What an objective says of its steps beside the loss. */
#define ROUND_MAX_FIGURES 8u
struct objective_figure {
	const char *name; /* static */
	float value;      /* the mean of the last steps so far, as the loss's */
};

struct round_progress {
	uint32_t step, steps; /* step: how many are done */
	/* loss over what who guesses pays, the mean of the last steps so far: a tenth of all, 5 at least */
	float loss_ratio;
	double density, lowest_density;
	uint64_t n_flips; /* bits that are off */
	uint32_t n_figures;
	struct objective_figure figures[ROUND_MAX_FIGURES];
};

/**
 * A learning round of Self-Masking Networks (algorithms.md 1) over one manifest: starts at the base
 * with a fresh head of its objective. A pure function of base, recipe, manifest,
 * instruction set and thread count: same bits, also across save and resume. This holds for one
 * build with its libraries: another oneDNN, LAPACK or BLAS rounds differently (the reference LAPACK
 * and OpenBLAS do), and the warm start's principal directions then differ in their last bits. One
 * thread.
 */
struct round;
struct head;

int round_new(struct round **ret_round, struct vit *vit, const struct recipe *recipe,
	const struct prep *prep, const struct image_source *source, struct diag *diag);
void round_free(struct round *round);
DEFINE_CLEANUP(struct round *, round_free)

/** One optimiser step. @return 1: more to do, 0: the last step is done, or a negative errno: the
 * step is not done, and the next call does it as if it had not been tried */
int round_step(struct round *round, struct round_progress *ret_progress);

/** Checkpoint with checksum, written atomically; refused by resume when base, recipe, manifest, ISA
 * or thread count are others (-ESTALE), or damaged (-EBADMSG): the round then starts anew. */
int round_save(const struct round *round, int dir_fd, const char *path);
int round_resume(struct round *round, int dir_fd, const char *path, struct diag *diag);

/** The present mask; the round keeps it. */
const struct mask *round_mask(const struct round *round);
/** The present head over prototypes, NULL: the objective has none; the round keeps it. */
const struct head *round_head(const struct round *round);
/** The present weights (n_values of the model) where those are driven, else NULL; the round keeps
 * them. teacher: their moving average, where the objective has one. */
const float *round_weights(const struct round *round, bool teacher);
/** The present scores (n_elements of the layout), behind round_mask(), NULL where weights are driven;
 * the round keeps them. */
const float *round_scores(const struct round *round);
/** What is said by now of patches' hardness, as a .khard (hardness.h) for the mask of that digest: the
 * present one, or one the round has had. malloc'ed. -ENODATA: the objective does not learn that */
int round_hardness(
	const struct round *round, const struct digest *mask, void **ret_data, size_t *ret_n_bytes);
/** Starts at the scores of another round of this model instead of the recipe's own, and the head at
 * what they make of it: an expert of a cascade. Before the first step and before a resume. */
void round_start_at(struct round *round, const float *scores);

#endif
