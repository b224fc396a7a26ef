/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/heat.h"

#include <errno.h>
#include <fcntl.h>

#define N_LOADED 4u

struct loaded {
	struct digest mask;
	char path[512]; /* masks of two sites may be alike, what is hard there is not */
	struct hardness *hardness;
	uint64_t last;
};

struct heat {
	struct vit *vit; /* borrowed */
	struct loaded loaded[N_LOADED];
	uint64_t clock;
	float map[HARDNESS_MAX_GRID * HARDNESS_MAX_GRID];
};

int heat_new(struct heat **ret_heat, struct vit *vit)
{
	struct heat *heat = calloc(1, sizeof(*heat));

	if (!heat)
		return -ENOMEM;
	heat->vit = vit;
	*ret_heat = heat;
	return 0;
}

void heat_free(struct heat *heat)
{
	for (unsigned i = 0; heat && i < N_LOADED; i++)
		hardness_free(heat->loaded[i].hardness);
	free(heat);
}

uint32_t heat_shrink(float *out, const float *map, uint32_t side)
{
	const uint32_t step = (side + SHM_MAX_HARDNESS_SIDE - 1) / SHM_MAX_HARDNESS_SIDE;
	const uint32_t n = (side + step - 1) / step;

	/* In this order nothing is written over that is still to be read. */
	for (uint32_t i = 0; i < n * n; i++) {
		const uint32_t y0 = i / n * step, x0 = i % n * step;
		uint32_t n_cells = 0;
		double sum = 0;

		for (uint32_t y = y0; y < y0 + step && y < side; y++)
			for (uint32_t x = x0; x < x0 + step && x < side; x++, n_cells++)
				sum += (double)map[y * side + x];
		out[i] = (float)(sum / n_cells);
	}
	return n;
}

static int load(struct heat *heat, const struct serving *serving, struct hardness **ret_hardness)
{
	_cleanup_(hardness_freep) struct hardness *hardness = NULL;
	_cleanup_(freep) void *data = NULL;
	size_t n_bytes;
	int r;

	r = blob_read(AT_FDCWD, serving->hardness_path, HARDNESS_MAX_BYTES, &data, &n_bytes);
	if (r == 0)
		r = hardness_load(&hardness, heat->vit, data, n_bytes, NULL);
	if (r < 0)
		return r;
	if (!digest_equal(&hardness_info(hardness)->mask, &serving->set->id))
		return -EBADMSG;
	*ret_hardness = TAKE_PTR(hardness);
	return 0;
}

static int find(struct heat *heat, const struct serving *serving, struct hardness **ret_hardness)
{
	struct loaded *oldest = &heat->loaded[0];
	struct hardness *hardness = NULL;
	int r;

	for (unsigned i = 0; i < N_LOADED; i++) {
		struct loaded *l = &heat->loaded[i];

		if (l->hardness && digest_equal(&l->mask, &serving->set->id) &&
			strcmp(l->path, serving->hardness_path) == 0) {
			l->last = ++heat->clock;
			*ret_hardness = l->hardness;
			return 0;
		}
		if (l->last < oldest->last)
			oldest = l;
	}
	r = load(heat, serving, &hardness);
	if (r < 0)
		return r;
	hardness_free(oldest->hardness);
	*oldest = (struct loaded){
		.mask = serving->set->id, .hardness = hardness, .last = ++heat->clock
	};
	memcpy(oldest->path, serving->hardness_path, sizeof(oldest->path));
	*ret_hardness = hardness;
	return 0;
}

static const char *reason_of(int r)
{
	switch (r) {
	case -ENODATA:
	case -ENOENT:
		return "this version has no hardness map";
	case -EBADMSG:
	case -ESTALE:
	case -EFBIG:
		return "this version's hardness file is damaged, or another one's";
	default:
		return "the hardness map failed";
	}
}

int heat_of(struct heat *heat, const struct serving *serving, const float *tokens, uint32_t grid,
	float *values, uint32_t *ret_side, const char **ret_reason)
{
	struct hardness *hardness = NULL;
	int r;

	r = tokens && serving->hardness_path[0] ? find(heat, serving, &hardness) : -ENODATA;
	if (r == 0)
		r = hardness_map(hardness, tokens, 1, grid, heat->map);
	if (r < 0) {
		*ret_reason = reason_of(r);
		return r == -ENOENT ? -ENODATA : r == -ESTALE || r == -EFBIG ? -EBADMSG : r;
	}
	*ret_side = heat_shrink(values, heat->map, grid);
	return 0;
}
