/* SPDX-License-Identifier: Apache-2.0 */
#include "samples.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

int samples_add(struct samples *samples, double value)
{
	if (samples->n == samples->room) {
		size_t room = samples->room ? 2 * samples->room : 1024;
		double *values = realloc(samples->values, room * sizeof(*values));

		if (!values)
			return -ENOMEM;
		samples->values = values;
		samples->room = room;
	}
	samples->values[samples->n++] = value;
	return 0;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

double samples_percentile(struct samples *samples, double p)
{
	size_t rank;

	if (samples->n == 0)
		return NAN;
	qsort(samples->values, samples->n, sizeof(*samples->values), compare);
	rank = (size_t)ceil(p * (double)samples->n);
	return samples->values[rank ? rank - 1 : 0];
}

void samples_done(struct samples *samples)
{
	free(samples->values);
	*samples = (struct samples){ 0 };
}

int samples_merge(struct samples *into, const struct samples *from)
{
	int r = 0;

	for (size_t i = 0; i < from->n && r == 0; i++)
		r = samples_add(into, from->values[i]);
	return r;
}
