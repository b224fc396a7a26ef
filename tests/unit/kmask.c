/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <math.h>
#include <string.h>
#include <cmocka.h>

#include "base/rng.h"
#include "mask/kmask.h"
#include "mask/kmask_format.h"

#define SEED 99u

static struct mask_layout *make_layout(unsigned n_tensors, const size_t *sizes)
{
	static const char *const names[] = { "a.weight", "a.bias", "b.weight", "b.bias", "c.weight",
		"c.bias" };
	struct mask_layout *layout = NULL;

	assert_int_equal(mask_layout_new(&layout, n_tensors, names, sizes), 0);
	return layout;
}

/* Drops each bit of a tensor with its own chance. */
static struct mask *make_mask(const struct mask_layout *layout, const double *drop)
{
	struct mask *mask = NULL;

	assert_int_equal(mask_new(&mask, layout), 0);
	for (unsigned t = 0; t < layout->n_tensors; t++) {
		struct rng rng = rng_stream(SEED, t, 0, 0);

		for (size_t i = 0; i < layout->tensors[t].n; i++)
			if ((double)rng_u32(&rng) < drop[t] * 4294967296.)
				mask_put(mask, t, i, false);
	}
	return mask;
}

static struct kmask_header make_header(void)
{
	return (struct kmask_header){
		.base = digest_of("base", 4),
		.prep = digest_of("prep", 4),
		.seed = 0x123456789abcdefULL,
		.steps = 50,
	};
}

static double entropy_bits(const struct mask *mask, unsigned t)
{
	double n = (double)mask->layout->tensors[t].n, on = (double)mask->n_on[t], off = n - on;

	return on > 0 && off > 0 ? -(on * log2(on / n) + off * log2(off / n)) : 0;
}

static void a_mask_survives_its_file(void **state)
{
	static const size_t sizes[] = { 1, 2, 63, 64, 65, 1000 };
	static const double drops[][6] = {
		{ 0, 0, 0, 0, 0, 0 },
		{ 1.1, 1.1, 1.1, 1.1, 1.1, 1.1 },
		{ .5, .5, .5, .5, .5, .5 },
		{ .9, .1, .01, .99, .001, .05 },
	};
	_cleanup_(mask_layout_freep) struct mask_layout *layout = make_layout(6, sizes);
	struct kmask_header header = make_header(), back_header;

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(drops); i++) {
		_cleanup_(mask_freep) struct mask *mask = make_mask(layout, drops[i]);
		_cleanup_(mask_freep) struct mask *back = NULL;
		_cleanup_(freep) void *data = NULL;
		struct digest digest = mask_digest(mask);
		struct diag diag;
		size_t n_bytes;

		assert_int_equal(kmask_encode(mask, &header, &data, &n_bytes), 0);
		assert_int_equal(kmask_decode(&back, &back_header, layout, &header.base, data,
					 n_bytes, &diag),
			0);
		assert_int_equal(mask_distance(mask, back), 0);
		assert_memory_equal(mask->n_on, back->n_on, 6 * sizeof(*mask->n_on));
		assert_true(digest_equal(&back_header.mask, &digest));
		assert_true(digest_equal(&back_header.prep, &header.prep));
		assert_true(back_header.seed == header.seed);
		assert_int_equal(back_header.steps, 50);
		assert_int_equal(back_header.n_tensors, 6);
		assert_int_equal(back_header.n_elements, 1195);
		assert_int_equal(back_header.n_kept, (size_t)(mask_density(mask) * 1195 + .5));
	}
}

