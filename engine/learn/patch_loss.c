/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <string.h>

#include "learn/patch_loss.h"

/* Under the root of a variance, and in the logarithm of a probability. */
#define EPS 1e-6
/* Below it a row has no direction. */
#define MIN_LENGTH 1e-12

void patch_cut_one(float *dst, const float *pixels, uint32_t px, uint32_t patch, uint32_t index)
{
	const size_t grid = px / patch, plane = (size_t)px * px;
	const float *corner = pixels + index / grid * patch * px + index % grid * patch;

	for (uint32_t y = 0; y < patch; y++)
		for (uint32_t x = 0; x < patch; x++)
			for (unsigned c = 0; c < 3; c++)
				*dst++ = corner[c * plane + (size_t)y * px + x];
}

void patch_cut(float *dst, const float *pixels, uint32_t px, uint32_t patch)
{
	const uint32_t n_patches = (px / patch) * (px / patch);

	for (uint32_t i = 0; i < n_patches; i++)
		patch_cut_one(dst + (size_t)i * patch * patch * 3, pixels, px, patch, i);
}

struct moments {
	double mean, variance; /* unbiased; 0 of one value */
};

static struct moments moments_of(const float *values, uint32_t n)
{
	struct moments m = { 0, 0 };

	for (uint32_t i = 0; i < n; i++)
		m.mean += values[i];
	m.mean /= n;
	for (uint32_t i = 0; i < n; i++)
		m.variance += (values[i] - m.mean) * (values[i] - m.mean);
	m.variance /= n > 1 ? n - 1 : 1;
	return m;
}

void patch_normalise(float *rows, uint32_t n, uint32_t dim)
{
	for (uint32_t i = 0; i < n; i++, rows += dim) {
		const struct moments m = moments_of(rows, dim);
		const double factor = 1 / sqrt(m.variance + EPS);

		for (uint32_t j = 0; j < dim; j++)
			rows[j] = (float)((rows[j] - m.mean) * factor);
	}
}

double patch_loss(const struct patch_rows *rows, float *losses, float *d_predicted)
{
	const float scale = 2 / ((float)rows->n * (float)rows->dim);
	double total = 0;

	for (uint32_t i = 0; i < rows->n; i++) {
		const size_t at = (size_t)i * rows->dim;
		double sum = 0;

		for (uint32_t j = 0; j < rows->dim; j++) {
			float difference = rows->predicted[at + j] - rows->target[at + j];

			sum += (double)difference * difference;
			d_predicted[at + j] = scale * difference;
		}
		losses[i] = (float)(sum / rows->dim);
		total += sum / rows->dim;
	}
	return rows->n > 0 ? total / rows->n : 0;
}

static double length_of(const float *row, uint32_t dim)
{
	double sum = 0;

	for (uint32_t j = 0; j < dim; j++)
		sum += (double)row[j] * row[j];
	return fmax(sqrt(sum), MIN_LENGTH);
}

/* |a / |a| - b / |b||^2 and, scaled, its gradient by a: the distance is 2 - 2 cos. */
static double feature_row(const float *a, const float *b, uint32_t dim, double scale, float *d_a)
{
	const double of_a = length_of(a, dim), of_b = length_of(b, dim);
	double cosine = 0, sum = 0;

	for (uint32_t j = 0; j < dim; j++) {
		double difference = a[j] / of_a - b[j] / of_b;

		cosine += a[j] / of_a * b[j] / of_b;
		sum += difference * difference;
	}
	for (uint32_t j = 0; j < dim; j++)
		d_a[j] = (float)(scale * 2 / of_a * (cosine * a[j] / of_a - b[j] / of_b));
	return sum;
}

double patch_feature_loss(const struct patch_rows *rows, float *losses, float *d_predicted)
{
	double total = 0;

	for (uint32_t i = 0; i < rows->n; i++) {
		const size_t at = (size_t)i * rows->dim;
		double loss = feature_row(rows->predicted + at, rows->target + at, rows->dim,
			1. / rows->n, d_predicted + at);

		losses[i] = (float)loss;
		total += loss;
	}
	return rows->n > 0 ? total / rows->n : 0;
}

