/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

#include "base/rng.h"
#include "mask/kmask.h"
#include "mask/kmask_sign.h"

#define SEED 7u
#define N_BLOCKS 12u
#define N_TENSORS (8 * N_BLOCKS)
#define WIDTH 192u
#define MAX_REST_BYTES 1500u

/* The maskable tensors of a ViT-Tiny: what the bounds are stated for. */
static struct mask_layout *make_layout(void)
{
	static const size_t sizes[8] = { 3 * WIDTH * WIDTH, 3 * WIDTH, WIDTH * WIDTH, WIDTH,
		4 * WIDTH * WIDTH, 4 * WIDTH, 4 * WIDTH * WIDTH, WIDTH };
	const char *names[N_TENSORS];
	size_t all[N_TENSORS];
	struct mask_layout *layout = NULL;

	for (unsigned t = 0; t < N_TENSORS; t++) {
		names[t] = "tensor";
		all[t] = sizes[t % 8];
	}
	assert_int_equal(mask_layout_new(&layout, N_TENSORS, names, all), 0);
	return layout;
}

static void drop_at_random(struct mask *mask, double share)
{
	for (unsigned t = 0; t < mask->layout->n_tensors; t++) {
		struct rng rng = rng_stream(SEED, t, 0, 0);

		for (size_t i = 0; i < mask->layout->tensors[t].n; i++)
			if ((double)rng_u32(&rng) < share * 4294967296.)
				mask_put(mask, t, i, false);
	}
}

/* ---- structures that learning might leave */

static bool every_ninth_row(const struct mask_tensor *tensor, size_t i)
{
	return tensor->n > WIDTH * WIDTH / 2 && i / WIDTH % 9 == 4;
}

static bool few_columns(const struct mask_tensor *tensor, size_t i)
{
	(void)tensor;
	return i % WIDTH == 17 || i % WIDTH == 101;
}

static bool all_at_the_end(const struct mask_tensor *tensor, size_t i)
{
	return i >= tensor->n - tensor->n / 50;
}

static bool every_second(const struct mask_tensor *tensor, size_t i)
{
	(void)tensor;
	return i % 2;
}

static bool last_one_only(const struct mask_tensor *tensor, size_t i)
{
	return i + 1 == tensor->n;
}

static bool nearly_everything(const struct mask_tensor *tensor, size_t i)
{
	return i % 1000 != 3 && tensor->n > 0;
}

static bool everything(const struct mask_tensor *tensor, size_t i)
{
	(void)tensor;
	(void)i;
	return true;
}

static bool nothing(const struct mask_tensor *tensor, size_t i)
{
	(void)tensor;
	(void)i;
	return false;
}

static const struct structure {
	const char *name;
	bool (*drops)(const struct mask_tensor *tensor, size_t i);
} structures[] = {
	{ "every ninth row", every_ninth_row },
	{ "two columns", few_columns },
	{ "all at the end", all_at_the_end },
	{ "every second weight", every_second },
	{ "the last weight of each", last_one_only },
	{ "nearly everything", nearly_everything },
	{ "everything", everything },
	{ "nothing", nothing },
};

static void drop_structure(struct mask *mask, const struct structure *structure)
{
	for (unsigned t = 0; t < mask->layout->n_tensors; t++)
		for (size_t i = 0; i < mask->layout->tensors[t].n; i++)
			if (structure->drops(&mask->layout->tensors[t], i))
				mask_put(mask, t, i, false);
}

/* ---- checks */

static double entropy_bytes(double n, double off)
{
	double p = off / n;

	return off > 0 && off < n ? -(off * log2(p) + (n - off) * log2(1 - p)) / 8 : 0;
}

static void check_bounds(const char *name, const struct mask *mask, const struct kmask *kmask)
{
	const struct kmask_header *header = &kmask->header;
	double total = kmask_entropy_bytes(kmask);

	print_message("%-24s density %.5f entropy %9.0f payload %8zu rest %5zu, %6.0f x f32\n",
		name, mask_density(mask), total, header->payload_bytes, header->table_bytes,
		4. * (double)header->n_elements / (double)header->n_bytes);
	assert_true((double)header->payload_bytes <= total + 1. * header->n_tensors);
	assert_true(header->table_bytes <= MAX_REST_BYTES);
	assert_int_equal(header->payload_bytes + header->table_bytes, header->n_bytes);
	for (uint32_t t = 0; t < header->n_tensors; t++) {
		const struct kmask_tensor *row = &kmask->tensors[t];

		assert_true((double)row->n_bytes <= entropy_bytes(row->n, row->n_off) + 1);
	}
}

static void check_mask(const char *name, const struct mask *mask)
{
	struct kmask_header header = { .base = digest_of("base", 4) }, seen;
	_cleanup_(mask_freep) struct mask *back = NULL;
	_cleanup_(kmask_freep) struct kmask *kmask = NULL;
	_cleanup_(freep) void *data = NULL;
	size_t n_bytes;

	assert_int_equal(kmask_encode(mask, &header, &data, &n_bytes), 0);
	assert_int_equal(kmask_open(&kmask, data, n_bytes, NULL), 0);
	check_bounds(name, mask, kmask);
	assert_int_equal(
		kmask_decode(&back, &seen, mask->layout, &header.base, data, n_bytes, NULL), 0);
	assert_int_equal(mask_distance(mask, back), 0);
}

