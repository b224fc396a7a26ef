/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ops/metrics.h"

#define STEPS 16         /* buckets an octave; also buckets below the first octave */
#define STEP_BITS 4      /* log2(STEPS) */
#define UNITS_PER_US 16u /* the unit of a bucket's edge is 62.5 ns */
#define FIRST_OCTAVE_NS 1000
#define OCTAVES 27

_Static_assert(HISTOGRAM_BUCKETS == STEPS * (OCTAVES + 1), "1 us to 128 s");

static unsigned bucket_of(uint64_t ns)
{
	uint64_t units = ns > UINT64_MAX / UNITS_PER_US ? UINT64_MAX : ns * UNITS_PER_US / 1000;
	unsigned octave, bucket;

	if (units < STEPS)
		return (unsigned)units;
	octave = 63 - (unsigned)__builtin_clzll(units) - STEP_BITS;
	bucket = (octave + 1) * STEPS + ((unsigned)(units >> octave) & (STEPS - 1));
	return bucket < HISTOGRAM_BUCKETS ? bucket : HISTOGRAM_BUCKETS - 1;
}

/* Where the next bucket begins. */
static uint64_t upper_edge_ns(unsigned bucket)
{
	unsigned next = bucket + 1, octave;
	uint64_t units;

	if (next < STEPS)
		units = next;
	else {
		octave = next / STEPS - 1;
		units = (uint64_t)(STEPS + next % STEPS) << octave;
	}
	return units * 1000 / UNITS_PER_US;
}

void histogram_add(struct histogram *histogram, uint64_t ns)
{
	/* Counts only: nobody draws conclusions from one about another. */
	atomic_fetch_add_explicit(&histogram->counts[bucket_of(ns)], 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&histogram->sum_ns, ns, memory_order_relaxed);
	atomic_fetch_add_explicit(&histogram->n, 1, memory_order_relaxed);
}

static uint64_t count(const struct histogram *histogram, unsigned bucket)
{
	return atomic_load_explicit(&histogram->counts[bucket], memory_order_relaxed);
}

size_t histogram_pairs(const struct histogram *histogram, uint64_t ret_pairs[2 * HISTOGRAM_BUCKETS])
{
	size_t n = 0;

	for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
		uint64_t now = count(histogram, i);

		if (now == 0)
			continue;
		ret_pairs[n++] = upper_edge_ns(i);
		ret_pairs[n++] = now;
	}
	return n;
}

uint64_t histogram_quantile(const struct histogram *histogram, double q)
{
	uint64_t n = 0, below = 0, rank;

	for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
		n += count(histogram, i);
	if (n == 0)
		return 0;
	rank = q <= 0 ? 1 : (uint64_t)ceil((q < 1 ? q : 1) * (double)n);
	/* Counters may grow between the two passes; the last bucket ends the search at any rate. */
	for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
		below += count(histogram, i);
		if (below >= rank)
			return upper_edge_ns(i);
	}
	return upper_edge_ns(HISTOGRAM_BUCKETS - 1);
}

static void append(struct metrics_text *out, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
static void append(struct metrics_text *out, const char *format, ...)
{
	va_list ap;
	char *grown;
	int n;

	for (int try = 0; try < 2 && !out->error; try++) {
		va_start(ap, format);
		n = vsnprintf(
			out->text ? out->text + out->n : NULL, out->size - out->n, format, ap);
		va_end(ap);
		if (n < 0)
			out->error = -ENOMEM;
		else if ((size_t)n < out->size - out->n) {
			out->n += (size_t)n;
			return;
		} else {
			grown = realloc(out->text, 2 * out->size + (size_t)n + 256);
			if (!grown) {
				out->error = -ENOMEM;
				break;
			}
			out->size = 2 * out->size + (size_t)n + 256;
			out->text = grown;
		}
	}
	if (out->text)
		out->text[out->n] = '\0';
}

void metrics_help(struct metrics_text *out, const char *name, const char *type, const char *help)
{
	append(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void append_number(struct metrics_text *out, double value)
{
	if (isnan(value))
		append(out, " NaN\n");
	else if (isinf(value))
		append(out, " %sInf\n", value < 0 ? "-" : "+");
	else
		append(out, " %.15g\n", value);
}

void metrics_value(struct metrics_text *out, const char *name, const char *labels, double value)
{
	if (labels && *labels)
		append(out, "%s{%s}", name, labels);
	else
		append(out, "%s", name);
	append_number(out, value);
}

void metrics_histogram(struct metrics_text *out, const char *name, const char *labels,
	const struct histogram *histogram)
{
	const char *joint = labels && *labels ? "," : "";
	uint64_t n = 0, sum_ns = atomic_load_explicit(&histogram->sum_ns, memory_order_relaxed);
	char full[160];

	if (!labels)
		labels = "";
	/* One bucket an octave is what a dashboard can use; the fine ones serve the quantiles. */
	for (unsigned i = 0; i < HISTOGRAM_BUCKETS - 1; i++) {
		n += count(histogram, i);
		if (i % STEPS == STEPS - 1)
			append(out, "%s_bucket{%s%sle=\"%.9g\"} %llu\n", name, labels, joint,
				1e-9 * FIRST_OCTAVE_NS * (double)(UINT64_C(1) << (i / STEPS)),
				(unsigned long long)n);
	}
	n += count(histogram, HISTOGRAM_BUCKETS - 1);
	append(out, "%s_bucket{%s%sle=\"+Inf\"} %llu\n", name, labels, joint,
		(unsigned long long)n);
	(void)snprintf(full, sizeof(full), "%s_sum", name);
	metrics_value(out, full, labels, 1e-9 * (double)sum_ns);
	(void)snprintf(full, sizeof(full), "%s_count", name);
	metrics_value(out, full, labels, (double)n);
}

void metrics_text_done(struct metrics_text *out)
{
	free(out->text);
	*out = (struct metrics_text){ 0 };
}
