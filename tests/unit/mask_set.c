/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/rng.h"
#include "cascade/kcas_format.h"
#include "cascade/mask_set.h"

enum { WIDTH = 6, ROUTE = 3, OUT = 5, EXPERTS = 2, N_IMAGES = 9 };

static const char *const names[] = { "a", "b" };
static const size_t sizes[] = { 200, 7 };

struct bench {
	struct mask_layout *layout;
	struct mask_set *set;
	struct mask_set_header header;
	uint8_t *data;
	size_t n_bytes;
};

static void fill(float *values, size_t n, struct rng *rng)
{
	for (size_t i = 0; i < n; i++)
		values[i] = rng_normal(rng);
}

static struct mask *draw_mask(const struct mask_layout *layout, struct rng *rng)
{
	struct mask *mask = NULL;

	assert_int_equal(mask_new(&mask, layout), 0);
	for (size_t i = 0; i < sizes[0]; i++)
		mask_put(mask, 0, i, rng_uniform(rng) < .9f);
	return mask;
}

static struct mask_set_parts draw_parts(
	const struct mask_layout *layout, struct mask **masks, struct rng *rng)
{
	struct mask_set_parts parts = { .n_experts = EXPERTS, .width = WIDTH, .masks = masks };

	for (uint32_t m = 0; m <= EXPERTS; m++)
		masks[m] = draw_mask(layout, rng);
	assert_int_equal(whiten_new(&parts.route, WIDTH, ROUTE), 0);
	assert_int_equal(gmm_new(&parts.mixture, EXPERTS, ROUTE), 0);
	assert_int_equal(whiten_new(&parts.fusion, (1 + EXPERTS) * WIDTH, OUT), 0);
	fill(parts.route->mean, WIDTH, rng);
	fill(parts.route->axes, ROUTE * WIDTH, rng);
	fill(parts.mixture->bias, EXPERTS, rng);
	fill(parts.mixture->means, EXPERTS * ROUTE, rng);
	fill(parts.mixture->factors, EXPERTS * gmm_factor_size(ROUTE), rng);
	fill(parts.fusion->mean, (1 + EXPERTS) * WIDTH, rng);
	fill(parts.fusion->axes, OUT * (1 + EXPERTS) * WIDTH, rng);
	return parts;
}

static int set_up(void **state)
{
	static struct bench bench;
	struct mask *masks[1 + CASCADE_MAX_EXPERTS] = { NULL };
	struct rng rng = rng_stream(41, 0, 0, 0);
	struct mask_set_parts parts;

	bench = (struct bench){ .header = { .seed = 7, .steps = 50 } };
	bench.header.base = digest_of("base", 4);
	bench.header.prep = digest_of("prep", 4);
	assert_int_equal(mask_layout_new(&bench.layout, 2, names, sizes), 0);
	parts = draw_parts(bench.layout, masks, &rng);
	assert_int_equal(mask_set_join(&bench.set, &parts), 0);
	assert_int_equal(
		mask_set_encode(bench.set, &bench.header, (void **)&bench.data, &bench.n_bytes), 0);
	*state = &bench;
	return 0;
}

static int tear_down(void **state)
{
	struct bench *bench = *state;

	mask_set_free(bench->set);
	mask_layout_free(bench->layout);
	free(bench->data);
	return 0;
}

/** An eye whose masks say a number of their own, and what it was asked. */
struct witness {
	uint32_t n_asked[1 + CASCADE_MAX_EXPERTS];
	int fail_at; /* mask, -1: never */
};

static int look(void *owner, uint32_t m, const uint32_t *images, uint32_t n, float *rows)
{
	struct witness *witness = owner;

	if ((int)m == witness->fail_at)
		return -EIO;
	witness->n_asked[m] += n;
	for (uint32_t i = 0; i < n; i++) {
		struct rng rng = rng_stream(5, images[i], m, 0);

		fill(rows + (size_t)i * WIDTH, WIDTH, &rng);
	}
	return 0;
}

