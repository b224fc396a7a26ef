/* SPDX-License-Identifier: Apache-2.0 */
#include "learner/near.h"

#include <errno.h>
#include <math.h>
#include <string.h>

#include "site/twins.h"

static void normalise(float *row, uint32_t dim)
{
	double sum = 0;
	float scale;

	for (uint32_t k = 0; k < dim; k++)
		sum += (double)row[k] * (double)row[k];
	scale = sum > 0 ? (float)(1 / sqrt(sum)) : 0;
	for (uint32_t k = 0; k < dim; k++)
		row[k] *= scale;
}

static float dot(const float *a, const float *b, uint32_t dim)
{
	enum { LANES = 16 };
	float lanes[LANES] = { 0 }, sum = 0;
	uint32_t k = 0;

	for (; k + LANES <= dim; k += LANES)
		for (uint32_t j = 0; j < LANES; j++)
			lanes[j] += a[k + j] * b[k + j];
	for (; k < dim; k++)
		lanes[k % LANES] += a[k] * b[k];
	for (uint32_t j = 0; j < LANES; j++)
		sum += lanes[j];
	return sum;
}

void near_find(uint32_t *pairs, float *rows, uint32_t n, uint32_t dim, double limit)
{
	for (uint32_t i = 0; i < n; i++) {
		const float *row = rows + (size_t)i * dim;

		normalise(rows + (size_t)i * dim, dim);
		pairs[i] = n;
		for (uint32_t k = 0; k < i && pairs[i] == n; k++)
			/* What is near another goes itself: nothing may lean on it. */
			if (pairs[k] == n && (double)dot(row, rows + (size_t)k * dim, dim) > limit)
				pairs[i] = k;
	}
}

static int write_pairs(const uint32_t *pairs, const struct manifest *manifest, const uint32_t *at,
	uint32_t n, int round_fd)
{
	_cleanup_(twins_done) struct twins twins = { 0 };
	_cleanup_(freep) char *text = NULL;
	size_t n_chars;
	int r = 0;

	for (uint32_t i = 0; i < n && r >= 0; i++)
		if (pairs[i] < n)
			r = twins_add(&twins, &manifest->entries[at[pairs[i]]].hash,
				&manifest->entries[at[i]].hash);
	if (r >= 0)
		r = twins_write(&twins, &text, &n_chars);
	return r < 0 ? r : blob_write(round_fd, "candidate.twins", text, n_chars);
}

static int embed(float **ret_rows, struct vit *vit, const struct prep *prep,
	const struct image_source *source)
{
	_cleanup_(mask_freep) struct mask *all = NULL;
	_cleanup_(slot_freep) struct slot *slot = NULL;
	_cleanup_(freep) float *rows = NULL;
	int r;

	rows = malloc(((size_t)source->n * vit_shape(vit)->width + 1) * sizeof(*rows));
	if (!rows)
		return -ENOMEM;
	r = mask_new(&all, vit_layout(vit));
	if (r == 0)
		r = vit_slot_new(&slot, vit, SLOT_INFER);
	if (r == 0)
		r = slot_apply(slot, all);
	if (r == 0)
		r = judge_embed(rows, vit, slot, prep, source);
	if (r == 0)
		*ret_rows = TAKE_PTR(rows);
	return r;
}

int near_write(struct vit *vit, const struct prep *prep, struct images *images,
	const struct near_options *options, int round_fd, struct diag *diag)
{
	const struct manifest *manifest = images_manifest(images);
	_cleanup_(freep) uint32_t *pairs = NULL, *at = NULL;
	_cleanup_(freep) float *rows = NULL;
	struct images_all all;
	struct image_source source = images_all_source(images, &all, NEAR_MAX, options->first);
	int r;

	pairs = malloc(((size_t)source.n + 1) * sizeof(*pairs));
	at = malloc(((size_t)source.n + 1) * sizeof(*at));
	if (!pairs || !at)
		return diag_set(diag, ENOMEM, "near-duplicates: out of memory");
	for (uint32_t i = 0; i < source.n; i++)
		at[i] = images_all_at(&all, i);
	r = embed(&rows, vit, prep, &source);
	if (r == 0) {
		near_find(pairs, rows, source.n, vit_shape(vit)->width, options->limit);
		r = write_pairs(pairs, manifest, at, source.n, round_fd);
	}
	return r < 0 ? diag_set(diag, -r, "near-duplicates: %s %s", strerror(-r),
			       images_error(images))
		     : 0;
}
