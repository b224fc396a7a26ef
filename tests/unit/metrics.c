/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/rng.h"
#include "ops/metrics.h"

static void an_empty_histogram_has_no_quantiles(void **state)
{
	const struct histogram histogram = { 0 };

	(void)state;
	assert_int_equal(histogram_quantile(&histogram, .5), 0);
}

static void one_value_is_every_quantile_within_a_sixteenth(void **state)
{
	(void)state;
	for (uint64_t ns = 1000; ns < UINT64_C(64000000000); ns += ns / 7) {
		struct histogram histogram = { 0 };
		const double q[] = { 0, .5, 1 };

		histogram_add(&histogram, ns);
		for (unsigned i = 0; i < 3; i++) {
			uint64_t edge = histogram_quantile(&histogram, q[i]);

			assert_true(edge >= ns);
			assert_true((double)(edge - ns) <= (double)ns / 16);
		}
	}
}

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static void quantiles_of_many_values_are_those_of_the_sorted_list(void **state)
{
	enum { N = 10007 };
	struct rng rng = rng_stream(20240, 1, 0, 0);
	static const double qs[] = { .01, .5, .9, .99, .999, 1 };
	struct histogram histogram = { 0 };
	uint64_t *values = calloc(N, sizeof(*values));

	(void)state;
	assert_non_null(values);
	for (unsigned i = 0; i < N; i++) {
		values[i] = 1000 + rng_u32(&rng) % (1u << (10 + rng_u32(&rng) % 20));
		histogram_add(&histogram, values[i]);
	}
	qsort(values, N, sizeof(*values), by_value);
	for (unsigned i = 0; i < 6; i++) {
		double exact = (double)values[(size_t)ceil(qs[i] * N) - 1];
		double got = (double)histogram_quantile(&histogram, qs[i]);

		assert_true(got >= exact && got <= exact * (1 + 1. / 16));
	}
	free(values);
}

static void values_out_of_reach_go_to_the_last_bucket(void **state)
{
	struct histogram histogram = { 0 };

	(void)state;
	histogram_add(&histogram, 0);
	histogram_add(&histogram, UINT64_MAX);
	assert_int_equal(histogram.counts[0], 1);
	assert_int_equal(histogram.counts[HISTOGRAM_BUCKETS - 1], 1);
	assert_int_equal(histogram_quantile(&histogram, 1), UINT64_C(134217728000));
}

static void text_is_what_prometheus_reads(void **state)
{
	struct metrics_text out = { 0 };

	(void)state;
	metrics_help(&out, "kamen_x_total", "counter", "Things.");
	metrics_value(&out, "kamen_x_total", "site=\"a\"", 3);
	metrics_value(&out, "kamen_x_total", NULL, 9007199254740991.0);
	metrics_value(&out, "kamen_y", NULL, NAN);
	assert_int_equal(out.error, 0);
	assert_string_equal(out.text,
		"# HELP kamen_x_total Things.\n# TYPE kamen_x_total counter\n"
		"kamen_x_total{site=\"a\"} 3\nkamen_x_total 9.00719925474099e+15\n"
		"kamen_y NaN\n");
	assert_int_equal(out.n, strlen(out.text));
	metrics_text_done(&out);
}

static void a_histogram_prints_cumulative_buckets(void **state)
{
	struct metrics_text out = { 0 };
	struct histogram histogram = { 0 };

	(void)state;
	histogram_add(&histogram, 999);             /* below 1 us */
	histogram_add(&histogram, 1500);            /* below 2 us */
	histogram_add(&histogram, 100000000000000); /* beyond the last edge */
	metrics_histogram(&out, "kamen_t_seconds", "site=\"a\"", &histogram);
	assert_non_null(strstr(out.text, "kamen_t_seconds_bucket{site=\"a\",le=\"1e-06\"} 1\n"));
	assert_non_null(strstr(out.text, "kamen_t_seconds_bucket{site=\"a\",le=\"2e-06\"} 2\n"));
	assert_non_null(
		strstr(out.text, "kamen_t_seconds_bucket{site=\"a\",le=\"67.108864\"} 2\n"));
	assert_non_null(strstr(out.text, "kamen_t_seconds_bucket{site=\"a\",le=\"+Inf\"} 3\n"));
	assert_non_null(strstr(out.text, "kamen_t_seconds_count{site=\"a\"} 3\n"));
	metrics_text_done(&out);
	metrics_histogram(&out, "kamen_t_seconds", NULL, &histogram);
	assert_non_null(strstr(out.text, "kamen_t_seconds_bucket{le=\"1e-06\"} 1\n"));
	metrics_text_done(&out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_empty_histogram_has_no_quantiles),
		cmocka_unit_test(one_value_is_every_quantile_within_a_sixteenth),
		cmocka_unit_test(quantiles_of_many_values_are_those_of_the_sorted_list),
		cmocka_unit_test(values_out_of_reach_go_to_the_last_bucket),
		cmocka_unit_test(text_is_what_prometheus_reads),
		cmocka_unit_test(a_histogram_prints_cumulative_buckets),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