static int embed(const struct mask_set *set, struct witness *witness, float *rows)
{
	_cleanup_(mask_set_scratch_freep) struct mask_set_scratch *scratch = NULL;
	const struct mask_set_eye eye = { look, witness };

	assert_int_equal(mask_set_scratch_new(&scratch, N_IMAGES, set->n_experts, WIDTH), 0);
	return mask_set_embed(rows, set, scratch, &eye, N_IMAGES);
}

static void an_expert_sees_its_own_images_only(void **state)
{
	const struct bench *bench = *state;
	struct witness witness = { .fail_at = -1 }, all = witness, broken = { .fail_at = 2 };
	struct mask_set unconditional = *bench->set;
	float rows[N_IMAGES][OUT], others[N_IMAGES][OUT];

	assert_int_equal(embed(bench->set, &witness, rows[0]), 0);
	assert_int_equal(witness.n_asked[0], N_IMAGES);
	assert_int_equal(witness.n_asked[1] + witness.n_asked[2], N_IMAGES);
	assert_true(witness.n_asked[1] > 0 && witness.n_asked[2] > 0);
	assert_int_equal(mask_set_n_forwards(bench->set), 2);

	unconditional.mode = CASCADE_UNCONDITIONAL;
	assert_int_equal(embed(&unconditional, &all, others[0]), 0);
	assert_int_equal(all.n_asked[1] + all.n_asked[2], 2 * N_IMAGES);
	assert_int_equal(mask_set_n_forwards(&unconditional), 1 + EXPERTS);
	assert_memory_not_equal(rows, others, sizeof(rows));
	assert_int_equal(embed(bench->set, &broken, rows[0]), -EIO);
}

static void one_mask_alone_says_what_the_model_says(void **state)
{
	const struct bench *bench = *state;
	_cleanup_(mask_set_freep) struct mask_set *one = NULL, *base = NULL, *back = NULL;
	_cleanup_(mask_freep) struct mask *mask = NULL, *all = NULL;
	_cleanup_(freep) void *data = NULL;
	struct witness witness = { .fail_at = -1 };
	struct rng rng = rng_stream(43, 0, 0, 0);
	float rows[N_IMAGES][WIDTH], want[WIDTH];
	struct mask_set_header header;
	struct digest id;
	size_t n_bytes;

	mask = draw_mask(bench->layout, &rng);
	id = mask_digest(mask);
	assert_int_equal(mask_set_of(&one, mask, bench->layout, WIDTH), 0);
	(void)TAKE_PTR(mask);
	assert_true(digest_equal(&one->id, &id));
	assert_int_equal(embed(one, &witness, rows[0]), 0);
	for (uint32_t i = 0; i < N_IMAGES; i++) {
		struct rng own = rng_stream(5, i, 0, 0);

		fill(want, WIDTH, &own);
		assert_memory_equal(rows[i], want, sizeof(want));
	}
	assert_int_equal(mask_set_n_forwards(one), 1);

	/* Its file is a .kmask like any other. */
	assert_int_equal(mask_set_encode(one, &bench->header, &data, &n_bytes), 0);
	assert_false(mask_set_is_cascade(data, n_bytes));
	assert_int_equal(mask_set_decode(&back, &header, bench->layout, &bench->header.base, WIDTH,
				 data, n_bytes, NULL),
		0);
	assert_true(digest_equal(&back->id, &id));
	assert_int_equal(header.n_experts, 0);
	assert_int_equal(header.n_flips, mask_set_n_flips(one));

	assert_int_equal(mask_set_of(&base, NULL, bench->layout, WIDTH), 0);
	assert_int_equal(mask_new(&all, bench->layout), 0);
	id = mask_digest(all);
	assert_true(digest_equal(&base->id, &id));
	assert_int_equal(mask_set_encode(base, &bench->header, &data, &n_bytes), -EINVAL);
}

