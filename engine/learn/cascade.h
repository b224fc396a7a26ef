/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_LEARN_CASCADE_H
#define KAMEN_LEARN_CASCADE_H

#include "cascade/mask_set.h"
#include "learn/early_stop.h"
#include "learn/round.h"

#define CASCADE_MIN_IMAGES 16u /* a component of fewer keeps the dispatcher for its expert */

/**
 * A model cascade (algorithms.md 1.10): the mask of a round is the dispatcher; a Gaussian mixture
 * over its whitened embeddings sends an image to one of some experts, each learnt on from the
 * dispatcher's scores on the images of its component; what dispatcher and experts say is fused by a
 * whitening of all of it. For one thread.
 */
struct cascade;

struct cascade_options {
	uint32_t n_experts; /* 1..CASCADE_MAX_EXPERTS */
	uint32_t n_route;   /* dimensions in which the mixture sees an embedding */
	/* What is not learnt from: an expert's best mask on its share of that is kept. NULL, or a
	 * share too small to judge on: the last one. Outlives the cascade. */
	const struct image_source *held;
	struct early_stop_limits limits;
};
/** 3 experts, 20 dimensions, nothing held. */
struct cascade_options cascade_options_default(void);

struct cascade_progress {
	uint32_t expert, n_experts; /* expert: the one that learns; n_experts: they are fused */
	struct round_progress round;
};

/**
 * Fits the mixture, divides the source. Mixture and fusions are fitted to WARM_MAX_IMAGES of it at
 * most, evenly spaced. Fewer images than it takes give fewer dimensions.
 *
 * @param recipe  of the dispatcher: experts learn as many steps at the same rates
 * @param source  what the dispatcher learnt from; must outlive the cascade, as vit
 * @param mask    the dispatcher's, copied
 * @param scores  (n_elements) of the dispatcher, copied; what says otherwise than the mask is mended
 * @return 0, -EINVAL: options out of range or too few images (diag), -ENOMEM, -EIO, -EDOM
 */
int cascade_new(struct cascade **ret_cascade, struct vit *vit,
	const struct cascade_options *options, const struct recipe *recipe, const struct prep *prep,
	const struct image_source *source, const struct mask *mask, const float *scores,
	struct diag *diag);
void cascade_free(struct cascade *cascade);
DEFINE_CLEANUP(struct cascade *, cascade_free)

/** One step of one expert; when all are learnt, fits both fusions. An expert none of whose masks
 * was found better than the dispatcher's has that.
 * @return 1: more to do, 0: done, or a negative errno as round_step() */
int cascade_step(struct cascade *cascade, struct cascade_progress *ret_progress, struct diag *diag);

/** Whether an expert is half learnt. */
bool cascade_is_learning(const struct cascade *cascade);

/**
 * What has been learnt so far, as files whose names begin with path: the masks of experts that are
 * done, and a checkpoint of the one that is not. Resuming gives the same bits as going on; what was
 * saved of another dispatcher, recipe, division, instruction set or number of threads is refused.
 *
 * @return 0; resume: -ENOENT: nothing was saved, -ESTALE: of something else, -EBADMSG: damaged
 *         (diag); the experts are then learnt from the first on
 */
int cascade_save(const struct cascade *cascade, int dir_fd, const char *path);
int cascade_resume(struct cascade *cascade, int dir_fd, const char *path, struct diag *diag);

uint32_t cascade_n_experts(const struct cascade *cascade);
/** Images of the source in an expert's component. */
uint32_t cascade_n_images(const struct cascade *cascade, uint32_t expert);
/** The mask of an expert, NULL: not learnt yet; the cascade keeps it. */
const struct mask *cascade_expert(const struct cascade *cascade, uint32_t expert);
/** An expert that was learnt before, copied: it is not learnt again. -EBUSY: it has begun. */
int cascade_give(struct cascade *cascade, uint32_t expert, const struct mask *mask);

/** Dimensions of what is fused: the model's width, or fewer where the images span fewer. */
uint32_t cascade_width(const struct cascade *cascade);
/** (n, cascade_width) of a cascade that is done. slot: any of this model, for SLOT_INFER. */
int cascade_embed(float *embeddings, struct cascade *cascade, enum cascade_mode mode,
	struct slot *slot, const struct image_source *source);
/**
 * Moves a mode of a cascade that is done into a set of its own; nothing but cascade_free() may be
 * done with the cascade then.
 */
int cascade_take(struct cascade *cascade, enum cascade_mode mode, struct mask_set **ret_set);
/** What must be stored beside the masks, in f32: mixture, its whitening, the mode's fusion. */
size_t cascade_bytes(const struct cascade *cascade, enum cascade_mode mode);

#endif
