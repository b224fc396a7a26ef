/* SPDX-License-Identifier: Apache-2.0 */
#include "cascade/whiten.h"

void whiten_apply(const struct whiten *whiten, const float *rows, uint32_t n, float *out)
{
	uint32_t n_in = whiten->n_in;

	/* One row alone is shared out as well: it is what an answer waits for. */
#pragma omp parallel for collapse(2) schedule(static)
	for (uint32_t i = 0; i < n; i++)
		for (uint32_t k = 0; k < whiten->n_out; k++) {
			const float *row = rows + (size_t)i * n_in;
			const float *axis = whiten->axes + (size_t)k * n_in;
			double sum = 0;

			for (uint32_t j = 0; j < n_in; j++)
				sum += (double)(row[j] - whiten->mean[j]) * (double)axis[j];
			out[(size_t)i * whiten->n_out + k] = (float)sum;
		}
}