static void a_cascade_comes_back_from_its_file(void **state)
{
	const struct bench *bench = *state;
	_cleanup_(mask_set_freep) struct mask_set *back = NULL;
	struct witness a = { .fail_at = -1 }, b = a;
	float rows[N_IMAGES][OUT], again[N_IMAGES][OUT];
	struct mask_set_header header;
	const void *part;
	size_t n_part, n_masks = 0;

	assert_int_equal(mask_set_decode(&back, &header, bench->layout, &bench->header.base, WIDTH,
				 bench->data, bench->n_bytes, NULL),
		0);
	assert_true(digest_equal(&back->id, &bench->set->id));
	assert_true(digest_equal(&header.id, &bench->set->id));
	assert_true(digest_equal(&header.prep, &bench->header.prep));
	assert_int_equal(header.seed, 7);
	assert_int_equal(header.steps, 50);
	assert_int_equal(header.n_experts, EXPERTS);
	assert_int_equal(header.n_out, OUT);
	assert_int_equal(header.n_elements, sizes[0] + sizes[1]);
	assert_int_equal(header.n_flips, mask_set_n_flips(bench->set));
	assert_int_equal(header.n_bytes, bench->n_bytes);
	assert_int_equal(embed(bench->set, &a, rows[0]), 0);
	assert_int_equal(embed(back, &b, again[0]), 0);
	assert_memory_equal(rows, again, sizeof(rows));
	for (uint32_t m = 0; m <= EXPERTS; m++) {
		struct kmask_header of;

		assert_int_equal(mask_set_part(bench->data, bench->n_bytes, m, &part, &n_part), 0);
		assert_int_equal(kmask_verify(part, n_part, &of, NULL), 0);
		assert_true(digest_equal(&of.mask, &bench->set->ids[m]));
		n_masks += n_part;
	}
	assert_int_equal(header.mask_bytes, n_masks);
	assert_int_equal(
		mask_set_part(bench->data, bench->n_bytes, 1 + EXPERTS, &part, &n_part), -EINVAL);
}

/* ---- files that are not right */

static void mend(uint8_t *data, size_t n_bytes)
{
	size_t n_table =
		(1 + EXPERTS) * 8 +
		4 * ((1 + ROUTE) * WIDTH + EXPERTS * (1 + ROUTE + ROUTE * (ROUTE + 1) / 2) +
			    (1 + OUT) * (1 + EXPERTS) * WIDTH);
	uint8_t *table = data + KCAS_HEADER_BYTES;

	put_u64(data + KCAS_AT_SUM, digest_checksum(data, KCAS_AT_SUM));
	put_u64(table + n_table, digest_checksum(table, n_table));
	put_u64(data + n_bytes - 8, digest_checksum(data, n_bytes - 8));
}

static int decode(const struct bench *bench, const uint8_t *data, size_t n_bytes, uint32_t width,
	struct diag *diag)
{
	_cleanup_(mask_set_freep) struct mask_set *set = NULL;
	struct mask_set_header header;
	int r = mask_set_decode(
		&set, &header, bench->layout, &bench->header.base, width, data, n_bytes, diag);

	assert_int_equal(set != NULL, r == 0);
	return r;
}

struct wrong {
	size_t at;
	uint32_t value;
	int want;
	const char *says;
};

