/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_LEARN_OBJECTIVE_H
#define KAMEN_LEARN_OBJECTIVE_H

#include "learn/head.h"
#include "learn/round.h"

/*
 * What a round learns by. A round draws views, embeds them, and moves the scores of the network;
 * what is asked of the embeddings, and with which head, is the objective's. A new one is a kind and
 * a row of objective_kinds[].
 */
struct objective;

/** One step's embeddings. */
struct objective_batch {
	uint32_t step;          /* from 0 */
	const float *f;         /* (n_large + n_small, batch, width) */
	const uint32_t *images; /* (batch): which of the source */
};

struct objective_setup {
	const struct recipe *recipe;
	const struct image_source *source;
	uint32_t width;
};

struct objective_kind {
	const char *name;
	uint32_t n_large;    /* large views of an image, beside the recipe's n_small */
	bool wants_features; /* start() is given features of the frozen network */
	bool wants_labels;   /* of the source; make() finds two classes at least */

	/** @param ret_objective  released by free; base is filled but for the kind */
	int (*make)(struct objective **ret_objective, const struct objective_setup *setup);
	void (*free)(struct objective *objective);
	/** state (n_state), all 0: where everything lies that outlives a step, for the checkpoint. */
	void (*map)(struct objective *objective, float *state);
	/** Before the first step; a round that resumes does without. features (n, width) or NULL. */
	int (*start)(struct objective *objective, const float *features, uint32_t n);
	/** d_f, like f, overwritten. Leaves nothing in the state: the step may still fail. */
	int (*loss)(struct objective *objective, const struct objective_batch *batch, float *d_f,
		double *ret_loss);
	/** The head over prototypes; NULL: there is none. */
	const struct head *(*head)(const struct objective *objective);
	/** Takes the step that the last loss() prepared. */
	void (*update)(struct objective *objective, const struct objective_batch *batch);
};

/** The first member of every objective. */
struct objective {
	const struct objective_kind *kind;
	size_t n_state; /* floats */
	double scale;   /* the loss of who guesses: ln K */
};

extern const struct objective_kind objective_swav, objective_supervised;
/** By enum recipe_objective. */
const struct objective_kind *objective_kind(enum recipe_objective objective);

/** @return 0, -EINVAL: the source has no labels (diag), or what make() said */
int objective_new(
	struct objective **ret_objective, const struct objective_setup *setup, struct diag *diag);
void objective_free(struct objective *objective);
DEFINE_CLEANUP(struct objective *, objective_free)

#endif
