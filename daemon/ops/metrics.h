/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_OPS_METRICS_H
#define KAMEN_OPS_METRICS_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

/**
 * Log-linear histogram of durations: 16 linear steps an octave from 1 us to 64 s, one atomic
 * counter a bucket; relative error of a percentile at most 1/16.
 */
#define HISTOGRAM_BUCKETS 448
struct histogram {
	_Atomic uint64_t counts[HISTOGRAM_BUCKETS];
	_Atomic uint64_t sum_ns, n;
};
void histogram_add(struct histogram *histogram, uint64_t ns);
/** Upper edge of the bucket that holds quantile q in [0, 1]; 0 when empty. */
uint64_t histogram_quantile(const struct histogram *histogram, double q);
/** Pairs of a bucket's upper edge in ns and its count, empty ones left out. @return numbers written */
size_t histogram_pairs(
	const struct histogram *histogram, uint64_t ret_pairs[2 * HISTOGRAM_BUCKETS]);

/** Appends Prometheus text; grows as needed. */
struct metrics_text {
	char *text;
	size_t n, size;
	int error; /* sticky: -ENOMEM */
};
void metrics_help(struct metrics_text *out, const char *name, const char *type, const char *help);
/** labels: "site=\"a\"" or NULL. Label values must be escaped already (site names are safe). */
void metrics_value(struct metrics_text *out, const char *name, const char *labels, double value);
void metrics_histogram(struct metrics_text *out, const char *name, const char *labels,
	const struct histogram *histogram);
void metrics_text_done(struct metrics_text *out);

#endif
