/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "adapt_learn.h"
#include "base/blob.h"
#include "base/clock.h"
#include "learn/early_stop.h"
#include "mask/kmask.h"
#include "site/gate.h"

#define MAX_MASK_BYTES (64u << 20)
#define SAVE_EVERY 10u /* steps */

int adapt_mask_read(struct mask **ret_mask, const struct adapt_site *site, const char *path,
	size_t *ret_n_bytes)
{
	_cleanup_(freep) void *data = NULL;
	struct kmask_header header;
	int r;

	r = blob_read(AT_FDCWD, path, MAX_MASK_BYTES, &data, ret_n_bytes);
	if (r < 0)
		return r;
	return kmask_decode(ret_mask, &header, vit_layout(site->vit), vit_digest(site->vit), data,
		*ret_n_bytes, NULL);
}

int adapt_mask_write(const struct adapt_site *site, const struct mask *mask,
	const struct adapt_row *row, const struct prep *prep, const char *path, size_t *ret_n_bytes)
{
	const struct kmask_header header = {
		.base = *vit_digest(site->vit),
		.prep = prep_digest(prep),
		.seed = row->seed,
		.steps = row->steps,
	};
	_cleanup_(freep) void *data = NULL;
	int r = kmask_encode(mask, &header, &data, ret_n_bytes);

	return r < 0 ? r : blob_write(AT_FDCWD, path, data, *ret_n_bytes);
}

int adapt_scores(float **ret_scores, const struct adapt_site *site, const struct adapt_rows *rows,
	const struct adapt_row *row)
{
	size_t wanted = vit_layout(site->vit)->n_elements * sizeof(float), n_bytes;
	_cleanup_(freep) void *data = NULL;
	char path[1024];
	int r;

	adapt_rows_path(rows, row, "scores", path);
	r = blob_read(AT_FDCWD, path, wanted, &data, &n_bytes);
	if (r < 0)
		return r;
	if (n_bytes != wanted)
		return -EBADMSG;
	*ret_scores = TAKE_PTR(data);
	return 0;
}

/** A round under way, and the best of it. */
struct lesson {
	struct round *round;
	struct early_stop *stop;
	float *scores; /* of the best mask */
	size_t n_bytes;
	char round_path[1024], stop_path[1024], scores_path[1024];
};

static void lesson_clear(struct lesson *l)
{
	round_free(l->round);
	early_stop_free(l->stop);
	free(l->scores);
}

static int begin(struct lesson *l, struct adapt_site *site, const struct recipe *recipe,
	const struct prep *prep, struct diag *diag)
{
	const struct early_stop_limits limits = gate_limits();
	struct image_source learn = adapt_site_source(site, false);
	struct image_source held = adapt_site_source(site, true);
	int r;

	lesson_clear(l);
	l->round = NULL;
	l->stop = NULL;
	l->n_bytes = vit_layout(site->vit)->n_elements * sizeof(*l->scores);
	l->scores = malloc(l->n_bytes);
	if (!l->scores)
		return -ENOMEM;
	r = round_new(&l->round, site->vit, recipe, prep, &learn, diag);
	return r < 0 ? r : early_stop_new(&l->stop, site->vit, recipe, prep, &held, NULL, &limits);
}

static int resume(struct lesson *l)
{
	_cleanup_(freep) void *scores = NULL;
	size_t n_bytes;
	int r = early_stop_resume(l->stop, AT_FDCWD, l->stop_path, NULL);

	if (r == 0 && early_stop_mask(l->stop)) {
		r = blob_read(AT_FDCWD, l->scores_path, l->n_bytes, &scores, &n_bytes);
		if (r == 0 && n_bytes != l->n_bytes)
			r = -EBADMSG;
		if (r == 0)
			memcpy(l->scores, scores, l->n_bytes);
	}
	return r < 0 ? r : round_resume(l->round, AT_FDCWD, l->round_path, NULL);
}

/* The round's checkpoint last: where it is, the others are. */
static void save(const struct lesson *l)
{
	if (early_stop_mask(l->stop) &&
		blob_write(AT_FDCWD, l->scores_path, l->scores, l->n_bytes) < 0)
		return;
	if (early_stop_save(l->stop, AT_FDCWD, l->stop_path) == 0)
		(void)round_save(l->round, AT_FDCWD, l->round_path);
}

