/* SPDX-License-Identifier: Apache-2.0 */
#include "classify/unknown.h"

#include <errno.h>
#include <math.h>

/* A larger one tells fewer known images off and lets more strange ones in. */
#define TRAFFIC_SPREADS 2.1
/* Traffic may be of one class mostly, or of none: supports say between what limits it counts. */
#define SUPPORTS_LEAST 1
#define SUPPORTS_MOST 4
/* Of a normal distribution, a standard deviation over the median of absolute deviations. */
#define MAD_TO_DEVIATION 1.4826

static int by_value(const void *a, const void *b)
{
	const float x = *(const float *)a, y = *(const float *)b;

	return (x > y) - (x < y);
}

static double median(float *values, uint32_t n)
{
	qsort(values, n, sizeof(*values), by_value);
	return ((double)values[(n - 1) / 2] + (double)values[n / 2]) / 2;
}

/* Half of what passes may be unknown without moving it far. */
static double usual_of_traffic(float *distances, uint32_t n)
{
	const double middle = median(distances, n);

	for (uint32_t i = 0; i < n; i++)
		distances[i] = fabsf(distances[i] - (float)middle);
	return middle + TRAFFIC_SPREADS * MAD_TO_DEVIATION * median(distances, n);
}

struct spread {
	double mean, deviation;
};

static struct spread spread_of(const float *distances, int n)
{
	double sum = 0, squares = 0;

	for (int i = 0; i < n; i++)
		sum += (double)distances[i];
	for (int i = 0; i < n; i++)
		squares += pow((double)distances[i] - sum / n, 2);
	return (struct spread){ sum / n, sqrt(squares / (n - 1)) };
}

/* Of a few left-out supports the deviation is itself hardly known: the middle of the limits. */
static double combine(const struct unknown *unknown, struct spread supports, double traffic)
{
	const double least = supports.mean + SUPPORTS_LEAST * supports.deviation;
	const double most = supports.mean + SUPPORTS_MOST * supports.deviation;

	if (unknown->n_supports == 0)
		return traffic;
	if (unknown->n_traffic == 0)
		return (least + most) / 2;
	return fmin(fmax(traffic, least), most);
}

int unknown_calibrate(struct unknown *ret_unknown, const struct prototypes *prototypes,
	const float *supports, const uint32_t *labels, uint32_t n, const float *traffic,
	uint32_t n_traffic)
{
	_cleanup_(freep) float *distances = malloc(((size_t)n + n_traffic + 1) * sizeof(float));
	struct unknown unknown = { .threshold = NAN };
	struct spread spread = { 0 };
	double usual = NAN;
	int n_left;

	if (!distances)
		return -ENOMEM;
	n_left = prototypes_leave_one_out(prototypes, supports, labels, n, distances);
	if (n_left < 0)
		return n_left;
	if (n_left >= (int)UNKNOWN_MIN_SUPPORTS) {
		unknown.n_supports = (uint32_t)n_left;
		spread = spread_of(distances, n_left);
	}
	if (n_traffic >= UNKNOWN_MIN_TRAFFIC) {
		unknown.n_traffic = n_traffic;
		for (uint32_t i = 0; i < n_traffic; i++)
			distances[i] = prototypes_classify(
				prototypes, traffic + (size_t)i * prototypes->dim, NULL)
					       .distance;
		usual = usual_of_traffic(distances, n_traffic);
	}
	if (unknown.n_supports > 0 || unknown.n_traffic > 0)
		unknown.threshold = (float)combine(&unknown, spread, usual);
	*ret_unknown = unknown;
	return 0;
}

float unknown_score(const struct unknown *unknown, float distance)
{
	if (isnan(unknown->threshold))
		return NAN;
	distance = fmaxf(distance, 0);
	return distance > 0 ? distance / (distance + fmaxf(unknown->threshold, 0)) : 0;
}
