/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>

#include "adapt_learn.h"
#include "base/blob.h"
#include "base/clock.h"
#include "mask/kmask.h"

#define MAX_MASK_BYTES (64u << 20)
#define SAVE_EVERY 10u /* steps */

/* What an earlier run measured while it learnt this mask, at whatever size it was served. */
static const struct adapt_row *learnt_before(
	const struct adapt_rows *rows, const struct adapt_row *row)
{
	for (uint32_t i = 0; i < rows->n; i++) {
		struct adapt_row same = rows->rows[i];

		same.px = row->px;
		if (strcmp(same.set, row->set) == 0 && strcmp(same.arm, row->arm) == 0 &&
			strcmp(same.resize, row->resize) == 0 &&
			strcmp(same.images, row->images) == 0 &&
			strcmp(same.recipe, row->recipe) == 0 && same.seed == row->seed)
			return &rows->rows[i];
	}
	return NULL;
}

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

	adapt_rows_path(rows, row, 0, "scores", path);
	r = blob_read(AT_FDCWD, path, wanted, &data, &n_bytes);
	if (r < 0)
		return r;
	if (n_bytes != wanted)
		return -EBADMSG;
	*ret_scores = TAKE_PTR(data);
	return 0;
}

static void take_progress(struct adapt_row *row, const struct round_progress *progress)
{
	row->loss_ratio = (double)progress->loss_ratio;
	row->density = progress->density;
	row->lowest_density = progress->lowest_density;
	row->n_flips = progress->n_flips;
	row->steps = progress->steps;
}

/* @return seconds a step in *ret_step_s: of this run, also where an earlier one had begun */
static int finish(struct round *round, struct round_progress *progress, const char *checkpoint,
	double *ret_step_s)
{
	uint64_t start = clock_now_ns();
	uint32_t n = 0;
	int r;

	do {
		r = round_step(round, progress);
		if (r < 0)
			return r;
		n++;
		if (r > 0 && progress->step % SAVE_EVERY == 0) {
			fprintf(stderr, "  step %u of %u: loss ratio %.3f, density %.5f\n",
				progress->step, progress->steps, (double)progress->loss_ratio,
				progress->density);
			(void)round_save(round, AT_FDCWD, checkpoint);
		}
	} while (r > 0);
	*ret_step_s = (double)(clock_now_ns() - start) / (double)NS_PER_S / n;
	return 0;
}

static int learn(struct mask **ret_mask, struct adapt_row *row, struct adapt_site *site,
	const struct adapt_rows *rows, const char *path, const char *checkpoint,
	const struct recipe *recipe, const struct prep *prep, struct diag *diag)
{
	struct image_source source = adapt_site_source(site, false);
	_cleanup_(round_freep) struct round *round = NULL;
	struct round_progress progress;
	char scores[1024];
	size_t n_bytes;
	double step_s;
	int r;

	r = round_new(&round, site->vit, recipe, prep, &source, diag);
	if (r < 0)
		return r;
	r = round_resume(round, AT_FDCWD, checkpoint, NULL);
	if (r < 0 && r != -ENOENT) {
		round_free(TAKE_PTR(round));
		r = round_new(&round, site->vit, recipe, prep, &source, diag);
		if (r < 0)
			return r;
	}
	r = finish(round, &progress, checkpoint, &step_s);
	if (r < 0)
		return r;
	take_progress(row, &progress);
	row->seconds = step_s * progress.steps;
	adapt_rows_path(rows, row, 0, "scores", scores);
	r = blob_write(AT_FDCWD, scores, round_scores(round),
		vit_layout(site->vit)->n_elements * sizeof(float));
	if (r == 0)
		r = adapt_mask_write(site, round_mask(round), row, prep, path, &n_bytes);
	if (r < 0)
		return r;
	row->n_bytes = n_bytes;
	(void)unlink(checkpoint);
	return adapt_mask_read(ret_mask, site, path, &n_bytes);
}

int adapt_learn(struct mask **ret_mask, struct adapt_row *row, struct adapt_site *site,
	const struct adapt_rows *rows, const struct recipe *recipe, const struct prep *prep,
	struct diag *diag)
{
	const struct adapt_row *before = learnt_before(rows, row);
	char path[1024], checkpoint[1024];
	size_t n_bytes;

	adapt_rows_path(rows, row, 0, "kmask", path);
	adapt_rows_path(rows, row, 0, "round", checkpoint);
	if (before && adapt_mask_read(ret_mask, site, path, &n_bytes) == 0) {
		row->loss_ratio = before->loss_ratio;
		row->density = before->density;
		row->lowest_density = before->lowest_density;
		row->n_flips = before->n_flips;
		row->steps = before->steps;
		row->seconds = before->seconds;
		row->n_bytes = n_bytes;
		return 0;
	}
	return learn(ret_mask, row, site, rows, path, checkpoint, recipe, prep, diag);
}
