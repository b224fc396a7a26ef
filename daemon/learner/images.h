/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_LEARNER_IMAGES_H
#define KAMEN_LEARNER_IMAGES_H

#include "engine.h"
#include "site/manifest.h"

/** Asked before an image is handed out: a negative errno stops whatever reads. */
struct interrupt {
	int (*check)(void *owner);
	void *owner;
};

/** The images of a manifest, read on demand, as many as fit kept in memory. One thread. */
struct images;

/**
 * Reads every image once. What cannot be read is left out, so that images_manifest() is what was
 * really used; lost counts those, and diag says why the first one was.
 *
 * @param manifest   taken over on success
 * @param max_cached bytes of pixels kept in memory
 * @return 0, -ENODATA: nothing is left, what interrupt said, -ENOMEM, or what opening replay said
 */
int images_open(struct images **ret_images, struct manifest *manifest, const char *replay,
	size_t max_cached, struct interrupt interrupt, uint32_t *ret_n_lost, struct diag *diag);
void images_free(struct images *images);
DEFINE_CLEANUP(struct images *, images_free)

const struct manifest *images_manifest(const struct images *images);
/** Whether the interrupt is asked at all; at first it is. */
void images_set_interruptible(struct images *images, bool on);
/** For what reads no images and still takes long. @return 0, or what the interrupt said */
int images_check(const struct images *images);
/** Why the last get failed. */
const char *images_error(const struct images *images);

/** Of the held-out images only these are judged on: judged (n of the manifest). */
int images_judge_only(struct images *images, const bool *judged);

/** One side of the split, evenly thinned out to at most n_max. Must outlive its source. */
struct images_part {
	struct images *images;
	bool held;
	uint32_t n_all;
	uint32_t n;
};
struct image_source images_source(
	struct images *images, struct images_part *part, bool held, uint32_t n_max);

/** Both sides, evenly thinned out to at most n_max beginning with image `first`, going round. */
struct images_all {
	struct images *images;
	uint32_t n, first;
};
struct image_source images_all_source(
	struct images *images, struct images_all *all, uint32_t n_max, uint32_t first);
/** Which entry of the manifest image i of it is. */
uint32_t images_all_at(const struct images_all *all, uint32_t i);

/** The images of a manifest that have a label, in its order. Must outlive its source. */
struct images_labelled {
	struct images *images;
	uint32_t *entries, *labels; /* (n); owned */
	uint32_t n, n_classes;
};
/**
 * Those to learn from, by manifest_learnt_labels().
 *
 * @param ret_labelled  release with images_labelled_done()
 * @return 0, -ENODATA: too few (diag), -ENOMEM
 */
int images_labelled_learn(
	struct images_labelled *ret_labelled, struct images *images, struct diag *diag);
/** Those to be judged on, at most n_max, of the classes that have n_min of them; there may be none. */
int images_labelled_judged(struct images_labelled *ret_labelled, struct images *images,
	uint32_t n_min, uint32_t n_max);
void images_labelled_done(struct images_labelled *labelled);
struct image_source images_labelled_source(struct images_labelled *labelled);

/** The held-out images that are judged on: all, unless images_judge_only() has said otherwise. */
struct image_source images_judged_source(struct images *images, struct images_part *part);

#endif
