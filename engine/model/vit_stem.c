/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "model/vit_internal.h"

/* Keeps every count of elements far from overflow; larger images than this are cut up before. */
enum { MAX_PX = 4096, MAX_TOKENS = 1 << 24 };

int vit_stem_size(struct vit_stem *stem, const struct vit *vit, uint32_t n, uint32_t px,
	enum precision precision)
{
	if (n == 0 || n > VIT_MAX_BATCH || px == 0 || px > MAX_PX || vit->shape.patch == 0 ||
		px % vit->shape.patch)
		return -EINVAL;
	stem->n = n;
	stem->precision = precision;
	stem->px = px;
	stem->grid = px / vit->shape.patch;
	stem->n_tokens = 1 + stem->grid * stem->grid;
	return (uint64_t)n * stem->n_tokens > MAX_TOKENS ? -EINVAL : 0;
}

int vit_stem_of_tokens(
	struct vit_stem *stem, uint32_t n, uint32_t n_tokens, enum precision precision)
{
	if (n == 0 || n > VIT_MAX_BATCH || n_tokens == 0 || (uint64_t)n * n_tokens > MAX_TOKENS)
		return -EINVAL;
	stem->n = n;
	stem->n_tokens = n_tokens;
	stem->precision = precision;
	return 0;
}

bool vit_stem_is_whole(const struct vit_stem *stem)
{
	const size_t n_kept = stem->kept ? (size_t)stem->n * (stem->n_tokens - 1) : 0;

	for (size_t i = 0; i < n_kept; i++)
		if (stem->kept[i] >= stem->grid * stem->grid)
			return false;
	return true;
}

void vit_stem_carve(struct vit_stem *stem, const struct vit *vit, struct vit_carver *carver)
{
	const size_t width = vit->shape.width;
	const size_t rows = (size_t)stem->n * stem->n_tokens;
	const size_t n_positions = 1 + (size_t)stem->grid * stem->grid;

	if (!stem->borrows)
		stem->input = vit_carve(carver, (size_t)stem->n * 3 * stem->px * stem->px);
	stem->columns = vit_carve_in(carver, rows * vit_patch_values(&vit->shape), stem->precision);
	stem->positions = vit_carve(carver, n_positions * width);
}

int vit_stem_init(struct vit_stem *stem, const struct vit *vit)
{
	const int64_t rows = (int64_t)stem->n * stem->n_tokens;
	const int64_t width = vit->shape.width;
	const struct packed *packed = vit->patches[stem->precision];
	int r;

	if (!packed)
		return -EOPNOTSUPP;
	r = op_matmul_new(&stem->patch, vit->onednn,
		&(struct op_matmul){
			.src = view_in(view_2d(rows, (int64_t)vit_patch_values(&vit->shape)),
				stem->precision),
			.packed = packed,
			.dst = view_2d(rows, width),
			.bias = true,
		});
	if (r < 0)
		return r;

	op_bind(stem->patch, OP_SRC, stem->columns);
	op_use(stem->patch, packed);
	op_bind(stem->patch, OP_BIAS, vit->patch_bias);
	vit_positions(vit, stem->grid, stem->positions);
	return 0;
}

void vit_stem_done(struct vit_stem *stem)
{
	op_free(stem->patch);
}

/* Index of the row's patch in its image's grid. */
static size_t patch_at(const struct vit_stem *stem, size_t row, uint32_t n_rows)
{
	return stem->kept ? stem->kept[row] : row % n_rows;
}

static void replace(const struct vit_stem *stem, const struct vit *vit, float *tokens)
{
	const uint32_t n_rows = stem->n_tokens - 1;
	const size_t width = vit->shape.width, n_patches = (size_t)stem->grid * stem->grid;

	for (size_t i = 0; i < (size_t)stem->n * n_rows; i++) {
		const size_t image = i / n_rows;

		if (stem->replaced[image * n_patches + patch_at(stem, i, n_rows)])
			memcpy(tokens + (i + image + 1) * width, stem->replacement,
				width * sizeof(float));
	}
}

int vit_stem_forward(struct vit_stem *stem, const struct vit *vit, float *tokens)
{
	const float *pixels = stem->pixels ? stem->pixels : stem->input;
	int r;

	/* Else they are what they were. */
	if (vit->params)
		vit_positions(vit, stem->grid, stem->positions);
	if (stem->kept)
		vit_columns_of(&vit->shape, stem->n, stem->px, pixels, stem->kept,
			stem->n_tokens - 1, stem->precision, stem->columns);
	else
		vit_columns(&vit->shape, stem->n, stem->px, pixels, stem->precision, stem->columns);
	op_bind(stem->patch, OP_DST, tokens);
	r = op_run(stem->patch);
	if (r < 0)
		return r;
	if (stem->replaced)
		replace(stem, vit, tokens);
	vit_add_positions(
		&vit->shape, stem->n, stem->n_tokens, stem->positions, stem->kept, tokens);
	return 0;
}