/* @return 1: more to do, 0: the round has ended, and in diag why if it was stopped */
static int step(struct lesson *l, struct round_progress *ret_progress, struct diag *diag)
{
	int r = round_step(l->round, ret_progress), stopped;

	if (r < 0)
		return r;
	stopped = early_stop_step(l->stop, ret_progress, round_mask(l->round), diag);
	if (stopped < 0)
		return stopped;
	if (early_stop_best(l->stop).progress.step == ret_progress->step)
		memcpy(l->scores, round_scores(l->round), l->n_bytes);
	return r > 0 && !stopped;
}

/* *ret_seconds: of all steps, as long as those of this run took. */
static int finish(struct lesson *l, double *ret_seconds, struct diag *why)
{
	struct round_progress progress;
	uint64_t start = clock_now_ns();
	uint32_t n = 0;
	int r;

	do {
		r = step(l, &progress, why);
		if (r < 0)
			return r;
		n++;
		if (r > 0 && progress.step % SAVE_EVERY == 0) {
			save(l);
			fprintf(stderr, "  step %u of %u: loss ratio %.3f, density %.5f\n",
				progress.step, progress.steps, (double)progress.loss_ratio,
				progress.density);
		}
	} while (r > 0);
	*ret_seconds = (double)(clock_now_ns() - start) / (double)NS_PER_S / n * progress.step;
	return 0;
}

static void take_progress(struct adapt_row *row, const struct round_progress *progress)
{
	row->loss_ratio = (double)progress->loss_ratio;
	row->density = progress->density;
	row->lowest_density = progress->lowest_density;
	row->n_flips = progress->n_flips;
	row->kept_step = progress->step;
}

static int take_mask(struct mask **ret_mask, struct adapt_row *row, const struct lesson *l,
	const struct adapt_site *site, const struct adapt_rows *rows, const struct prep *prep,
	const struct diag *why)
{
	struct early_stop_best best;
	char path[1024];
	size_t n_bytes;
	int r;

	if (!early_stop_mask(l->stop)) {
		row->passed = 0;
		(void)snprintf(row->reasons, sizeof(row->reasons), "no candidate: %s",
			why->text[0] ? why->text : "no mask of this round is worth keeping");
		*ret_mask = NULL;
		return 0;
	}
	best = early_stop_best(l->stop);
	take_progress(row, &best.progress);
	adapt_rows_path(rows, row, "kmask", path);
	r = blob_write(AT_FDCWD, l->scores_path, l->scores, l->n_bytes);
	if (r == 0)
		r = adapt_mask_write(site, early_stop_mask(l->stop), row, prep, path, &n_bytes);
	if (r < 0)
		return r;
	row->n_bytes = n_bytes;
	return adapt_mask_read(ret_mask, site, path, &n_bytes);
}

int adapt_learn(struct mask **ret_mask, struct adapt_row *row, struct adapt_site *site,
	const struct adapt_rows *rows, const struct recipe *recipe, const struct prep *prep,
	struct diag *diag)
{
	_cleanup_(lesson_clear) struct lesson l = { 0 };
	_cleanup_(mask_freep) struct mask *mask = NULL;
	struct diag why = { "" };
	int r;

	adapt_rows_path(rows, row, "round", l.round_path);
	adapt_rows_path(rows, row, "best", l.stop_path);
	adapt_rows_path(rows, row, "scores", l.scores_path);
	row->steps = recipe->steps;
	r = begin(&l, site, recipe, prep, diag);
	/* What failed half way may have taken over some of it. */
	if (r == 0 && resume(&l) < 0)
		r = begin(&l, site, recipe, prep, diag);
	if (r == 0)
		r = finish(&l, &row->seconds, &why);
	if (r == 0)
		r = take_mask(&mask, row, &l, site, rows, prep, &why);
	/* The head of the last step, as in the daemon. */
	if (r == 0 && mask)
		r = adapt_site_spread(row, site, mask, round_head(l.round), recipe, prep);
	if (r < 0)
		return r;
	*ret_mask = TAKE_PTR(mask);
	return 0;
}

void adapt_learn_done(const struct adapt_rows *rows, const struct adapt_row *row)
{
	char path[1024];

	adapt_rows_path(rows, row, "round", path);
	(void)unlink(path);
	adapt_rows_path(rows, row, "best", path);
	(void)unlink(path);
}

int adapt_learnt(struct mask **ret_mask, const struct adapt_site *site,
	const struct adapt_rows *rows, const struct adapt_row *row)
{
	char path[1024];
	size_t n_bytes;

	*ret_mask = NULL;
	if (row->n_bytes == 0)
		return 0;
	adapt_rows_path(rows, row, "kmask", path);
	return adapt_mask_read(ret_mask, site, path, &n_bytes);
}
