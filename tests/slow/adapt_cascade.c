/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>

#include "adapt_cascade.h"
#include "base/clock.h"
#include "site/gate.h"

#define TELL_EVERY 10u /* steps */

/* Both modes have the same experts: their files carry the dispatcher's name. */
static void expert_path(const struct adapt_rows *rows, const struct adapt_row *dispatcher,
	uint32_t expert, char ret_path[1024])
{
	char suffix[32];

	(void)snprintf(suffix, sizeof(suffix), "expert%u.kmask", expert);
	adapt_rows_path(rows, dispatcher, suffix, ret_path);
}

static int give_known(struct cascade *cascade, const struct adapt_site *site,
	const struct adapt_rows *rows, const struct adapt_row *dispatcher)
{
	for (uint32_t i = 0; i < cascade_n_experts(cascade); i++) {
		_cleanup_(mask_freep) struct mask *mask = NULL;
		char path[1024];
		size_t n_bytes;
		int r;

		expert_path(rows, dispatcher, i, path);
		if (adapt_mask_read(&mask, site, path, &n_bytes) < 0)
			continue;
		r = cascade_give(cascade, i, mask);
		if (r < 0)
			return r;
	}
	return 0;
}

/** What finish() works on. */
struct lesson {
	struct cascade *cascade;
	const struct adapt_site *site;
	const struct adapt_rows *rows;
	const struct adapt_row *dispatcher;
	const struct prep *prep;
};

/* Writes experts from *n_kept on, as far as they are there. */
static int keep_new(const struct lesson *l, uint32_t *n_kept)
{
	for (; *n_kept < cascade_n_experts(l->cascade); ++*n_kept) {
		const struct mask *mask = cascade_expert(l->cascade, *n_kept);
		char path[1024];
		size_t n_bytes;
		int r;

		if (!mask)
			return 0;
		expert_path(l->rows, l->dispatcher, *n_kept, path);
		r = adapt_mask_write(l->site, mask, l->dispatcher, l->prep, path, &n_bytes);
		if (r < 0)
			return r;
	}
	return 0;
}

static void tell(const struct cascade *cascade, const struct cascade_progress *progress)
{
	if (progress->round.step > 0 && progress->round.step % TELL_EVERY == 0)
		fprintf(stderr,
			"  expert %u of %u (%u images), step %u: loss ratio %.3f, density %.5f\n",
			progress->expert + 1, progress->n_experts,
			cascade_n_images(cascade, progress->expert), progress->round.step,
			(double)progress->round.loss_ratio, progress->round.density);
}

/* *ret_step_s: seconds that a learning step took, 0: none was left to take */
static int finish(const struct lesson *l, double *ret_step_s, struct diag *diag)
{
	struct cascade_progress progress;
	uint64_t start = clock_now_ns();
	uint32_t n_kept = 0, n_steps = 0;
	int r, kept;

	do {
		r = cascade_step(l->cascade, &progress, diag);
		if (r < 0)
			return r;
		n_steps += progress.round.step > 0;
		tell(l->cascade, &progress);
		kept = keep_new(l, &n_kept);
		if (kept < 0)
			return kept;
	} while (r > 0);
	*ret_step_s = n_steps ? (double)(clock_now_ns() - start) / (double)NS_PER_S / n_steps : 0;
	return 0;
}

static int sum_up(struct adapt_row *row, const struct lesson *l, double step_s)
{
	uint32_t n = cascade_n_experts(l->cascade), n_learnt = 0;
	const struct adapt_row *dispatcher = l->dispatcher;

	row->n_bytes = dispatcher->n_bytes;
	row->density = dispatcher->density / (1 + n);
	for (uint32_t i = 0; i < n; i++) {
		_cleanup_(mask_freep) struct mask *mask = NULL;
		char path[1024];
		size_t n_bytes;
		int r;

		expert_path(l->rows, dispatcher, i, path);
		r = adapt_mask_read(&mask, l->site, path, &n_bytes);
		if (r < 0)
			return r;
		row->n_bytes += n_bytes;
		row->density += mask_density(mask) / (1 + n);
		n_learnt += cascade_n_images(l->cascade, i) >= CASCADE_MIN_IMAGES;
	}
	if (step_s <= 0)
		step_s = dispatcher->seconds / dispatcher->steps;
	row->steps = dispatcher->steps * (1 + n_learnt);
	row->seconds = dispatcher->seconds + step_s * dispatcher->steps * n_learnt;
	return 0;
}

int adapt_cascade(struct cascade **ret_cascade, struct adapt_row *row, struct adapt_site *site,
	const struct adapt_rows *rows, const struct adapt_row *dispatcher,
	const struct recipe *recipe, const struct prep *prep, struct diag *diag)
{
	const struct image_source source = adapt_site_source(site, false);
	const struct image_source held = adapt_site_source(site, true);
	struct cascade_options options = cascade_options_default();
	_cleanup_(cascade_freep) struct cascade *cascade = NULL;
	_cleanup_(mask_freep) struct mask *mask = NULL;
	_cleanup_(freep) float *scores = NULL;
	struct lesson lesson = { NULL, site, rows, dispatcher, prep };
	double step_s;
	int r;

	r = adapt_learnt(&mask, site, rows, dispatcher);
	if (r == 0)
		r = adapt_scores(&scores, site, rows, dispatcher);
	if (r < 0)
		return diag_set(diag, -r, "the mask of seed %llu or its scores are gone",
			(unsigned long long)dispatcher->seed);
	options.held = &held;
	options.limits = gate_limits();
	r = cascade_new(&cascade, site->vit, &options, recipe, prep, &source, mask, scores, diag);
	if (r == 0)
		r = give_known(cascade, site, rows, dispatcher);
	if (r < 0)
		return r;
	lesson.cascade = cascade;
	r = finish(&lesson, &step_s, diag);
	if (r == 0)
		r = sum_up(row, &lesson, step_s);
	if (r < 0)
		return r;
	*ret_cascade = TAKE_PTR(cascade);
	return 0;
}

int adapt_cascade_embed(float **ret_rows, double *ret_ms, struct adapt_site *site,
	struct cascade *cascade, enum cascade_mode mode)
{
	struct image_source learn = folder_source(site->learn), held = folder_source(site->held);
	size_t width = cascade_width(cascade);
	_cleanup_(freep) float *rows = malloc(((size_t)learn.n + held.n) * width * sizeof(*rows));
	uint64_t start;
	int r;

	if (!rows)
		return -ENOMEM;
	r = cascade_embed(rows, cascade, mode, site->slot, &learn);
	start = clock_now_ns();
	if (r == 0)
		r = cascade_embed(rows + learn.n * width, cascade, mode, site->slot, &held);
	if (r < 0)
		return r;
	*ret_ms = (double)(clock_now_ns() - start) / (double)NS_PER_MS / held.n;
	*ret_rows = TAKE_PTR(rows);
	return 0;
}
