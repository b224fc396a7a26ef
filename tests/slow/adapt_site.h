/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_TESTS_ADAPT_SITE_H
#define KAMEN_TESTS_ADAPT_SITE_H

#include "adapt_rows.h"
#include "learn/folder.h"
#include "learn/judge.h"

/** Four fifths of the learning part, which are learnt from, or the last one, which the gate sees. */
struct adapt_share {
	struct folder *folder;
	bool judged;
	uint32_t *labels; /* of each image, in the site's numbering */
};

/** A folder of class folders as a site: what is learnt from never meets what is evaluated. */
struct adapt_site {
	struct vit *vit; /* borrowed, as the slot */
	struct slot *slot;
	char name[48];
	char images[17]; /* of both manifests */
	struct folder *learn, *held;
	uint32_t *classes;  /* (learn->n) in the numbering of the held part */
	uint32_t n_classes; /* of both parts */
	struct adapt_share shares[2];
	struct judge_image frozen_images[JUDGE_MAX_IMAGES];
	struct judgement frozen;
	/* For which the frozen model was judged; px 0: not yet. */
	uint32_t frozen_px;
	uint64_t frozen_seed;
};

/**
 * @param max_shorter  images are kept at most so large
 * @return 0, what folder_open() says, or -EINVAL: the held part has no two classes (diag)
 */
int adapt_site_open(struct adapt_site *site, struct vit *vit, struct slot *slot, const char *path,
	uint32_t max_shorter, struct diag *diag);
void adapt_site_done(struct adapt_site *site);

/** recipe_for() with the objective that the fields ask for, each NAME=VALUE or several, then these. */
int adapt_recipe(struct recipe *ret_recipe, const struct vit *vit, const struct prep *prep,
	uint32_t n_images, uint32_t steps, const char *const *fields, uint32_t n_fields,
	struct diag *diag);

/** A row with nothing measured yet: the columns by which it is known. recipe NULL: nothing learnt. */
struct adapt_row adapt_site_row(const struct adapt_site *site, const char *arm,
	const struct prep *prep, const struct recipe *recipe);

/** What is learnt from (false) or judged (true) of the learning part. */
struct image_source adapt_site_source(struct adapt_site *site, bool judged);

/** Embeds the whole learning part, then the held part: (learn->n + held->n, width), malloc'ed.
 * *ret_ms: of one held image. mask NULL: the frozen model. */
int adapt_site_embed(float **ret_rows, double *ret_ms, struct adapt_site *site,
	const struct mask *mask, const struct prep *prep);

/** The held part alone: (held->n, width). */
int adapt_site_embed_held(float **ret_rows, double *ret_ms, struct adapt_site *site,
	const struct mask *mask, const struct prep *prep);

/** Without the linear probe: of (held->n, width). ret_detail may be NULL. */
int adapt_site_figures(struct figures *ret_figures, struct figures_detail *ret_detail,
	const struct adapt_site *site, const float *held, uint32_t width);

/** All labelled figures of such rows into row and *ret_detail. */
int adapt_site_measure(struct adapt_row *row, struct adapt_detail *ret_detail,
	const struct adapt_site *site, const float *rows, uint32_t width);

/** Entropy and neighbours of the gate's fifth into row. head: which the mask was learnt with; NULL:
 * it had none. */
int adapt_site_spread(struct adapt_row *row, struct adapt_site *site, const struct mask *mask,
	const struct head *head, const struct recipe *recipe, const struct prep *prep);

/** The unlabelled figures into row, and, of a mask, what the daemon's gate says. The fields of row
 * that tell how it was learnt are filled before. mask NULL: the frozen model. */
int adapt_site_judge(struct adapt_row *row, struct adapt_site *site, const struct mask *mask,
	const struct recipe *recipe, const struct prep *prep);

#endif
