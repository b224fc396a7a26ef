/* SPDX-License-Identifier: Apache-2.0 */
#include "learner/near.h"

#include <errno.h>
#include <string.h>

#include "learner/embedding.h"
#include "site/twins.h"

int near_find(uint32_t *pairs, const float *rows, uint32_t n, uint32_t dim, double limit,
	const struct images *images)
{
	for (uint32_t i = 0; i < n; i++) {
		const float *row = rows + (size_t)i * dim;
		int r = images && i % NEAR_ROWS == 0 ? images_check(images) : 0;

		if (r < 0)
			return r;

		pairs[i] = n;
		for (uint32_t k = 0; k < i && pairs[i] == n; k++)
			/* What is near another goes itself: nothing may lean on it. */
			if (pairs[k] == n &&
				(double)cosine_dot(row, rows + (size_t)k * dim, dim) > limit)
				pairs[i] = k;
	}
	return 0;
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

int near_write(struct vit *vit, const struct prep *prep, struct images *images,
	const struct near_options *options, int round_fd, struct diag *diag)
{
	const struct manifest *manifest = images_manifest(images);
	_cleanup_(freep) uint32_t *pairs = NULL, *at = NULL;
	_cleanup_(freep) float *own = NULL;
	const bool is_part = manifest->n > NEAR_MAX || !options->rows;
	struct images_all all;
	struct image_source source =
		images_all_source(images, &all, NEAR_MAX, is_part ? options->first : 0);
	int r = 0;

	pairs = malloc(((size_t)source.n + 1) * sizeof(*pairs));
	at = malloc(((size_t)source.n + 1) * sizeof(*at));
	if (!pairs || !at)
		return diag_set(diag, ENOMEM, "near-duplicates: out of memory");
	for (uint32_t i = 0; i < source.n; i++)
		at[i] = images_all_at(&all, i);
	if (is_part)
		r = embedding_of_base(&own, vit, prep, &source);
	if (r == 0) {
		r = near_find(pairs, is_part ? own : options->rows, source.n, vit_shape(vit)->width,
			options->limit, images);
	}
	if (r == 0) {
		r = write_pairs(pairs, manifest, at, source.n, round_fd);
	}
	return r < 0 ? diag_set(diag, -r, "near-duplicates: %s %s", strerror(-r),
			       images_error(images))
		     : 0;
}
