/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <string.h>

#include "model/vit_internal.h"

/* Of values: enough to be worth another thread. */
#define MANY ((size_t)1 << 15)

/* Keys' cubic convolution with a = -0.75 at distance x. */
static double cubic(double x)
{
	const double a = -0.75;

	x = fabs(x);
	if (x <= 1)
		return ((a + 2) * x - (a + 3)) * x * x + 1;
	if (x < 2)
		return ((a * x - 5 * a) * x + 8 * a) * x - 4 * a;
	return 0;
}

/* Four taps for output i of n_out from n_in samples, clamped at the border. */
static void taps_of(uint32_t i, uint32_t n_out, uint32_t n_in, uint32_t ret_at[4], double ret_w[4])
{
	double source = (i + 0.5) * n_in / n_out - 0.5;
	double first = floor(source);

	for (int t = 0; t < 4; t++) {
		double at = first + t - 1;

		ret_w[t] = cubic(source - at);
		ret_at[t] = (uint32_t)fmin(fmax(at, 0), n_in - 1.0);
	}
}

static void resample_position(const struct vit *vit, const float *table, uint32_t grid, uint32_t gy,
	uint32_t gx, float *dst)
{
	const uint32_t width = vit->shape.width, native = vit->shape.grid;
	const float *grid_rows = table + width;
	uint32_t y[4], x[4];
	double wy[4], wx[4];

	taps_of(gy, grid, native, y, wy);
	taps_of(gx, grid, native, x, wx);
	for (uint32_t d = 0; d < width; d++) {
		double sum = 0;

		for (int i = 0; i < 4; i++)
			for (int j = 0; j < 4; j++)
				sum += wy[i] * wx[j] *
				       grid_rows[((size_t)y[i] * native + x[j]) * width + d];
		dst[d] = (float)sum;
	}
}

void vit_positions_of(const struct vit *vit, const float *table, uint32_t grid, float *dst)
{
	const uint32_t width = vit->shape.width;

	for (uint32_t d = 0; d < width; d++)
		dst[d] = vit->class_token[d] + table[d];
	if (grid == vit->shape.grid) {
		memcpy(dst + width, table + width, (size_t)grid * grid * width * sizeof(float));
		return;
	}
	for (uint32_t y = 0; y < grid; y++)
		for (uint32_t x = 0; x < grid; x++)
			resample_position(
				vit, table, grid, y, x, dst + (1 + (size_t)y * grid + x) * width);
}

void vit_positions(const struct vit *vit, uint32_t grid, float *dst)
{
	vit_positions_of(vit, vit->positions, grid, dst);
}

/* The way back of resample_position(): what one place of the grid says about the native ones. */
static void spread_position(
	const struct vit *vit, uint32_t grid, uint32_t gy, uint32_t gx, const float *d, float *grad)
{
	const uint32_t width = vit->shape.width, native = vit->shape.grid;
	uint32_t y[4], x[4];
	double wy[4], wx[4];

	taps_of(gy, grid, native, y, wy);
	taps_of(gx, grid, native, x, wx);
	for (int i = 0; i < 4; i++)
		for (int j = 0; j < 4; j++) {
			float *dst = grad + (1 + (size_t)y[i] * native + x[j]) * width;
			const float w = (float)(wy[i] * wx[j]);

			for (uint32_t k = 0; k < width; k++)
				dst[k] += w * d[k];
		}
}

void vit_positions_grad(const struct vit *vit, uint32_t grid, const float *d, float *grad)
{
	const uint32_t width = vit->shape.width;
	const size_t n = (1 + (size_t)grid * grid) * width;

	if (grid == vit->shape.grid) {
		for (size_t i = 0; i < n; i++)
			grad[i] += d[i];
		return;
	}
	for (uint32_t i = 0; i < width; i++)
		grad[i] += d[i];
	for (uint32_t i = 0; i < grid * grid; i++)
		spread_position(vit, grid, i / grid, i % grid, d + (1 + (size_t)i) * width, grad);
}

/* One row of pixels to the patches that it runs through. */
static void cut_row(const struct vit_shape *shape, uint32_t grid, const float *src, float *dst)
{
	for (uint32_t g = 0; g < grid; g++)
		memcpy(dst + g * vit_patch_values(shape), src + (size_t)g * shape->patch,
			shape->patch * sizeof(float));
}

void vit_columns(const struct vit_shape *shape, uint32_t n, uint32_t px, const float *pixels,
	enum precision precision, void *dst)
{
	const uint32_t patch = shape->patch, grid = px / patch;
	const size_t n_tokens = 1 + (size_t)grid * grid;
	const size_t n_values = vit_patch_values(shape);
	kern_cut_row_fn *cut = kern_row_fastest()->cut;

	/* Over planes of rows of patches: (n, grid, 3) */
#pragma omp parallel for schedule(static) if ((size_t)n * px * px > MANY)
	for (size_t i = 0; i < (size_t)n * grid * 3; i++) {
		const size_t image = i / 3 / grid, gy = i / 3 % grid, c = i % 3;
		const size_t token = image * n_tokens + 1 + gy * grid;
		const size_t at = token * n_values + c * patch * patch;
		const float *src = pixels + ((image * 3 + c) * px + gy * patch) * px;

		for (uint32_t y = 0; y < patch; y++, src += px)
			if (precision == PRECISION_BF16)
				cut((bf16 *)dst + at + (size_t)y * patch, src, patch, grid,
					n_values);
			else
				cut_row(shape, grid, src, (float *)dst + at + (size_t)y * patch);
	}
}

void vit_columns_of(const struct vit_shape *shape, uint32_t n, uint32_t px, const float *pixels,
	const uint32_t *kept, uint32_t n_kept, enum precision precision, void *dst)
{
	const uint32_t patch = shape->patch, grid = px / patch;
	const size_t n_values = vit_patch_values(shape);
	kern_cut_row_fn *cut = kern_row_fastest()->cut;

	/* Over planes of patches: (n, n_kept, 3) */
#pragma omp parallel for schedule(static) if ((size_t)n * n_kept * n_values > MANY)
	for (size_t i = 0; i < (size_t)n * n_kept * 3; i++) {
		const size_t row = i / 3, image = row / n_kept, c = i % 3;
		const uint32_t gy = kept[row] / grid, gx = kept[row] % grid;
		const size_t at = (row + image + 1) * n_values + c * patch * patch;
		const float *src = pixels + ((image * 3 + c) * px + (size_t)gy * patch) * px +
				   (size_t)gx * patch;

		for (uint32_t y = 0; y < patch; y++, src += px)
			if (precision == PRECISION_BF16)
				cut((bf16 *)dst + at + (size_t)y * patch, src, patch, 1, n_values);
			else
				memcpy((float *)dst + at + (size_t)y * patch, src,
					patch * sizeof(float));
	}
}

void vit_add_positions(const struct vit_shape *shape, uint32_t n, uint32_t n_tokens,
	const float *positions, const uint32_t *kept, float *tokens)
{
	const size_t row = shape->width;

#pragma omp parallel for schedule(static) if ((size_t)n * n_tokens * row > MANY)
	for (size_t i = 0; i < (size_t)n * n_tokens; i++) {
		const size_t t = i % n_tokens;
		/* Each image before and this one have a class token, which is not kept but there. */
		const size_t at = kept && t ? 1 + kept[i - i / n_tokens - 1] : t;

		if (t == 0)
			memcpy(tokens + i * row, positions, row * sizeof(float));
		else
			row_add(tokens + i * row, positions + at * row, row);
	}
}
