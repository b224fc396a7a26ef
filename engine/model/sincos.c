/* SPDX-License-Identifier: Apache-2.0 */
#include "model/sincos.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

static void waves(float *dst, uint32_t n, double at)
{
	for (uint32_t i = 0; i < n / 2; i++) {
		double angle = at / pow(10000, 2. * i / n);

		dst[i] = (float)sin(angle);
		dst[n / 2 + i] = (float)cos(angle);
	}
}

void sincos_positions_like(float *dst, uint32_t width, uint32_t grid, uint32_t other)
{
	const double scale = (double)other / grid;

	memset(dst, 0, width * sizeof(*dst));
	for (uint32_t i = 0; i < grid * grid; i++) {
		float *row = dst + (size_t)(1 + i) * width;

		waves(row, width / 2, (i % grid + .5) * scale - .5);
		waves(row + width / 2, width / 2, (i / grid + .5) * scale - .5);
	}
}

void sincos_positions(float *dst, uint32_t width, uint32_t grid)
{
	sincos_positions_like(dst, width, grid, grid);
}
