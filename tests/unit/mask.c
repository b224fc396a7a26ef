/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <math.h>
#include <cmocka.h>

#include "base/rng.h"
#include "mask/bits.h"
#include "mask/rest.h"

static const char *const names[] = { "a.weight", "a.bias", "b.weight" };
static const size_t sizes[] = { 130, 64, 7 };

static struct mask_layout *make_layout(void)
{
	struct mask_layout *layout = NULL;

	assert_int_equal(mask_layout_new(&layout, 3, names, sizes), 0);
	return layout;
}

static void a_layout_starts_every_tensor_on_a_fresh_word(void **state)
{
	_cleanup_(mask_layout_freep) struct mask_layout *layout = make_layout();
	struct mask_layout *none = NULL;

	(void)state;
	assert_int_equal(layout->n_elements, 201);
	assert_int_equal(layout->n_words, 3 + 1 + 1);
	assert_int_equal(layout->tensors[1].word, 3);
	assert_int_equal(layout->tensors[1].offset, 130);
	assert_int_equal(layout->tensors[2].word, 4);
	assert_int_equal(layout->tensors[2].offset, 194);
	assert_int_equal(mask_layout_new(&none, 1, names, (size_t[]){ 0 }), -EINVAL);
	assert_null(none);
}

static void a_new_mask_keeps_everything(void **state)
{
	_cleanup_(mask_layout_freep) struct mask_layout *layout = make_layout();
	_cleanup_(mask_freep) struct mask *mask = NULL;

	(void)state;
	assert_int_equal(mask_new(&mask, layout), 0);
	assert_true(mask_density(mask) == 1);
	assert_int_equal(mask->n_on[0], 130);
	assert_int_equal(mask->words[2], 3);
	assert_true(mask->words[3] == UINT64_MAX);
	assert_int_equal(mask->words[4], 0x7f);
	assert_true(mask_alpha(mask, 0) == 1.f);
}

static void a_score_of_zero_or_nan_is_off(void **state)
{
	_cleanup_(mask_layout_freep) struct mask_layout *layout = make_layout();
	_cleanup_(mask_freep) struct mask *mask = NULL;
	float scores[201];
	size_t n_on[3] = { 0 };
	struct rng rng = rng_stream(3, 0, 0, 0);

	(void)state;
	assert_int_equal(mask_new(&mask, layout), 0);
	for (unsigned i = 0; i < 201; i++)
		scores[i] = rng_normal(&rng);
	scores[0] = 0.f;
	scores[1] = -0.f;
	scores[2] = nanf("");
	scores[3] = 1e-45f;
	mask_from_scores(mask, scores, 0);
	assert_int_equal(mask->words[0] & 15, 8);
	for (unsigned t = 0; t < 3; t++) {
		for (size_t i = 0; i < sizes[t]; i++) {
			bool on = scores[layout->tensors[t].offset + i] > 0.f;

			assert_int_equal(mask_get(mask, t, i), on);
			n_on[t] += on;
		}
		assert_int_equal(mask->n_on[t], n_on[t]);
	}
	assert_int_equal(mask->words[2] >> 2, 0);
	assert_int_equal(mask->words[4] >> 7, 0);
}

static void putting_bits_keeps_the_counts(void **state)
{
	_cleanup_(mask_layout_freep) struct mask_layout *layout = make_layout();
	_cleanup_(mask_freep) struct mask *mask = NULL, *full = NULL;
	struct digest before, after;

	(void)state;
	assert_int_equal(mask_new(&mask, layout), 0);
	assert_int_equal(mask_new(&full, layout), 0);
	before = mask_digest(mask);
	mask_put(mask, 2, 6, false);
	mask_put(mask, 2, 6, false);
	mask_put(mask, 0, 129, false);
	assert_int_equal(mask->n_on[2], 6);
	assert_int_equal(mask_distance(mask, full), 2);
	assert_true(fabs(mask_density(mask) - 199. / 201) < 1e-12);
	assert_true(fabs(mask_lowest_density(mask) - 6. / 7) < 1e-12);
	assert_true(mask_alpha(mask, 2) == (float)sqrt(6. / 7));
	after = mask_digest(mask);
	assert_false(digest_equal(&before, &after));
	mask_put(mask, 2, 6, true);
	mask_put(mask, 0, 129, true);
	after = mask_digest(mask);
	assert_true(digest_equal(&before, &after));
}

