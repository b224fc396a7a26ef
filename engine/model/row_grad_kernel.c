/* SPDX-License-Identifier: Apache-2.0 */

/* Compiled once per instruction set (KERN_ISA); the compiler does the vectorising. */
#include <math.h>
#include <string.h>

#include "model/row_bf16.h"
#include "model/row_grad.h"

#define PASTE(a, b) a##b
#define NAME(stem, isa) PASTE(stem, isa)

#define LANES 16u

/* The order of a sum is the same on every vector width. */
static inline float lane_sum(const float *lane)
{
	float sum = 0;

	for (unsigned j = 0; j < LANES; j++)
		sum += lane[j];
	return sum;
}

void NAME(kern_norm_grad_row_, KERN_ISA)(
	const struct norm_grad_row *row, const float *restrict gamma, size_t n)
{
	const float *dy = row->dy, *x = row->x, *residual = row->residual;
	const float mean = row->mean, inverse = row->inverse;
	float lane[LANES] = { 0 }, along[LANES] = { 0 }, shift, slope;
	float *dst = row->dst;
	size_t i = 0;

	for (; i + LANES <= n; i += LANES)
		for (unsigned j = 0; j < LANES; j++) {
			float d = dy[i + j] * gamma[i + j];

			lane[j] += d;
			along[j] += d * (x[i + j] - mean);
		}
	for (; i < n; i++) {
		float d = dy[i] * gamma[i];

		lane[0] += d;
		along[0] += d * (x[i] - mean);
	}
	shift = lane_sum(lane) / (float)n;
	slope = lane_sum(along) / (float)n * inverse * inverse;

	/* Where dst is residual, one by one is right too. */
	if (residual) {
#pragma omp simd
		for (i = 0; i < n; i++)
			dst[i] = residual[i] +
				 inverse * (dy[i] * gamma[i] - shift - (x[i] - mean) * slope);
	} else {
#pragma omp simd
		for (i = 0; i < n; i++)
			dst[i] = inverse * (dy[i] * gamma[i] - shift - (x[i] - mean) * slope);
	}
	if (row->rounded) {
		bf16 *restrict rounded = row->rounded;

		for (i = 0; i < n; i++)
			rounded[i] = bf16_narrow(dst[i]);
	}
}

void NAME(kern_softmax_grad_row_, KERN_ISA)(bf16 *restrict d, const bf16 *restrict p, size_t n)
{
	float lane[LANES] = { 0 }, dot;
	size_t i = 0;

	for (; i + LANES <= n; i += LANES)
		for (unsigned j = 0; j < LANES; j++)
			lane[j] += bf16_widen(d[i + j]) * bf16_widen(p[i + j]);
	for (; i < n; i++)
		lane[0] += bf16_widen(d[i]) * bf16_widen(p[i]);
	dot = lane_sum(lane);
	for (i = 0; i < n; i++)
		d[i] = bf16_narrow(bf16_widen(p[i]) * (bf16_widen(d[i]) - dot));
}

/* Rows of a block are added up before blocks are: thousands of rows one by one round more. */
#define BLOCK 64u

static inline float plain(float x)
{
	return x;
}

/* n is a constant where it matters. */
#define COLUMN_SUMS(type, widen) \
	do { \
		const type *at = src; \
\
		for (size_t done = 0; done < rows; done += BLOCK) { \
			const size_t end = rows - done < BLOCK ? rows - done : BLOCK; \
			float block[ROW_SUM_COLUMNS] = { 0 }; \
\
			for (size_t i = 0; i < end; i++, at += stride) \
				for (size_t j = 0; j < n; j++) \
					block[j] += widen(at[j]); \
			for (size_t j = 0; j < n; j++) \
				sums[j] += block[j]; \
		} \
	} while (0)

static inline void sums_f32(
	float *restrict sums, const void *restrict src, size_t rows, size_t n, size_t stride)
{
	COLUMN_SUMS(float, plain);
}

static inline void sums_bf16(
	float *restrict sums, const void *restrict src, size_t rows, size_t n, size_t stride)
{
	COLUMN_SUMS(bf16, bf16_widen);
}

void NAME(kern_column_sums_, KERN_ISA)(
	float *restrict sums, const void *restrict src, size_t rows, size_t n, size_t stride)
{
	if (n == ROW_SUM_COLUMNS)
		sums_f32(sums, src, rows, ROW_SUM_COLUMNS, stride);
	else
		sums_f32(sums, src, rows, n, stride);
}

void NAME(kern_column_sums_bf16_, KERN_ISA)(
	float *restrict sums, const void *restrict src, size_t rows, size_t n, size_t stride)
{
	if (n == ROW_SUM_COLUMNS)
		sums_bf16(sums, src, rows, ROW_SUM_COLUMNS, stride);
	else
		sums_bf16(sums, src, rows, n, stride);
}

void NAME(kern_norm_sums_, KERN_ISA)(const struct norm_sums *job, size_t at, size_t n)
{
	const float *dy = job->dy + at, *x = job->x + at;

	for (size_t done = 0; done < job->rows; done += BLOCK) {
		const size_t end = job->rows - done < BLOCK ? job->rows : done + BLOCK;
		float gamma[ROW_SUM_COLUMNS] = { 0 }, beta[ROW_SUM_COLUMNS] = { 0 };

		for (size_t i = done; i < end; i++, dy += job->n, x += job->n) {
			const float mean = job->mean[i];
			const float inverse = 1 / sqrtf(job->variance[i] + job->eps);

			for (size_t j = 0; j < n; j++) {
				gamma[j] += dy[j] * ((x[j] - mean) * inverse);
				beta[j] += dy[j];
			}
		}
		for (size_t j = 0; j < n; j++) {
			job->d_gamma[at + j] += gamma[j];
			job->d_beta[at + j] += beta[j];
		}
	}
}
