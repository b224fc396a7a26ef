/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_LEARN_RECIPE_H
#define KAMEN_LEARN_RECIPE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/diag.h"
#include "base/digest.h"
#include "cascade/mask_set.h"
#include "image/prep.h"
#include "model/vit.h"

/** What the round learns by (objective.h). */
enum recipe_objective {
	RECIPE_SWAV,
	RECIPE_SUPERVISED,
	RECIPE_MICM,
	RECIPE_MASKSUB,
	RECIPE_HPM,
};
/** What of the network moves: a score a maskable weight, or every weight of a model that is learnt. */
enum recipe_drive { RECIPE_SCORES, RECIPE_WEIGHTS };
enum recipe_optimiser { RECIPE_ADAM, RECIPE_SGD };
/** How scores become bits (algorithms.md 1.2): above the threshold, or the highest of a tensor. */
enum recipe_mask { RECIPE_THRESHOLD, RECIPE_TOPK };

/** What masksub learns by: the thing itself, or what it is compared with. */
enum recipe_masksub {
	RECIPE_MASKSUB_SUB,    /* a second, masked pass that is asked for the first one's answer */
	RECIPE_MASKSUB_MASKED, /* one pass, masked, that is asked for the class */
	RECIPE_MASKSUB_TWICE,  /* two views, neither masked, both asked for the class */
};

/* Bits of `layers`: the tensors of a block in the layout's order. */
#define RECIPE_ALL_LAYERS 0xffu

/** What hidden patches are to be: as they are, each brought to mean 0 and variance 1, or what the
 * teacher makes of them. */
enum recipe_hpm_target { RECIPE_HPM_PIXELS, RECIPE_HPM_NORMALISED, RECIPE_HPM_FEATURES };
/** What is said of their losses: which of two is larger, or how large they are. */
enum recipe_hpm_ranks { RECIPE_HPM_RELATIVE, RECIPE_HPM_ABSOLUTE };
/** What the predictor of losses learns from: the kept patches, as its authors have it, or the whole
 * image, about which it is asked later. */
enum recipe_hpm_asked { RECIPE_HPM_KEPT, RECIPE_HPM_WHOLE };

/** Everything that a round depends on beside base and manifest. A field is a row of recipe_fields[]
 * (recipe_field.c) too: its range, its text and the digest go by that. */
struct recipe {
	uint64_t seed;
	enum recipe_objective objective;
	uint32_t steps;
	uint32_t batch;           /* images a step */
	enum precision precision; /* what the network's products read */
	uint32_t at_once; /* images whose activations are held at a time (pass.h); 0: the batch */
	uint32_t n_prototypes; /* K */
	uint32_t head_dim;     /* E, 128 or fewer (at most width, fewer than images) */
	uint32_t large_px, small_px;
	uint32_t n_small; /* small crops an image, beside the 2 large ones */
	uint32_t queue;   /* past embeddings a view, 0: none; used from 1/5 of the steps */
	enum recipe_optimiser optimiser;
	enum recipe_mask mask;
	/* Of topk: the share that is kept. Its scores start as its authors have them, not at
	 * score_init, and half of the model is gone before the first step: for comparison only. */
	float keep;
	float score_init;      /* 1; every score starts here */
	float score_threshold; /* 0; a score above it keeps its weight */
	/* Normal spread of the start around score_init, as a share of its way to the threshold. */
	float score_spread;
	float score_lr; /* cosine to 0; steps * score_lr / 2 is how far a score can travel */
	float warm_up;  /* share of the steps in which the score rate rises linearly before */
	float head_lr;
	/* Weights outside never flip: blocks first to last, of them the layers (1 qkv, 4 proj,
	 * 16 fc1, 64 fc2; twice that: their biases), of each this share, drawn by seed. Of
	 * RECIPE_WEIGHTS: what lies before and behind those blocks stays as it is. */
	uint32_t first_block, last_block;
	uint32_t layers;
	float share;
	float min_area; /* large crops U(min_area, 1), small ones U(.05, min_area) */
	/* Spread of brightness, contrast and saturation; of the hue; how likely the others are. */
	float jitter, hue, blur, solarize;
	float temperature, sinkhorn_eps;
	uint32_t sinkhorn_iterations;
	/* Beside the mask that is learnt first, the dispatcher's: 0, or a cascade (cascade.h). */
	uint32_t experts;
	enum cascade_mode cascade; /* which of its embeddings are fused */
	bool alpha_term;
	/* Of micm (micm.h): its head's hidden layers have so many units; warm: it begins as swav's;
	 * balance: the teacher's targets are Sinkhorn's, by its temperature, not centred; normalise: of a
	 * patch its pixels' deviations from their mean are told, in units of their spread. */
	uint32_t micm_hidden;
	bool micm_warm, micm_balance, micm_normalise;
	/* What its losses weigh: class, patch and pixels, and neighbours in the last share of the steps,
	 * which is stage two. */
	float micm_class, micm_patch, micm_pixel, micm_pseudo, micm_second;
	float micm_mask; /* half of the large views have .1 to this share of their patches masked */
	float micm_teacher; /* of the teacher's moving average: cosine from this to 1 */
	/* The teacher's temperature: from first to last, linearly over this share of the steps. */
	float micm_first_temperature, micm_last_temperature, micm_rise;
	float micm_lr, micm_weight_decay; /* AdamW's for the head; the decay grows tenfold */
	enum recipe_drive drive;
	/* Of RECIPE_WEIGHTS, by AdamW: the rate, which rises over warm_up and falls by a cosine to
	 * its end; decay, which goes by another from one to the other; how long a gradient may be,
	 * 0: as long as it is. mask, layers and share do not matter; optimiser and score_... do to
	 * the masked head of what learns from labels (score_head.h), and to nothing else. */
	float weight_lr, weight_lr_end, weight_decay, weight_decay_end, weight_beta2, weight_clip;
	/* Of masksub: the share of the patches that does not enter the second pass; how likely a value,
	 * or a whole branch of a block, is dropped there (DropSub, PathSub). */
	float masksub_ratio, masksub_drop, masksub_path;
	enum recipe_masksub masksub_form;
	/* Of hpm (hpm_objective.h): the share of the patches that is hidden, and of those the share that
	 * is hidden for being hard, in the first step and in the last. */
	float hpm_ratio, hpm_hard_from, hpm_hard_to;
	enum recipe_hpm_target hpm_target;
	enum recipe_hpm_ranks hpm_ranks;
	enum recipe_hpm_asked hpm_asked;
	uint32_t hpm_width, hpm_depth; /* of its decoders */
	float hpm_lr, hpm_decay;       /* AdamW's, for them */
	float hpm_ema;                 /* of the teacher, from an eighth of the steps on */
};

