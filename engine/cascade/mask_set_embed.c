/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "cascade/mask_set.h"
#include "classify/cosine.h"

struct mask_set_scratch {
	float *rows;   /* (n, (1 + n_experts) width): what all say */
	float *own;    /* (n, width): what one says */
	float *unit;   /* (n, width) */
	float *points; /* (n, width): what the mixture sees */
	uint32_t *images, *owners;
};

int mask_set_scratch_new(struct mask_set_scratch **ret_scratch, uint32_t max_images,
	uint32_t max_experts, uint32_t width)
{
	_cleanup_(mask_set_scratch_freep) struct mask_set_scratch *s = calloc(1, sizeof(*s));
	size_t n = (size_t)max_images + 1;

	if (!s)
		return -ENOMEM;
	s->rows = malloc(n * (1 + max_experts) * width * sizeof(*s->rows));
	s->own = malloc(n * width * sizeof(*s->own));
	s->unit = malloc(n * width * sizeof(*s->unit));
	s->points = malloc(n * width * sizeof(*s->points));
	s->images = malloc(n * sizeof(*s->images));
	s->owners = malloc(n * sizeof(*s->owners));
	if (!s->rows || !s->own || !s->unit || !s->points || !s->images || !s->owners)
		return -ENOMEM;
	*ret_scratch = TAKE_PTR(s);
	return 0;
}

void mask_set_scratch_free(struct mask_set_scratch *scratch)
{
	if (!scratch)
		return;
	free(scratch->rows);
	free(scratch->own);
	free(scratch->unit);
	free(scratch->points);
	free(scratch->images);
	free(scratch->owners);
	free(scratch);
}

void mask_set_route(const struct mask_set *set, struct mask_set_scratch *scratch, const float *rows,
	uint32_t n, uint32_t *ret_owners)
{
	uint32_t dim = set->mixture->dim;

	cosine_normalise(scratch->unit, rows, n, set->width);
	whiten_apply(set->route, scratch->unit, n, scratch->points);
	for (uint32_t i = 0; i < n; i++)
		ret_owners[i] = gmm_assign(set->mixture, scratch->points + (size_t)i * dim);
}

static uint32_t list_all(struct mask_set_scratch *scratch, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		scratch->images[i] = i;
	return n;
}

/* Those that an expert is asked about. */
static uint32_t list_of(
	const struct mask_set *set, struct mask_set_scratch *scratch, uint32_t expert, uint32_t n)
{
	uint32_t n_own = 0;

	for (uint32_t i = 0; i < n; i++)
		if (set->mode == CASCADE_UNCONDITIONAL || scratch->owners[i] == expert)
			scratch->images[n_own++] = i;
	return n_own;
}

/* What mask m says of the listed images, into its columns. */
static int ask(const struct mask_set *set, struct mask_set_scratch *scratch,
	const struct mask_set_eye *eye, uint32_t m, uint32_t n)
{
	size_t width = set->width, stride = (1 + set->n_experts) * width;
	int r;

	if (n == 0)
		return 0;
	r = eye->look(eye->owner, m, scratch->images, n, scratch->own);
	for (uint32_t i = 0; r >= 0 && i < n; i++)
		memcpy(scratch->rows + scratch->images[i] * stride + m * width,
			scratch->own + i * width, width * sizeof(float));
	return r < 0 ? r : 0;
}

int mask_set_ask(const struct mask_set *set, struct mask_set_scratch *scratch,
	const struct mask_set_eye *eye, uint32_t n, float **ret_rows, const uint32_t **ret_owners)
{
	size_t stride = (1 + (size_t)set->n_experts) * set->width;
	int r;

	memset(scratch->rows, 0, n * stride * sizeof(float));
	r = ask(set, scratch, eye, 0, list_all(scratch, n));
	if (r < 0)
		return r;
	mask_set_route(set, scratch, scratch->own, n, scratch->owners);
	for (uint32_t c = 0; r >= 0 && c < set->n_experts; c++)
		r = ask(set, scratch, eye, 1 + c, list_of(set, scratch, c, n));
	if (r < 0)
		return r;
	*ret_rows = scratch->rows;
	*ret_owners = scratch->owners;
	return 0;
}

int mask_set_embed(float *embeddings, const struct mask_set *set, struct mask_set_scratch *scratch,
	const struct mask_set_eye *eye, uint32_t n)
{
	const uint32_t *owners;
	float *rows;
	int r;

	if (set->n_experts == 0) {
		r = eye->look(eye->owner, 0, scratch->images, list_all(scratch, n), embeddings);
		return r < 0 ? r : 0;
	}
	r = mask_set_ask(set, scratch, eye, n, &rows, &owners);
	if (r == 0)
		whiten_apply(set->fusion, rows, n, embeddings);
	return r;
}
