/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "model/row_bf16.h"
#include "model/vit_internal.h"

void vit_stem_grad_carve(struct vit_stem_grad *grad, const struct vit_stem *stem,
	const struct vit *vit, struct vit_carver *carver)
{
	const size_t width = vit->shape.width;

	grad->d = vit_carve_in(carver, (size_t)stem->n * stem->n_tokens * width, stem->precision);
	grad->positions = vit_carve(carver, (1 + (size_t)stem->grid * stem->grid) * width);
}

int vit_stem_grad_init(
	struct vit_stem_grad *grad, const struct vit_stem *stem, const struct vit *vit)
{
	const int64_t rows = (int64_t)stem->n * stem->n_tokens, width = vit->shape.width;
	const int64_t n_values = (int64_t)vit_patch_values(&vit->shape);

	return op_matmul_new(&grad->weight, vit->onednn,
		&(struct op_matmul){
			.src = vit_view_transposed(view_in(view_2d(rows, width), stem->precision)),
			.weights = view_in(view_2d(rows, n_values), stem->precision),
			.dst = view_2d(width, n_values),
			.then = OP_THEN_ADD,
		});
}

void vit_stem_grad_done(struct vit_stem_grad *grad)
{
	op_free(grad->weight);
}

/* Where a token's patch lies, the class token at 0. */
static size_t place_of(const struct vit_stem *stem, size_t token)
{
	const size_t image = token / stem->n_tokens, t = token % stem->n_tokens;

	if (t == 0 || !stem->kept)
		return t;
	return 1 + stem->kept[image * (stem->n_tokens - 1) + t - 1];
}

/* Whether what entered there came from pixels. */
static bool is_patch(const struct vit_stem *stem, size_t token)
{
	const size_t image = token / stem->n_tokens, place = place_of(stem, token);
	const size_t n_patches = (size_t)stem->grid * stem->grid;

	return place > 0 && !(stem->replaced && stem->replaced[image * n_patches + place - 1]);
}

static void copy_row(
	void *dst, size_t at, const float *src, size_t n, enum precision precision, bool is_wanted)
{
	void *row = (char *)dst + at * n * precision_bytes(precision);

	if (!is_wanted)
		memset(row, 0, n * precision_bytes(precision));
	else if (precision == PRECISION_F32)
		memcpy(row, src, n * sizeof(*src));
	else
		for (size_t i = 0; i < n; i++)
			((bf16 *)row)[i] = bf16_narrow(src[i]);
}

void vit_places_grad(const struct vit_stem *stem, const struct vit *vit, const float *table,
	const float *d_tokens, float *places, float *grad)
{
	const size_t width = vit->shape.width, n = (size_t)stem->n * stem->n_tokens;
	const size_t n_places = 1 + (size_t)stem->grid * stem->grid;

	memset(places, 0, n_places * width * sizeof(float));
	for (size_t i = 0; i < n; i++)
		row_add(places + place_of(stem, i) * width, d_tokens + i * width, width);
	row_add(vit_grad_of(vit, grad, vit->class_token), places, width);
	vit_positions_grad(vit, stem->grid, places, vit_grad_of(vit, grad, table));
}

int vit_stem_backward(struct vit_stem_grad *stem_grad, const struct vit_stem *stem,
	const struct vit *vit, const float *d_tokens, float *grad)
{
	const size_t width = vit->shape.width, n = (size_t)stem->n * stem->n_tokens;

	for (size_t i = 0; i < n; i++)
		copy_row(stem_grad->d, i, d_tokens + i * width, width, stem->precision,
			is_patch(stem, i));
	vit_places_grad(stem, vit, vit->positions, d_tokens, stem_grad->positions, grad);
	row_column_sums(
		vit_grad_of(vit, grad, vit->patch_bias), stem_grad->d, n, width, stem->precision);
	return op_run_on(stem_grad->weight, stem_grad->d, stem->columns,
		vit_grad_of(vit, grad, vit->patch_weight));
}