static void an_empty_tensor_counts_as_one_weight(void **state)
{
	_cleanup_(mask_layout_freep) struct mask_layout *layout = make_layout();
	_cleanup_(mask_freep) struct mask *mask = NULL;

	(void)state;
	assert_int_equal(mask_new(&mask, layout), 0);
	for (unsigned i = 0; i < 7; i++)
		mask_put(mask, 2, i, false);
	assert_int_equal(mask->n_on[2], 0);
	assert_true(mask_alpha(mask, 2) == (float)sqrt(1. / 7));
}

/* How many are read at a time does not matter. */
static void assert_gaps_say(
	const struct mask *mask, const struct mask_rest *rest, unsigned t, uint32_t n_at_once)
{
	const struct mask_tensor *tensor = &mask->layout->tensors[t];
	uint32_t positions[64];
	struct mask_gaps gaps;
	size_t at = 0;

	assert_int_equal(mask_rest_n_on(rest, t), mask->n_on[t]);
	if (!mask_rest_gaps(&gaps, rest, mask->layout, t)) {
		assert_true((tensor->n - mask->n_on[t]) * 16 > tensor->n);
		return;
	}
	while (gaps.i < gaps.n) {
		uint32_t n = mask_gaps_read(&gaps, positions, n_at_once);

		for (uint32_t i = 0; i < n; at = positions[i++] + 1) {
			for (; at < positions[i]; at++)
				assert_true(mask_get(mask, t, at));
			assert_false(mask_get(mask, t, at));
		}
	}
	for (; at < tensor->n; at++)
		assert_true(mask_get(mask, t, at));
}

/* Nothing dropped, all, few, gaps longer than one number holds, dense ones as words. */
static void a_mask_wakes_as_it_lay_down(void **state)
{
	static const char *const many[] = { "a", "b", "c", "d" };
	static const size_t n[] = { 300001, 130, 64, 7 };
	static const float keeps[] = { 1, -1, .998F, .99999F, .95F, .5F };
	_cleanup_(mask_layout_freep) struct mask_layout *layout = NULL;
	_cleanup_(mask_freep) struct mask *woken = NULL;
	struct rng rng = rng_stream(11, 0, 0, 0);

	(void)state;
	assert_int_equal(mask_layout_new(&layout, 4, many, n), 0);
	assert_int_equal(mask_new(&woken, layout), 0);
	for (unsigned k = 0; k < ARRAY_SIZE(keeps); k++) {
		_cleanup_(mask_freep) struct mask *mask = NULL;
		_cleanup_(mask_rest_freep) struct mask_rest *rest = NULL;

		assert_int_equal(mask_new(&mask, layout), 0);
		for (unsigned t = 0; t < 4; t++)
			for (size_t i = 0; i < n[t]; i++)
				mask_put(mask, t, i, rng_uniform(&rng) < keeps[k]);
		mask_put(mask, 0, 65535, k % 2);
		mask_put(mask, 0, n[0] - 1, k % 2);
		assert_int_equal(mask_rest_new(&rest, mask), 0);
		mask_rest_wake(rest, woken);
		assert_memory_equal(
			woken->words, mask->words, layout->n_words * sizeof(*mask->words));
		assert_memory_equal(
			woken->n_on, mask->n_on, layout->n_tensors * sizeof(*mask->n_on));
		for (unsigned t = 0; t < 4; t++)
			assert_gaps_say(mask, rest, t, 1 + rng_u32(&rng) % 64);
		/* One of them alone leaves the others as they are. */
		mask_fill(woken);
		mask_rest_wake_tensor(rest, woken, 1);
		assert_memory_equal(&woken->words[layout->tensors[1].word],
			&mask->words[layout->tensors[1].word], 3 * sizeof(*mask->words));
		assert_int_equal(woken->n_on[0], n[0]);
		assert_int_equal(woken->words[layout->tensors[2].word], UINT64_MAX);
		assert_true(mask_rest_bytes(rest) < layout->n_words * 8 + 112);
		/* 10.6 bits each are the entropy. */
		if (k == 2)
			assert_true(
				mask_rest_bytes(rest) < (n[0] - mask->n_on[0]) * 11.8 / 8 + 112);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_layout_starts_every_tensor_on_a_fresh_word),
		cmocka_unit_test(a_new_mask_keeps_everything),
		cmocka_unit_test(a_score_of_zero_or_nan_is_off),
		cmocka_unit_test(putting_bits_keeps_the_counts),
		cmocka_unit_test(a_mask_wakes_as_it_lay_down),
		cmocka_unit_test(an_empty_tensor_counts_as_one_weight),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