static void every_wrong_field_is_named(void **state)
{
	const struct bench *bench = *state;
	const size_t values = KCAS_HEADER_BYTES + (1 + EXPERTS) * 8;
	const struct wrong wrongs[] = {
		{ KCAS_AT_VERSION, 2, -EBADMSG, "version 2" },
		{ KCAS_AT_MODE, CASCADE_N_MODES, -EBADMSG, "mode" },
		{ KCAS_AT_BYTES, 5, -EBADMSG, "truncated" },
		{ KCAS_AT_EXPERTS, 0, -EBADMSG, "experts" },
		{ KCAS_AT_EXPERTS, CASCADE_MAX_EXPERTS + 1, -EBADMSG, "experts" },
		{ KCAS_AT_WIDTH, 0, -EBADMSG, "width" },
		{ KCAS_AT_WIDTH, KCAS_MAX_WIDTH, -EFBIG, "promises" },
		{ KCAS_AT_WIDTH, UINT32_MAX, -EBADMSG, "width" },
		{ KCAS_AT_ROUTE, WIDTH + 1, -EBADMSG, "route" },
		{ KCAS_AT_OUT, WIDTH + 1, -EBADMSG, "fusion" },
		{ KCAS_AT_ZERO, 1, -EBADMSG, "reserved" },
		{ KCAS_AT_BASE, 1, -EBADMSG, "something else" },
		{ KCAS_AT_ID, 1, -EBADMSG, "another digest" },
		{ KCAS_HEADER_BYTES, UINT32_MAX, -EFBIG, "mask 0" },
		{ KCAS_HEADER_BYTES, 4, -EBADMSG, "belong to no mask" },
		{ values, 0, -EBADMSG, "another digest" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(wrongs); i++) {
		_cleanup_(freep) uint8_t *copy = malloc(bench->n_bytes);
		struct diag diag = { "" };
		int r;

		memcpy(copy, bench->data, bench->n_bytes);
		put_u32(copy + wrongs[i].at, wrongs[i].value);
		mend(copy, bench->n_bytes);
		r = decode(bench, copy, bench->n_bytes, WIDTH, &diag);
		if (r != wrongs[i].want || !strstr(diag.text, wrongs[i].says))
			fail_msg("%zu: %d, '%s', not '%s'", i, r, diag.text, wrongs[i].says);
	}
}

static void every_flipped_or_missing_byte_is_found(void **state)
{
	const struct bench *bench = *state;
	_cleanup_(freep) uint8_t *copy = malloc(bench->n_bytes);
	struct diag diag;

	memcpy(copy, bench->data, bench->n_bytes);
	for (size_t i = 0; i < bench->n_bytes; i++) {
		copy[i] ^= 1;
		assert_true(decode(bench, copy, bench->n_bytes, WIDTH, &diag) < 0);
		copy[i] ^= 1;
		assert_true(decode(bench, copy, i, WIDTH, &diag) < 0);
	}
	assert_int_equal(decode(bench, copy, bench->n_bytes, WIDTH, &diag), 0);
}

static void another_base_and_another_width_are_refused(void **state)
{
	const struct bench *bench = *state;
	struct bench other = *bench;
	struct diag diag = { "" };

	assert_int_equal(decode(bench, bench->data, bench->n_bytes, WIDTH + 1, &diag), -EXDEV);
	assert_non_null(strstr(diag.text, "embeddings of 6"));
	other.header.base = digest_of("other", 5);
	assert_int_equal(decode(&other, bench->data, bench->n_bytes, WIDTH, &diag), -EXDEV);
	assert_non_null(strstr(diag.text, "mask 0"));
}

static void parts_that_do_not_fit_are_not_joined(void **state)
{
	const struct bench *bench = *state;
	const struct mask_set *set = bench->set;
	const struct mask_set_parts good = { EXPERTS, WIDTH, CASCADE_CONDITIONAL,
		(struct mask **)(uintptr_t)set->masks, set->route, set->mixture, set->fusion };
	struct mask_set_parts bad[] = { good, good, good, good };
	struct mask_set *joined = NULL;

	bad[0].n_experts = EXPERTS + 1;
	bad[1].width = WIDTH + 1;
	bad[2].fusion = set->route;
	bad[3].mode = CASCADE_N_MODES;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(mask_set_join(&joined, &bad[i]), -EINVAL);
	assert_null(joined);
}

static void a_set_that_was_laid_down_gives_the_same_masks(void **state)
{
	struct bench *bench = *state;
	_cleanup_(mask_set_freep) struct mask_set *set = NULL;
	_cleanup_(mask_freep) struct mask *room = NULL;
	struct mask_set_header header;

	assert_int_equal(mask_new(&room, bench->layout), 0);
	assert_int_equal(mask_set_decode(&set, &header, bench->layout, &bench->header.base, WIDTH,
				 bench->data, bench->n_bytes, NULL),
		0);
	assert_int_equal(mask_set_lay_down(set), 0);
	for (uint32_t m = 0; m <= EXPERTS; m++) {
		struct digest digest;

		assert_null(set->masks[m]);
		mask_rest_wake(set->rests[m], room);
		digest = mask_digest(room);
		assert_true(digest_equal(&digest, &set->ids[m]));
		assert_int_equal(mask_distance(room, bench->set->masks[m]), 0);
	}
}

static size_t resident_bytes(void)
{
	FILE *f = fopen("/proc/self/statm", "re");
	size_t n_pages = 0;

	assert_non_null(f);
	assert_int_equal(fscanf(f, "%*s %zu", &n_pages), 1);
	(void)fclose(f);
	return n_pages * (size_t)sysconf(_SC_PAGESIZE);
}

/* Sites that wait for their turn: their bits alone would take 125 MB. */
static void a_thousand_sets_at_rest_take_little_more_than_their_files(void **state)
{
	enum { N = 1000, N_WEIGHTS = 1000000, MB = 1000000 };
	const struct bench *bench = *state;
	const char *const name[] = { "weight" };
	const size_t size[] = { N_WEIGHTS };
	_cleanup_(mask_layout_freep) struct mask_layout *layout = NULL;
	_cleanup_(mask_freep) struct mask *mask = NULL;
	_cleanup_(freep) struct mask_set **sets = calloc(N, sizeof(struct mask_set *));
	const struct kmask_header kmask = { .base = bench->header.base, .steps = 1 };
	_cleanup_(freep) void *data = NULL;
	struct rng rng = rng_stream(43, 0, 0, 0);
	struct mask_set_header header;
	size_t n_bytes, before, after;

	assert_int_equal(mask_layout_new(&layout, 1, name, size), 0);
	assert_int_equal(mask_new(&mask, layout), 0);
	for (int i = 0; i < N_WEIGHTS / 500; i++)
		mask_put(mask, 0, rng_u32(&rng) % N_WEIGHTS, false);
	assert_int_equal(kmask_encode(mask, &kmask, &data, &n_bytes), 0);
	before = resident_bytes();
	for (int i = 0; i < N; i++) {
		assert_int_equal(mask_set_decode(&sets[i], &header, layout, &kmask.base, WIDTH,
					 data, n_bytes, NULL),
			0);
		assert_int_equal(mask_set_lay_down(sets[i]), 0);
	}
	after = resident_bytes();
	for (int i = 0; i < N; i++)
		mask_set_free(sets[i]);
	print_message(
		"%zu bytes coded, %zd resident a set\n", n_bytes, (ssize_t)(after - before) / N);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
	assert_true(after - before < N * n_bytes * 13 / 10 + 4 * MB);
#endif
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_set_that_was_laid_down_gives_the_same_masks),
		cmocka_unit_test(a_thousand_sets_at_rest_take_little_more_than_their_files),
		cmocka_unit_test(an_expert_sees_its_own_images_only),
		cmocka_unit_test(one_mask_alone_says_what_the_model_says),
		cmocka_unit_test(a_cascade_comes_back_from_its_file),
		cmocka_unit_test(every_wrong_field_is_named),
		cmocka_unit_test(every_flipped_or_missing_byte_is_found),
		cmocka_unit_test(another_base_and_another_width_are_refused),
		cmocka_unit_test(parts_that_do_not_fit_are_not_joined),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
