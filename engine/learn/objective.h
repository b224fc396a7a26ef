/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_LEARN_OBJECTIVE_H
#define KAMEN_LEARN_OBJECTIVE_H

#include "learn/branch.h"
#include "learn/head.h"
#include "learn/pass.h"
#include "learn/round.h"

/*
 * What a round learns by. A round draws views, passes them through the network, and moves it; what
 * goes through (the branches), what is asked of what comes out, and with which head, is the
 * objective's. A new one is a kind and a row of objective_kinds[].
 *
 * A step, in this order: views; every teacher branch; choose(); every student branch; loss(); the
 * students' way back; then, and only then, does anything change that outlives the step: update(),
 * the network, the teacher.
 */
struct objective;

/**
 * What goes in and out of one branch. Rows are views of images, view by view: n_rows = n_views *
 * batch, row r shows image r % batch. T' tokens enter (the class token first), T' - 1 of the grid's
 * G patches; O is 1, or T' where all_out.
 */
struct objective_rows {
	uint32_t n_rows, n_tokens, n_patches; /* T' and G */
	const float *pixels;                  /* (n_rows, 3, px, px) */
	const float *out;                     /* (n_rows, O, width), after the last norm */
	float *d_out;                         /* like out, student only: loss() overwrites it */
	uint32_t *kept;                       /* BRANCH_KEPT: (n_rows, T' - 1), choose() fills it */
	bool *replaced;                       /* BRANCH_REPLACED: (n_rows, G), choose() fills it */
	/* BRANCH_REPLACED: (width), choose() sets it; the objective's, as it is until update(). */
	const float *replacement;
	/* (n_rows, T', width) of what entered the first block, positions added; for update(), where
	 * the branch wants it. */
	const float *d_entry;
	/* A student that the step does not ask: choose() says so each time; it goes neither way. */
	bool idle;
};

struct objective_batch {
	uint32_t step;          /* from 0 */
	const uint32_t *images; /* (batch): which of the source */
	/* As the objective's branches. The rows of all students of which the class token alone leaves
	 * lie one behind the other in out and in d_out, in the order of their branches. */
	struct objective_rows branches[BRANCHES_MAX];
	float *figures; /* (of the kind): loss() says what there is to say of the step */
};

struct objective_setup {
	const struct recipe *recipe;
	const struct image_source *source;
	struct vit *vit;
};

struct objective_kind {
	const char *name;
	bool wants_features; /* start() is given features of the frozen network */
	bool wants_labels;   /* of the source; make() finds two classes at least */
	/* Names of what loss() writes to figures, at most ROUND_MAX_FIGURES, the last NULL; NULL: none.
	 * A round reports the mean over its last steps, as it does for the loss. */
	const char *const *figures;

	/**
	 * What goes through the network: a function of recipe and shape alone, so that it is known
	 * what a recipe takes of memory.
	 *
	 * @param branches  (BRANCHES_MAX), all 0
	 * @return how many
	 */
	uint32_t (*branches)(const struct recipe *recipe, const struct vit_shape *shape,
		struct branch *branches);
	/** What it takes beside the branches, in bytes, where that is much; NULL: it is little. */
	size_t (*bytes)(const struct recipe *recipe, const struct vit *vit);
	/** @param ret_objective  released by free; n_state and scale of base are filled */
	int (*make)(struct objective **ret_objective, const struct objective_setup *setup);
	void (*free)(struct objective *objective);
	/** state (n_state), all 0: where everything lies that outlives a step, for the checkpoint. */
	void (*map)(struct objective *objective, float *state);
	/** Before the first step; a round that resumes does without. features (n, width) or NULL. */
	int (*start)(struct objective *objective, const float *features, uint32_t n);
	/** Whether a step asks anything of small views: else they are not drawn. NULL: every one does. */
	bool (*wants_small)(const struct objective *objective, uint32_t step);
	/** After the teachers' way, before the students': fills kept and replaced and sets replacement
	 * of the student branches that have them. NULL: none has. */
	int (*choose)(struct objective *objective, struct objective_batch *batch);
	/** Overwrites d_out of every student. Neither this nor choose() leaves anything in the state:
	 * the step may still fail. */
	int (*loss)(
		struct objective *objective, const struct objective_batch *batch, double *ret_loss);
	/** The head over prototypes; NULL: there is none. */
	const struct head *(*head)(const struct objective *objective);
	/** Takes the step that the last loss() prepared. */
	void (*update)(struct objective *objective, const struct objective_batch *batch);
	/** After step `step` (from 0): teacher = decay * teacher + (1 - decay) * student. NULL, or
	 * below 0: the teacher stays. */
	float (*teacher_decay)(const struct objective *objective, uint32_t step);
	/** A .khard (hardness.h) for the network's mask of that digest; NULL: it learns none. */
	int (*hardness)(const struct objective *objective, const struct digest *mask,
		void **ret_data, size_t *ret_n_bytes);
};

/** The first member of every objective. */
struct objective {
	const struct objective_kind *kind;
	size_t n_state; /* floats */
	double scale;   /* the loss of who guesses: ln K; 1: loss() tells a share of it */
	/* Filled by objective_new(). */
	uint32_t n_branches;
	struct branch branches[BRANCHES_MAX];
};

extern const struct objective_kind objective_swav, objective_supervised, objective_micm,
	objective_masksub, objective_hpm;
/** By enum recipe_objective. */
const struct objective_kind *objective_kind(enum recipe_objective objective);

/** Views of a size that a list of branches reads: of an image. */
uint32_t objective_n_views(const struct branch *branches, uint32_t n_branches, bool small);
/** Whether one of them goes through the teacher. */
bool objective_has_teacher(const struct branch *branches, uint32_t n_branches);
/** What a pass of a branch is, but for the pixels. */
struct pass_options objective_pass(const struct recipe *recipe, const struct branch *branch);
uint32_t objective_n_figures(const struct objective_kind *kind);

/** Of the recipe's kind. @return 0, -EINVAL: the source has no labels (diag), or what make() said */
int objective_new(
	struct objective **ret_objective, const struct objective_setup *setup, struct diag *diag);
/** Of a kind that no recipe names: a test's. */
int objective_new_of(struct objective **ret_objective, const struct objective_kind *kind,
	const struct objective_setup *setup, struct diag *diag);
void objective_free(struct objective *objective);
DEFINE_CLEANUP(struct objective *, objective_free)

#endif
