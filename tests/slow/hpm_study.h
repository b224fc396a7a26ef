/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_TESTS_SLOW_HPM_STUDY_H
#define KAMEN_TESTS_SLOW_HPM_STUDY_H

#include "learn/folder.h"
#include "learn/hpm_objective.h"

/** A learnt round about to be asked: whole images through its mask, and parts of them. */
struct hpm_view {
	struct vit *vit;
	struct prep prep;  /* at the size that it is asked at */
	struct slot *slot; /* with the mask */
	struct hardness *hardness;
	struct vit_tape *whole; /* one image */
	float *tokens;          /* (T, width) */
	float *map;             /* (grid^2) of the image last looked at */
	uint32_t grid;
};

int hpm_view_open(struct hpm_view *ret_view, struct vit *vit, const struct prep *prep,
	const struct round *round);
void hpm_view_close(struct hpm_view *view);
/** Fills map, after what the mask makes of the image. */
int hpm_view_look(struct hpm_view *view, const struct image_view *image);

/** On images that were not learnt from: each patch is hidden by three of four masks that share the
 * image, and what it costs on the average is its true loss. */
struct hpm_held {
	uint32_t n;
	double spearman, spearman_sd; /* of predicted and true losses, over the images */
	double share_above;           /* of the images at .5 or more */
	double random, hard; /* mean loss under masks of chance, and half of hard patches */
	/* Over images: mean prediction, and mean of its highest tenth, against the image's true loss. */
	double image_mean, image_top;
};
int hpm_held_measure(struct hpm_held *ret_held, struct hpm_view *view, const struct round *round,
	const struct image_source *images, uint32_t n_most);

/** Ten held images with boxes: hardness inside over outside, and a PNG of each. */
int hpm_boxes(struct hpm_view *view, const char *data, const char *out);

double hpm_spearman(const float *a, const float *b, uint32_t n);

#endif