double patch_guess(const struct patch_rows *rows)
{
	double sum = 0;

	for (uint32_t j = 0; j < rows->dim; j++) {
		double mean = 0, squares = 0;

		for (uint32_t i = 0; i < rows->n; i++) {
			const double value = rows->target[(size_t)i * rows->dim + j];

			mean += value / rows->n;
			squares += value * value / rows->n;
		}
		sum += squares - mean * mean;
	}
	return fmax(sum / rows->dim, 0) + EPS;
}

/* Rows of length 1 are 2 - 2 cos from a direction: the nearest to all of them is their mean's. */
double patch_feature_guess(const struct patch_rows *rows, float *scratch)
{
	memset(scratch, 0, rows->dim * sizeof(*scratch));
	for (uint32_t i = 0; i < rows->n; i++) {
		const float *row = rows->target + (size_t)i * rows->dim;
		const double share = 1 / (length_of(row, rows->dim) * rows->n);

		for (uint32_t j = 0; j < rows->dim; j++)
			scratch[j] += (float)(share * row[j]);
	}
	return fmax(2 - 2 * length_of(scratch, rows->dim), 0) + EPS;
}

static uint64_t count_pairs(const float *losses, uint32_t n)
{
	uint64_t n_pairs = 0;

	for (uint32_t i = 0; i < n; i++)
		for (uint32_t j = i + 1; j < n; j++)
			n_pairs += losses[i] != losses[j];
	return n_pairs;
}

/* All pairs of one image: the sum of -log(sigmoid(s) + EPS), s the lead of the harder patch. */
static double rank_image(
	const float *predicted, const float *losses, uint32_t n, double share, float *d_predicted)
{
	double sum = 0;

	for (uint32_t i = 0; i < n; i++)
		for (uint32_t j = i + 1; j < n; j++) {
			const uint32_t harder = losses[j] > losses[i] ? j : i;
			const uint32_t easier = harder == j ? i : j;
			const double s = (double)predicted[harder] - predicted[easier];
			const double p = 1 / (1 + exp(-s));
			const double d = share * p * (1 - p) / (p + EPS);

			if (losses[i] == losses[j])
				continue;
			sum -= log(p + EPS);
			d_predicted[harder] -= (float)d;
			d_predicted[easier] += (float)d;
		}
	return sum;
}

double patch_rank_loss(const struct patch_ranks *ranks, float *d_predicted)
{
	uint64_t n_pairs = 0;
	double sum = 0;

	memset(d_predicted, 0, (size_t)ranks->n_images * ranks->n * sizeof(*d_predicted));
	for (uint32_t b = 0; b < ranks->n_images; b++)
		n_pairs += count_pairs(ranks->losses + (size_t)b * ranks->n, ranks->n);
	/* Fewer than two distinct losses in every image: 0 / 0. */
	if (n_pairs == 0)
		return 0;
	for (uint32_t b = 0; b < ranks->n_images; b++) {
		const size_t at = (size_t)b * ranks->n;

		sum += rank_image(ranks->predicted + at, ranks->losses + at, ranks->n,
			1. / (double)n_pairs, d_predicted + at);
	}
	return sum / (double)n_pairs;
}

double patch_score_loss(const struct patch_ranks *ranks, float *d_predicted)
{
	const size_t n = (size_t)ranks->n_images * ranks->n;
	double sum = 0;

	for (uint32_t b = 0; b < ranks->n_images; b++) {
		const size_t at = (size_t)b * ranks->n;
		const struct moments m = moments_of(ranks->losses + at, ranks->n);

		for (uint32_t i = 0; i < ranks->n; i++) {
			double z = (ranks->losses[at + i] - m.mean) / sqrt(m.variance + EPS);
			double difference = ranks->predicted[at + i] - z;

			sum += difference * difference;
			d_predicted[at + i] = (float)(2 * difference / (double)n);
		}
	}
	return n > 0 ? sum / (double)n : 0;
}

double patch_rank_guess(void)
{
	return -log(.5 + EPS);
}

/* z-scores by the unbiased variance: their squares sum to n - 1. */
double patch_score_guess(uint32_t n)
{
	return n > 0 ? (double)(n - 1) / n : 0;
}
