/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <string.h>

#include "learn/micm_mask.h"

#define LEAST_SHARE .1f
#define LEAST_ASPECT .3f
#define N_TRIES 10u

struct block {
	uint32_t top, left, height, width;
};

uint32_t micm_mask_count(struct rng *rng, uint32_t n, float most)
{
	bool none = rng_uniform(rng) < .5f;
	float share = rng_range(rng, fminf(LEAST_SHARE, most), most);

	return none ? 0 : (uint32_t)(share * (float)n);
}

/* @return false: it would cover a whole side of the grid */
static bool draw_block(struct rng *rng, uint32_t grid, uint32_t most, struct block *ret_block)
{
	float area = rng_range(rng, (float)((grid / 3) * (grid / 3)), (float)most);
	float aspect = expf(rng_range(rng, logf(LEAST_ASPECT), -logf(LEAST_ASPECT)));
	struct block block = {
		.height = (uint32_t)lroundf(sqrtf(area * aspect)),
		.width = (uint32_t)lroundf(sqrtf(area / aspect)),
	};

	if (block.height >= grid || block.width >= grid)
		return false;
	block.top = rng_below(rng, grid - block.height + 1);
	block.left = rng_below(rng, grid - block.width + 1);
	*ret_block = block;
	return true;
}

/* How many of its patches are not masked yet; those are masked if `fill`. */
static uint32_t visit(bool *masked, uint32_t grid, const struct block *block, bool fill)
{
	uint32_t n = 0;

	for (uint32_t y = block->top; y < block->top + block->height; y++)
		for (uint32_t x = block->left; x < block->left + block->width; x++) {
			bool *patch = masked + (size_t)y * grid + x;

			n += !*patch;
			*patch |= fill;
		}
	return n;
}

/* @return how many more are masked, most or fewer; 0: no block fitted */
static uint32_t add_block(struct rng *rng, uint32_t grid, uint32_t most, bool *masked)
{
	for (uint32_t i = 0; i < N_TRIES; i++) {
		struct block block;
		uint32_t n;

		if (!draw_block(rng, grid, most, &block))
			continue;
		n = visit(masked, grid, &block, false);
		if (n > 0 && n <= most)
			return visit(masked, grid, &block, true);
	}
	return 0;
}

static void add_single(struct rng *rng, uint32_t n_patches, uint32_t n_masked, bool *masked)
{
	uint32_t nth = rng_below(rng, n_patches - n_masked);

	for (uint32_t i = 0; i < n_patches; i++)
		if (!masked[i] && nth-- == 0) {
			masked[i] = true;
			return;
		}
}

void micm_mask_draw(struct rng *rng, uint32_t grid, uint32_t count, bool *masked)
{
	const uint32_t n_patches = grid * grid;
	uint32_t n = 0, more = 1;

	memset(masked, 0, n_patches * sizeof(*masked));
	while (n < count && more > 0) {
		more = add_block(rng, grid, count - n, masked);
		n += more;
	}
	for (; n < count; n++)
		add_single(rng, n_patches, n, masked);
}