static void coded_bits_stay_within_a_hundredth_of_the_entropy(void **state)
{
	static const double drops[] = { 1e-6, 1e-5, 1e-4, 1e-3, .01, .075, .3, .5, .8, .999 };
	static const size_t size = 600001;
	_cleanup_(mask_layout_freep) struct mask_layout *layout = make_layout(1, &size);
	struct kmask_header header = make_header();

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(drops); i++) {
		_cleanup_(mask_freep) struct mask *mask = make_mask(layout, &drops[i]);
		_cleanup_(mask_freep) struct mask *back = NULL;
		_cleanup_(freep) void *data = NULL;
		double bound = entropy_bits(mask, 0) / 8;
		struct diag diag;
		size_t n_bytes;
		double payload;

		assert_int_equal(kmask_encode(mask, &header, &data, &n_bytes), 0);
		payload = (double)(n_bytes - KMASK_HEADER_BYTES - KMASK_TRAILER_BYTES);
		print_message(
			"drop %-6g entropy %9.1f bytes, coded %9.0f\n", drops[i], bound, payload);
		assert_true(payload <= bound * 1.01 + 64);
		assert_true(payload + 1 >= bound);
		assert_int_equal(
			kmask_decode(&back, &header, layout, &header.base, data, n_bytes, &diag),
			0);
		assert_int_equal(mask_distance(mask, back), 0);
	}
}

static void every_truncation_and_flipped_bit_is_refused(void **state)
{
	static const size_t sizes[] = { 300, 64, 9 };
	static const double drops[] = { .1, .02, .5 };
	_cleanup_(mask_layout_freep) struct mask_layout *layout = make_layout(3, sizes);
	_cleanup_(mask_freep) struct mask *mask = make_mask(layout, drops);
	_cleanup_(freep) uint8_t *data = NULL;
	struct kmask_header header = make_header(), seen;
	struct mask *none = NULL;
	struct diag diag;
	size_t n_bytes;

	(void)state;
	assert_int_equal(kmask_encode(mask, &header, (void **)&data, &n_bytes), 0);
	for (size_t n = 0; n < n_bytes; n++) {
		diag.text[0] = 0;
		assert_int_equal(kmask_verify(data, n, &seen, &diag), -EBADMSG);
		assert_true(diag.text[0] != 0);
	}
	for (size_t i = 0; i < n_bytes * 8; i++) {
		data[i / 8] ^= (uint8_t)(1 << (i % 8));
		assert_int_equal(kmask_verify(data, n_bytes, &seen, &diag), -EBADMSG);
		assert_int_equal(
			kmask_decode(&none, &seen, layout, &header.base, data, n_bytes, &diag),
			-EBADMSG);
		data[i / 8] ^= (uint8_t)(1 << (i % 8));
	}
	assert_null(none);
	assert_int_equal(kmask_verify(data, n_bytes, &seen, &diag), 0);
}

static void a_mask_for_another_base_is_told_apart(void **state)
{
	static const size_t sizes[] = { 300, 64, 9 };
	static const size_t other_sizes[] = { 300, 63, 9 };
	static const double drops[] = { .1, .02, .5 };
	_cleanup_(mask_layout_freep) struct mask_layout *layout = make_layout(3, sizes);
	_cleanup_(mask_layout_freep) struct mask_layout *fewer = make_layout(2, sizes);
	_cleanup_(mask_layout_freep) struct mask_layout *other = make_layout(3, other_sizes);
	_cleanup_(mask_freep) struct mask *mask = make_mask(layout, drops);
	_cleanup_(freep) void *data = NULL;
	struct kmask_header header = make_header(), seen;
	struct digest base = digest_of("another", 7);
	struct mask *none = NULL;
	struct diag diag;
	size_t n_bytes;

	(void)state;
	assert_int_equal(kmask_encode(mask, &header, &data, &n_bytes), 0);
	assert_int_equal(kmask_decode(&none, &seen, layout, &base, data, n_bytes, &diag), -EXDEV);
	assert_non_null(strstr(diag.text, "base"));
	assert_int_equal(
		kmask_decode(&none, &seen, fewer, &header.base, data, n_bytes, &diag), -EXDEV);
	assert_int_equal(
		kmask_decode(&none, &seen, other, &header.base, data, n_bytes, &diag), -EXDEV);
	assert_non_null(strstr(diag.text, "a.bias"));
	assert_null(none);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_mask_survives_its_file),
		cmocka_unit_test(coded_bits_stay_within_a_hundredth_of_the_entropy),
		cmocka_unit_test(every_truncation_and_flipped_bit_is_refused),
		cmocka_unit_test(a_mask_for_another_base_is_told_apart),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
