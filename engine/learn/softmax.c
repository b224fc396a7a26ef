/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>

#include "learn/softmax.h"

double softmax_row(float *p, const float *o, uint32_t k, float temperature)
{
	float top = o[0];
	double sum = 0;

	for (uint32_t j = 1; j < k; j++)
		top = fmaxf(top, o[j]);
	for (uint32_t j = 0; j < k; j++) {
		p[j] = expf((o[j] - top) / temperature);
		sum += p[j];
	}
	for (uint32_t j = 0; j < k; j++)
		p[j] = (float)(p[j] / sum);
	return (double)top / temperature + log(sum);
}