/** How far a score may travel in a round, steps * score_lr / 2: once over the way from its start to
 * 0, and half as far again. Adam's steps are of the rate's size, so this and not the rate is what
 * decides which bits can flip. */
#define RECIPE_TRAVEL 1.5f
/** Larger steps flip bits by the noise of one batch; .06 already does now and then. */
#define RECIPE_MAX_SCORE_LR .06f

/**
 * The rate at which `steps` steps spend RECIPE_TRAVEL, at most RECIPE_MAX_SCORE_LR: a round of
 * fewer than 50 steps travels less, one of fewer than 34 flips nothing.
 */
float recipe_score_lr(uint32_t steps);

/** How many where nobody says. hpm's are of a smaller batch. */
uint32_t recipe_steps(enum recipe_objective objective);

/** Of the score rate's warm-up. */
uint32_t recipe_warm_steps(const struct recipe *recipe);

/** bf16 where the CPU has it. design.md section 5: Adam .03 cosine over 100 steps, batch 64, K 100, crops of 112 and 64. Fewer
 * images give fewer prototypes and a smaller batch; a large input is learnt at its half. */
struct recipe recipe_default(const struct vit *vit, const struct prep *prep, uint32_t n_images);
/** Changes what the other objective wants otherwise: what learns from labels takes neither small crops
 * nor a queue, looks at whole images (algorithms.md 1.7), and spreads the start of its scores. Once, after
 * steps and score_lr are set: the rate becomes a share of what it was. */
void recipe_set_objective(struct recipe *recipe, enum recipe_objective objective);
/** The recipe of a round of so many steps, 0: of recipe_steps(), by an objective: recipe_default() with
 * the rate that goes with the steps, and what the objective wants otherwise. */
struct recipe recipe_for(const struct vit *vit, const struct prep *prep, uint32_t n_images,
	enum recipe_objective objective, uint32_t steps);
/** Changes what learning weights wants otherwise than learning scores, after the objective is set. */
void recipe_set_weights(struct recipe *recipe);
/** Changes how views are drawn to what an objective wants. */
void recipe_set_views(struct recipe *recipe, enum recipe_objective objective);
/** Whether an objective learns from labels. */
bool recipe_wants_labels(enum recipe_objective objective);
/** What the activations of a step take, in bytes. */
size_t recipe_tape_bytes(const struct recipe *recipe, const struct vit *vit);
/** Sets at_once: 0 where the batch's activations fit into so many bytes, else what does, 1 at the
 * least. */
void recipe_fit(struct recipe *recipe, const struct vit *vit, size_t max_bytes);
/** @return 0, or -EINVAL with field and range in diag */
int recipe_check(
	const struct recipe *recipe, const struct vit *vit, uint32_t n_images, struct diag *diag);
/** Of its text. */
struct digest recipe_digest(const struct recipe *recipe);

/** Every field as NAME=VALUE with spaces between; a reader gets the same recipe to the bit. */
struct recipe_text {
	char text[8192];
};
struct recipe_text recipe_text(const struct recipe *recipe);
/** Sets one field by its name; -EINVAL and no change where name or value are wrong. */
int recipe_set(struct recipe *recipe, const char *name, const char *value, struct diag *diag);
/** The same of a text of NAME=VALUE with spaces between. */
int recipe_read(struct recipe *recipe, const char *text, struct diag *diag);
/** The objective alone of such a text, which recipe_for() wants first; where it says none: no change. */
int recipe_read_objective(enum recipe_objective *objective, const char *text, struct diag *diag);

#endif
