/* SPDX-License-Identifier: Apache-2.0 */
#include "learner/split.h"

#include <errno.h>
#include <string.h>

#include "learner/embedding.h"
#include "learner/near.h"

/* The group's first image; paths are halved on the way. */
static uint32_t root_of(uint32_t *parents, uint32_t i)
{
	while (parents[i] != i)
		i = parents[i] = parents[parents[i]];
	return i;
}

static int join(uint32_t *parents, const float *rows, uint32_t n, uint32_t dim, float limit,
	const struct images *images)
{
	for (uint32_t i = 0; i < n; i++) {
		int r = images && i % NEAR_ROWS == 0 ? images_check(images) : 0;

		if (r < 0)
			return r;
		for (uint32_t j = 0; j < i; j++) {
			uint32_t a = root_of(parents, i), b;

			if (!(cosine_dot(rows + (size_t)i * dim, rows + (size_t)j * dim, dim) >
				    limit))
				continue;
			b = root_of(parents, j);
			parents[a > b ? a : b] = a > b ? b : a;
		}
	}
	return 0;
}

int split_groups(bool *held, const float *rows, uint32_t n, uint32_t dim, float limit,
	const struct images *images)
{
	_cleanup_(freep) uint32_t *parents = malloc(((size_t)n + 1) * sizeof(*parents));
	_cleanup_(freep) bool *is_learnt = calloc((size_t)n + 1, sizeof(*is_learnt));
	int n_moved = 0, r;

	if (!parents || !is_learnt)
		return -ENOMEM;
	for (uint32_t i = 0; i < n; i++)
		parents[i] = i;
	r = join(parents, rows, n, dim, limit, images);
	if (r < 0)
		return r;
	for (uint32_t i = 0; i < n; i++)
		if (!held[i])
			is_learnt[root_of(parents, i)] = true;
	for (uint32_t i = 0; i < n; i++) {
		if (!held[i] || !is_learnt[root_of(parents, i)])
			continue;
		held[i] = false;
		n_moved++;
	}
	return n_moved;
}

int split_by_likeness(float **ret_rows, struct images *images, struct vit *vit,
	const struct prep *prep, struct diag *notice)
{
	const struct manifest *manifest = images_manifest(images);
	_cleanup_(freep) bool *held = malloc(((size_t)manifest->n + 1) * sizeof(*held));
	_cleanup_(freep) float *rows = NULL;
	struct images_all all;
	struct image_source source = images_all_source(images, &all, SPLIT_MAX, 0);
	uint32_t n_held = 0;
	int r, n_moved;

	if (!held)
		return -ENOMEM;
	*ret_rows = NULL;
	if (manifest->n > SPLIT_MAX)
		return 0;
	r = embedding_of_base(&rows, vit, prep, &source);
	if (r < 0)
		return r;
	for (uint32_t i = 0; i < manifest->n; i++) {
		held[i] = manifest->entries[i].held;
		n_held += held[i];
	}
	n_moved = split_groups(held, rows, manifest->n, vit_shape(vit)->width, SPLIT_LIKE, images);
	if (n_moved < 0)
		return n_moved;
	*ret_rows = TAKE_PTR(rows);
	if (n_moved == 0)
		return 0;
	if (n_held - (uint32_t)n_moved < SPLIT_MIN_HELD || (uint32_t)n_moved > n_held / 2) {
		size_t n = strlen(notice->text);

		(void)snprintf(notice->text + n, sizeof(notice->text) - n,
			"%s%d of %u held-out images are near-duplicates of learnt ones: all are "
			"judged on",
			n ? "; " : "", n_moved, n_held);
		return 0;
	}
	return images_judge_only(images, held);
}
