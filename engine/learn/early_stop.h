/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_LEARN_EARLY_STOP_H
#define KAMEN_LEARN_EARLY_STOP_H

#include "learn/judge.h"

/**
 * Looks at a round's mask now and then, by unlabelled figures on held-out images, keeps the latest
 * sound one, and says when going on is of no use: in a round of SMN the loss may jump when bits
 * flip, and what a mask is worth with it, so that the last step is not always a good one (design.md
 * section 5). Where no look found a sound mask, the one of the highest margin is kept. (Among sound
 * ones the highest margin is not the best: on NEU it stopped at .669 of shot1, the last at .812.)
 *
 * What an objective that learns hardness says of patches is worth asking for where the mask is not:
 * its round goes on though no bit moves or the mask comes apart, and of unsound masks the latest is
 * kept whose density and effective rank are within the limits. The gate holds them all the same.
 */
struct early_stop;

/** What a mask may not come to (the gate would hold it anyway). */
struct early_stop_limits {
	double density, lowest_density; /* over all tensors; of the tensor that lost most */
	float rank_share;               /* of the effective rank of what the round began with */
	float loss_ratio;               /* of a guess: a sound mask's is below */
	float errors; /* standard errors that a sound mask's margin is above the frozen one's */
};

/** The step whose mask is kept, with what the round said then. step 0: none yet. */
struct early_stop_best {
	struct round_progress progress;
	struct judgement judgement;
};

/**
 * Borrows vit, held and its owner, and from: what the round begins with and has to beat, NULL: the
 * base. Fewer than EARLY_STOP_MIN_IMAGES held-out images: nothing is
 * judged, and the last mask is the best.
 */
#define EARLY_STOP_MIN_IMAGES 16u
int early_stop_new(struct early_stop **ret_stop, struct vit *vit, const struct recipe *recipe,
	const struct prep *prep, const struct image_source *held, const struct mask *from,
	const struct early_stop_limits *limits);
void early_stop_free(struct early_stop *stop);
DEFINE_CLEANUP(struct early_stop *, early_stop_free)

/**
 * After every step. Looks when bits have flipped, about ten times a round, and at the last step.
 * A pure function of the masks it was shown: a step that is shown again is not looked at again.
 *
 * @return 0: go on, 1: stop, and why in diag, or a negative errno
 */
int early_stop_step(struct early_stop *stop, const struct round_progress *progress,
	const struct mask *mask, struct diag *diag);

/** Step 0 and NULL: no mask is worth keeping. Borrowed. */
struct early_stop_best early_stop_best(const struct early_stop *stop);
const struct mask *early_stop_mask(const struct early_stop *stop);
/** Whether what is kept was found better than what the round began with; where too little is held
 * to judge, whether anything is kept. */
bool early_stop_is_sound(const struct early_stop *stop);

/**
 * Beside a round's checkpoint, and written before it: what is kept, with a checksum. To be resumed
 * whenever the round is; -EBADMSG, -ESTALE: it does not fit, the round has to begin anew.
 */
int early_stop_save(const struct early_stop *stop, int dir_fd, const char *path);
int early_stop_resume(struct early_stop *stop, int dir_fd, const char *path, struct diag *diag);

#endif
