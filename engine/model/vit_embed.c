/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <string.h>

#include "model/vit_internal.h"

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

static void resample_position(
	const struct vit *vit, uint32_t grid, uint32_t gy, uint32_t gx, float *dst)
{
	const uint32_t width = vit->shape.width, native = vit->shape.grid;
	const float *grid_rows = vit->positions + width;
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

void vit_positions(const struct vit *vit, uint32_t grid, float *dst)
{
	const uint32_t width = vit->shape.width;

	for (uint32_t d = 0; d < width; d++)
		dst[d] = vit->class_token[d] + vit->positions[d];
	if (grid == vit->shape.grid) {
		memcpy(dst + width, vit->positions + width,
			(size_t)grid * grid * width * sizeof(float));
		return;
	}
	for (uint32_t y = 0; y < grid; y++)
		for (uint32_t x = 0; x < grid; x++)
			resample_position(
				vit, grid, y, x, dst + (1 + (size_t)y * grid + x) * width);
}

static void cut_patch(
	const struct vit_shape *shape, uint32_t px, const float *corner, float *restrict dst)
{
	for (unsigned c = 0; c < 3; c++)
		for (uint32_t y = 0; y < shape->patch; y++) {
			memcpy(dst, corner + ((size_t)c * px + y) * px,
				shape->patch * sizeof(float));
			dst += shape->patch;
		}
}

void vit_columns(
	const struct vit_shape *shape, uint32_t n, uint32_t px, const float *pixels, float *dst)
{
	const uint32_t grid = px / shape->patch;

	for (uint32_t i = 0; i < n; i++)
		for (uint32_t gy = 0; gy < grid; gy++)
			for (uint32_t gx = 0; gx < grid; gx++) {
				cut_patch(shape, px,
					pixels + (size_t)3 * px * px * i +
						(size_t)gy * shape->patch * px +
						(size_t)gx * shape->patch,
					dst);
				dst += vit_patch_values(shape);
			}
}

void vit_tokens(const struct vit_shape *shape, uint32_t n, uint32_t grid, const float *patches,
	const float *positions, float *tokens)
{
	const size_t row = shape->width, rest = (size_t)grid * grid * row;

	for (uint32_t i = 0; i < n; i++) {
		memcpy(tokens, positions, row * sizeof(float));
		for (size_t j = 0; j < rest; j++)
			tokens[row + j] = patches[j] + positions[row + j];
		tokens += row + rest;
		patches += rest;
	}
}
