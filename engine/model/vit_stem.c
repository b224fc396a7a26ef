/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "model/vit_internal.h"

/* Keeps every count of elements far from overflow; larger images than this are cut up before. */
enum { MAX_PX = 4096, MAX_BATCH = 65536, MAX_TOKENS = 1 << 24 };

int vit_stem_size(struct vit_stem *stem, const struct vit *vit, uint32_t n, uint32_t px,
	enum precision precision)
{
	if (n == 0 || n > MAX_BATCH || px == 0 || px > MAX_PX || px % vit->shape.patch)
		return -EINVAL;
	stem->n = n;
	stem->precision = precision;
	stem->px = px;
	stem->grid = px / vit->shape.patch;
	stem->n_tokens = 1 + stem->grid * stem->grid;
	return (uint64_t)n * stem->n_tokens > MAX_TOKENS ? -EINVAL : 0;
}

void vit_stem_carve(struct vit_stem *stem, const struct vit *vit, struct vit_carver *carver)
{
	const size_t width = vit->shape.width;
	const size_t rows = (size_t)stem->n * stem->n_tokens;

	stem->input = vit_carve(carver, (size_t)stem->n * 3 * stem->px * stem->px);
	stem->columns = vit_carve_in(carver, rows * vit_patch_values(&vit->shape), stem->precision);
	stem->positions = vit_carve(carver, stem->n_tokens * width);
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

int vit_stem_forward(struct vit_stem *stem, const struct vit *vit, float *tokens)
{
	int r;

	vit_columns(&vit->shape, stem->n, stem->px, stem->input, stem->precision, stem->columns);
	op_bind(stem->patch, OP_DST, tokens);
	r = op_run(stem->patch);
	if (r < 0)
		return r;
	vit_add_positions(&vit->shape, stem->n, stem->n_tokens, stem->positions, tokens);
	return 0;
}
