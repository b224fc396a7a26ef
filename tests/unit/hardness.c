/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <math.h>
#include <string.h>
#include <cmocka.h>

#include "fixture/random_vit.h"
#include "golden/golden.h"
#include "learn/hardness.h"

enum { WIDTH = 12, INNER = 8, GRID = 3, LARGER = 5, T = 1 + GRID * GRID };

static const struct vit_shape shape = {
	.width = WIDTH,
	.depth = 1,
	.n_heads = 3,
	.mlp = 16,
	.patch = 8,
	.grid = GRID,
	.norm_eps = 1e-6f,
};

struct world {
	struct base *base;
	struct vit *vit;
	struct golden golden;
	struct hardness_info info;
	const float *values;
	void *file;
	size_t n_bytes;
};

static int open_world(void **state)
{
	struct world *world = calloc(1, sizeof(*world));

	if (!world || golden_open(&world->golden, "tests/golden/hardness.f32") < 0)
		return -1;
	world->base = random_base(&shape, 1);
	world->vit = random_vit(world->base);
	world->info = (struct hardness_info){
		.base = *vit_digest(world->vit),
		.mask = digest_of("mask", 4),
		.width = WIDTH,
		.grid = GRID,
		.inner = INNER,
		.depth = 2,
		.n_heads = 2,
		.n_mlp = 20,
	};
	world->values = golden_take(&world->golden, hardness_n_values(&world->info));
	*state = world;
	return hardness_encode(&world->info, world->values, &world->file, &world->n_bytes);
}

static int close_world(void **state)
{
	struct world *world = *state;

	free(world->file);
	golden_done(&world->golden);
	vit_free(world->vit);
	base_free(world->base);
	free(world);
	return 0;
}

static struct hardness *load(struct world *world)
{
	struct hardness *hardness = NULL;
	struct diag diag = { "" };

	if (hardness_load(&hardness, world->vit, world->file, world->n_bytes, &diag) < 0)
		fail_msg("%s", diag.text);
	return hardness;
}

static void a_map_equals_the_golden(void **state)
{
	struct world *world = *state;
	_cleanup_(hardness_freep) struct hardness *hardness = load(world);
	const float *tokens = golden_take(&world->golden, (size_t)2 * T * WIDTH);
	const float *want = golden_take(&world->golden, (size_t)2 * GRID * GRID);
	const float *more, *want_more;
	float map[LARGER * LARGER], again[2 * GRID * GRID];

	assert_int_equal(hardness_map(hardness, tokens, 2, GRID, map), 0);
	assert_true(relative_difference(map, want, (size_t)2 * GRID * GRID) < 1e-4);

	/* On another grid every patch keeps its place in the image. */
	more = golden_take(&world->golden, (size_t)(1 + LARGER * LARGER) * WIDTH);
	want_more = golden_take(&world->golden, (size_t)LARGER * LARGER);
	assert_int_equal(world->golden.used, world->golden.n);
	assert_int_equal(hardness_map(hardness, more, 1, LARGER, map), 0);
	assert_true(relative_difference(map, want_more, (size_t)LARGER * LARGER) < 1e-4);

	assert_int_equal(hardness_map(hardness, tokens, 2, GRID, again), 0);
	assert_true(relative_difference(again, want, (size_t)2 * GRID * GRID) < 1e-4);
	assert_int_equal(hardness_map(hardness, tokens, 1, 0, again), -EINVAL);
	assert_int_equal(hardness_map(hardness, tokens, 1, HARDNESS_MAX_GRID + 1, again), -EINVAL);
}

static void a_file_says_whose_it_is(void **state)
{
	struct world *world = *state;
	struct hardness_info info;
	struct hardness *hardness = NULL;
	struct diag diag = { "" };
	_cleanup_(freep) void *other = NULL;
	size_t n_bytes;

	assert_int_equal(hardness_check(&info, world->file, world->n_bytes, &diag), 0);
	assert_memory_equal(&info, &world->info, sizeof(info));
	info.base.bytes[0] ^= 1;
	assert_int_equal(hardness_encode(&info, world->values, &other, &n_bytes), 0);
	assert_int_equal(hardness_load(&hardness, world->vit, other, n_bytes, &diag), -ESTALE);
	info.inner = 6;
	assert_int_equal(hardness_encode(&info, world->values, &other, &n_bytes), -EINVAL);
}

static int check(const void *file, size_t n_bytes)
{
	struct hardness_info info;
	struct diag diag = { "" };
	int r = hardness_check(&info, file, n_bytes, &diag);

	if (r < 0)
		assert_true(diag.text[0]);
	return r;
}

/* The i-th byte behind the first `what` as another one. */
static int check_with(struct world *world, const char *what, size_t i, char byte)
{
	_cleanup_(freep) char *copy = malloc(world->n_bytes);
	char *at;

	assert_non_null(copy);
	memcpy(copy, world->file, world->n_bytes);
	at = memmem(copy, world->n_bytes, what, strlen(what));
	assert_non_null(at);
	assert_int_not_equal(at[i], byte);
	at[i] = byte;
	return check(copy, world->n_bytes);
}

static void a_spoilt_file_is_refused(void **state)
{
	struct world *world = *state;
	_cleanup_(freep) float *values = malloc(hardness_n_values(&world->info) * sizeof(*values));
	_cleanup_(freep) void *file = NULL;
	size_t n_bytes;

	assert_int_equal(check_with(world, "kamen hardness 1", 15, '2'), -EBADMSG);
	assert_int_equal(check_with(world, "entry.weight", 0, 'E'), -EBADMSG);
	assert_int_equal(check_with(world, "trunk.blocks.1.attn.qkv.bias", 13, '2'), -EBADMSG);
	assert_int_equal(check_with(world, "\"base\"", 1, 'B'), -EBADMSG);
	assert_int_equal(check_with(world, "\"mask\"", 1, 'M'), -EBADMSG);
	assert_int_equal(check_with(world, "\"num_heads\"", 1, 'N'), -EBADMSG);
	assert_int_equal(check_with(world, "\"num_heads\":\"2\"", 13, '3'), -EBADMSG);
	assert_int_equal(check_with(world, "\"grid\":\"3\"", 8, '0'), -EBADMSG);
	assert_int_equal(check_with(world, "\"grid\":\"3\"", 8, '-'), -EBADMSG);
	for (size_t n = 0; n < world->n_bytes; n += 97)
		assert_true(check(world->file, n) < 0);
	((uint8_t *)world->file)[world->n_bytes - 1] ^= 1;
	assert_int_equal(check(world->file, world->n_bytes), -EBADMSG);
	((uint8_t *)world->file)[world->n_bytes - 1] ^= 1;

	assert_non_null(values);
	memcpy(values, world->values, hardness_n_values(&world->info) * sizeof(*values));
	values[100] = nanf("");
	assert_int_equal(hardness_encode(&world->info, values, &file, &n_bytes), 0);
	assert_int_equal(check(file, n_bytes), -EBADMSG);
	assert_int_equal(check(world->file, HARDNESS_MAX_BYTES + 1), -EFBIG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_map_equals_the_golden, open_world, close_world),
		cmocka_unit_test_setup_teardown(a_file_says_whose_it_is, open_world, close_world),
		cmocka_unit_test_setup_teardown(a_spoilt_file_is_refused, open_world, close_world),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
