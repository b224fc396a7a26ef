/* SPDX-License-Identifier: Apache-2.0 */
#include "windows.h"

#include <math.h>

struct samples *windows_begin(struct windows *windows)
{
	struct samples *window = &windows->kept[windows->n % WINDOWS_N];

	samples_done(window);
	return window;
}

void windows_end(struct windows *windows)
{
	windows->n++;
}

bool windows_agree(struct windows *windows)
{
	double least = INFINITY, most = 0;

	if (windows->n < WINDOWS_N)
		return false;
	for (unsigned i = 0; i < WINDOWS_N; i++) {
		double p50 = samples_percentile(&windows->kept[i], .5);

		/* An empty window agrees with none. */
		if (isnan(p50))
			return false;
		least = fmin(least, p50);
		most = fmax(most, p50);
	}
	return most <= least * (1 + windows->tolerance);
}

int windows_merge(const struct windows *windows, struct samples *into)
{
	int r = 0;

	for (unsigned i = 0; i < WINDOWS_N && r == 0; i++)
		r = samples_merge(into, &windows->kept[i]);
	return r;
}

void windows_done(struct windows *windows)
{
	for (unsigned i = 0; i < WINDOWS_N; i++)
		samples_done(&windows->kept[i]);
}