static void random_masks_stay_near_their_entropy(void **state)
{
	static const double shares[] = { .5, .45, .4, .3, .2, .1, .05, .02, .01, .005, .002, .001,
		.0005, .0001, .7, .99 };
	_cleanup_(mask_layout_freep) struct mask_layout *layout = make_layout();

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(shares); i++) {
		_cleanup_(mask_freep) struct mask *mask = NULL;

		assert_int_equal(mask_new(&mask, layout), 0);
		drop_at_random(mask, shares[i]);
		check_mask("random", mask);
	}
}

static void structured_masks_stay_near_their_entropy(void **state)
{
	_cleanup_(mask_layout_freep) struct mask_layout *layout = make_layout();

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(structures); i++) {
		_cleanup_(mask_freep) struct mask *mask = NULL;

		assert_int_equal(mask_new(&mask, layout), 0);
		drop_structure(mask, &structures[i]);
		check_mask(structures[i].name, mask);
	}
}

/* One huge tensor: chances near the end of their 32 bits. */
static void a_single_bit_of_many_costs_a_few_bytes(void **state)
{
	static const size_t sizes[] = { 1u << 27 };
	static const char *const names[] = { "huge" };
	_cleanup_(mask_layout_freep) struct mask_layout *layout = NULL;
	_cleanup_(mask_freep) struct mask *mask = NULL;

	(void)state;
	assert_int_equal(mask_layout_new(&layout, 1, names, sizes), 0);
	assert_int_equal(mask_new(&mask, layout), 0);
	mask_put(mask, 0, sizes[0] - 1, false);
	check_mask("one of 2^27", mask);
	mask_put(mask, 0, 12345678, false);
	check_mask("two of 2^27", mask);
}

/* ---- speed: --bench */

enum { N_TIMES = 15 };

/* What this thread has had of its core: others may want it too. */
static uint64_t cpu_ns(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static int compare(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

static double million_a_second(uint64_t *times, size_t n_elements)
{
	qsort(times, N_TIMES, sizeof(*times), compare);
	return (double)n_elements * 1e3 / (double)times[N_TIMES / 2];
}

static void bench_mask(const struct mask *mask)
{
	struct kmask_header header = { .base = digest_of("base", 4) }, seen;
	uint64_t encode[N_TIMES], decode[N_TIMES], positions[N_TIMES];
	_cleanup_(freep) uint32_t *found = malloc(mask->layout->n_elements * sizeof(*found));

	assert_non_null(found);
	for (unsigned i = 0; i < N_TIMES; i++) {
		_cleanup_(freep) void *data = NULL;
		_cleanup_(mask_freep) struct mask *back = NULL;
		_cleanup_(kmask_freep) struct kmask *kmask = NULL;
		size_t n_bytes;
		uint64_t t0 = cpu_ns(), t1, t2, t3;

		assert_int_equal(kmask_encode(mask, &header, &data, &n_bytes), 0);
		t1 = cpu_ns();
		assert_int_equal(
			kmask_decode(&back, &seen, mask->layout, &header.base, data, n_bytes, NULL),
			0);
		t2 = cpu_ns();
		assert_int_equal(kmask_open(&kmask, data, n_bytes, NULL), 0);
		for (uint32_t t = 0; t < kmask->header.n_tensors; t++)
			assert_int_equal(kmask_positions(kmask, t, found, NULL), 0);
		t3 = cpu_ns();
		encode[i] = t1 - t0;
		decode[i] = t2 - t1;
		positions[i] = t3 - t2;
	}
	print_message("density %.4f: encode %7.0f, decode %7.0f, positions only %7.0f\n",
		mask_density(mask), million_a_second(encode, mask->layout->n_elements),
		million_a_second(decode, mask->layout->n_elements),
		million_a_second(positions, mask->layout->n_elements));
}

static int bench(void)
{
	static const double shares[] = { .5, .25, .1, .05, .01, .005, .001, .0005 };
	_cleanup_(mask_layout_freep) struct mask_layout *layout = make_layout();

	print_message("M weights/s of one core (its CPU time), median of %d, %zu weights, digests "
		      "and checksums "
		      "included\n",
		N_TIMES, layout->n_elements);
	for (unsigned i = 0; i < ARRAY_SIZE(shares); i++) {
		_cleanup_(mask_freep) struct mask *mask = NULL;

		assert_int_equal(mask_new(&mask, layout), 0);
		drop_at_random(mask, shares[i]);
		bench_mask(mask);
	}
	return 0;
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_masks_stay_near_their_entropy),
		cmocka_unit_test(structured_masks_stay_near_their_entropy),
		cmocka_unit_test(a_single_bit_of_many_costs_a_few_bytes),
	};

	if (argc > 1 && strcmp(argv[1], "--bench") == 0)
		return bench();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
