/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#define N_IMAGES 60u

#include "base/blob.h"
#include "fixture/learn_bench.h"
#include "learn/cascade.h"
#include "learn/embed.h"
#include "learn/warm.h"

enum { WIDTH = 48, STEPS = 6 };

/** A dispatcher that a short round has learnt. */
struct lesson {
	struct bench on;
	struct round *round;
	struct slot *slot;
};

static int set_up(void **state)
{
	static struct lesson lesson;
	struct recipe *recipe = &lesson.on.recipe;

	if (bench_new(&lesson.on) < 0 ||
		vit_slot_new(&lesson.slot, lesson.on.tiny.vit, SLOT_INFER) < 0)
		return -1;
	recipe->steps = STEPS;
	recipe->batch = 8;
	recipe->queue = 16;
	recipe->score_lr = .4f;
	lesson.round = start(&lesson.on, recipe);
	(void)run(lesson.round, STEPS);
	*state = &lesson;
	return 0;
}

static int clear(void **state)
{
	struct lesson *lesson = *state;

	round_free(lesson->round);
	slot_free(lesson->slot);
	bench_done(&lesson->on);
	return 0;
}

/* No floor is reached; what is far below what it began with is sound all the same. */
static const struct early_stop_limits lenient = { .density = .1, .loss_ratio = 10, .errors = -99 };

static struct cascade *begin_held(const struct lesson *lesson, uint32_t n_experts,
	const struct image_source *held, const struct early_stop_limits *limits)
{
	struct cascade_options options = cascade_options_default();
	struct cascade *cascade = NULL;
	struct diag diag = { "" };
	int r;

	options.n_experts = n_experts;
	options.n_route = 4;
	options.held = held;
	options.limits = *limits;
	r = cascade_new(&cascade, lesson->on.tiny.vit, &options, &lesson->on.recipe,
		&lesson->on.prep, &lesson->on.source, round_mask(lesson->round),
		round_scores(lesson->round), &diag);
	if (r < 0)
		print_message("%d: %s\n", r, diag.text);
	assert_int_equal(r, 0);
	return cascade;
}

static struct cascade *begin(const struct lesson *lesson, uint32_t n_experts)
{
	return begin_held(lesson, n_experts, NULL, &lenient);
}

/* @return how many steps it took */
static uint32_t finish(struct cascade *cascade)
{
	struct cascade_progress progress;
	uint32_t n = 0;
	int r;

	do {
		r = cascade_step(cascade, &progress, NULL);
		assert_true(r >= 0);
		n++;
	} while (r > 0);
	return n;
}

static float *embed(const struct lesson *lesson, struct cascade *cascade, enum cascade_mode mode)
{
	float *rows = malloc((size_t)N_IMAGES * cascade_width(cascade) * sizeof(*rows));

	assert_non_null(rows);
	assert_int_equal(cascade_embed(rows, cascade, mode, lesson->slot, &lesson->on.source), 0);
	return rows;
}

static void every_image_has_one_expert_and_all_learn_alike(void **state)
{
	const struct lesson *lesson = *state;
	_cleanup_(cascade_freep) struct cascade *cascade = begin(lesson, 2);
	uint32_t sum = 0, n_large = 0;

	for (uint32_t k = 0; k < 2; k++) {
		sum += cascade_n_images(cascade, k);
		n_large += cascade_n_images(cascade, k) >= CASCADE_MIN_IMAGES;
		assert_null(cascade_expert(cascade, k));
	}
	assert_int_equal(sum, N_IMAGES);
	assert_true(n_large > 0);
	/* A component that is too small takes one call and keeps the dispatcher's mask. */
	assert_int_equal(finish(cascade), n_large * STEPS + (2 - n_large) + 1);
	for (uint32_t k = 0; k < 2; k++) {
		size_t moved = mask_distance(cascade_expert(cascade, k), round_mask(lesson->round));

		assert_int_equal(moved > 0, cascade_n_images(cascade, k) >= CASCADE_MIN_IMAGES);
	}
}

static void fused_embeddings_of_its_own_images_are_white(void **state)
{
	const struct lesson *lesson = *state;
	_cleanup_(cascade_freep) struct cascade *cascade = begin(lesson, 2);

	(void)finish(cascade);
	for (enum cascade_mode mode = 0; mode < CASCADE_N_MODES; mode++) {
		_cleanup_(freep) float *rows = embed(lesson, cascade, mode);
		uint32_t width = cascade_width(cascade);

		assert_int_equal(width, WIDTH);
		/* The first directions; the last ones may be noise of the embeddings. */
		for (uint32_t a = 0; a < 6; a++)
			for (uint32_t b = 0; b <= a; b++) {
				double sum = 0;

				for (uint32_t i = 0; i < N_IMAGES; i++)
					sum += (double)rows[(size_t)i * width + a] *
					       (double)rows[(size_t)i * width + b];
				assert_true(fabs(sum - (a == b)) < 1e-3);
			}
	}
}

static void a_given_expert_is_not_learnt_again(void **state)
{
	const struct lesson *lesson = *state;
	_cleanup_(cascade_freep) struct cascade *first = begin(lesson, 2),
						*second = begin(lesson, 2);
	_cleanup_(freep) float *a = NULL, *b = NULL;

	(void)finish(first);
	assert_int_equal(
		cascade_embed(NULL, second, CASCADE_CONDITIONAL, lesson->slot, &lesson->on.source),
		-ENODATA);
	for (uint32_t k = 0; k < 2; k++)
		assert_int_equal(cascade_give(second, k, cascade_expert(first, k)), 0);
	assert_int_equal(cascade_give(second, 0, cascade_expert(first, 0)), -EBUSY);
	assert_int_equal(finish(second), 1);
	a = embed(lesson, first, CASCADE_CONDITIONAL);
	b = embed(lesson, second, CASCADE_CONDITIONAL);
	assert_memory_equal(a, b, (size_t)N_IMAGES * WIDTH * sizeof(*a));
	assert_int_equal(cascade_bytes(first, CASCADE_CONDITIONAL),
		((4 + 1) * WIDTH + 2 * (1 + 4 + 10) + (WIDTH + 1) * 3 * WIDTH) * 4);
}

static struct digest end_of(struct cascade *cascade, uint32_t *ret_n_steps)
{
	_cleanup_(mask_set_freep) struct mask_set *set = NULL;

	*ret_n_steps = finish(cascade);
	assert_int_equal(cascade_take(cascade, CASCADE_CONDITIONAL, &set), 0);
	return set->id;
}

/* Saved after every number of steps, learnt on by another process. */
static void a_cascade_that_was_saved_goes_on_to_the_same_bits(void **state)
{
	const struct lesson *lesson = *state;
	_cleanup_(cascade_freep) struct cascade *whole =
		begin_held(lesson, 2, &lesson->on.source, &lenient);
	char dir[] = "/tmp/cascade-XXXXXX", path[64];
	struct digest want;
	uint32_t n_steps;
	int dir_fd;

	want = end_of(whole, &n_steps);
	/* A good part of it are steps of an expert that is half learnt. */
	assert_true(n_steps >= 5);
	assert_non_null(mkdtemp(dir));
	dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(dir_fd >= 0);
	for (uint32_t n = 0; n < n_steps; n++) {
		const struct image_source *held = &lesson->on.source;
		_cleanup_(cascade_freep) struct cascade *first =
			begin_held(lesson, 2, held, &lenient);
		_cleanup_(cascade_freep) struct cascade *second =
			begin_held(lesson, 2, held, &lenient);
		struct cascade_progress progress;
		struct digest got;
		uint32_t n_left;

		if (n == 0)
			assert_int_equal(cascade_resume(second, dir_fd, "x", NULL), -ENOENT);
		for (uint32_t i = 0; i < n; i++)
			assert_int_equal(cascade_step(first, &progress, NULL), 1);
		assert_int_equal(cascade_save(first, dir_fd, "x"), 0);
		assert_int_equal(cascade_resume(second, dir_fd, "x", NULL), 0);
		got = end_of(second, &n_left);
		assert_int_equal(n_left, n_steps - n);
		assert_true(digest_equal(&want, &got));
	}
	(void)close(dir_fd);
	for (unsigned i = 0; i < 3; i++) {
		static const char *const suffixes[] = { "", ".round", ".best" };

		(void)snprintf(path, sizeof(path), "%s/x%s", dir, suffixes[i]);
		(void)unlink(path);
	}
	assert_int_equal(rmdir(dir), 0);
}

static void what_was_saved_of_something_else_is_refused(void **state)
{
	const struct lesson *lesson = *state;
	_cleanup_(cascade_freep) struct cascade *two = begin(lesson, 2), *three = begin(lesson, 3);
	char dir[] = "/tmp/cascade-XXXXXX";
	_cleanup_(freep) uint8_t *data = NULL;
	struct diag diag = { "" };
	size_t n_bytes;
	int dir_fd;

	assert_non_null(mkdtemp(dir));
	dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_int_equal(cascade_save(two, dir_fd, "x"), 0);
	assert_int_equal(cascade_resume(three, dir_fd, "x", &diag), -ESTALE);
	assert_int_equal(blob_read(dir_fd, "x", 1 << 20, (void **)&data, &n_bytes), 0);
	data[20] ^= 1;
	assert_int_equal(blob_write(dir_fd, "x", data, n_bytes), 0);
	assert_int_equal(cascade_resume(two, dir_fd, "x", &diag), -EBADMSG);
	assert_non_null(strstr(diag.text, "checksum"));
	assert_int_equal(blob_write(dir_fd, "x", data, 5), 0);
	assert_int_equal(cascade_resume(two, dir_fd, "x", &diag), -EBADMSG);
	assert_int_equal(unlinkat(dir_fd, "x", 0), 0);
	(void)close(dir_fd);
	assert_int_equal(rmdir(dir), 0);
}

/* One image after the other: rounding of another batch apart. */
static void assert_alone_the_same(
	const struct lesson *lesson, const struct mask_set *set, const float *rows, uint32_t width)
{
	for (uint32_t i = 0; i < N_IMAGES; i += 7) {
		struct embed_part part = { &lesson->on.source, &i, 1 };
		const struct image_source one = embed_part_source(&part);
		float alone[WIDTH];

		assert_int_equal(judge_embed_set(alone, lesson->on.tiny.vit, lesson->slot, set,
					 &lesson->on.prep, &one),
			0);
		for (uint32_t j = 0; j < width; j++)
			assert_true(fabsf(alone[j] - rows[(size_t)i * width + j]) < 1e-3f);
	}
}

static void what_is_served_says_what_was_learnt(void **state)
{
	const struct lesson *lesson = *state;

	for (enum cascade_mode mode = 0; mode < CASCADE_N_MODES; mode++) {
		_cleanup_(cascade_freep) struct cascade *cascade = begin(lesson, 2);
		_cleanup_(mask_set_freep) struct mask_set *taken = NULL, *set = NULL;
		_cleanup_(freep) float *rows = NULL, *served = NULL;
		_cleanup_(freep) void *data = NULL;
		struct mask_set_header header = { .base = *vit_digest(lesson->on.tiny.vit) };
		uint32_t width = cascade_width(cascade);
		size_t n_bytes, n_beside;

		assert_int_equal(cascade_take(cascade, mode, &taken), -ENODATA);
		(void)finish(cascade);
		rows = embed(lesson, cascade, mode);
		n_beside = cascade_bytes(cascade, mode);
		assert_int_equal(cascade_take(cascade, mode, &taken), 0);
		assert_int_equal(mask_set_encode(taken, &header, &data, &n_bytes), 0);
		assert_int_equal(
			mask_set_decode(&set, &header, vit_layout(lesson->on.tiny.vit),
				vit_digest(lesson->on.tiny.vit), WIDTH, data, n_bytes, NULL),
			0);
		/* Nothing is stored that is not counted. */
		assert_int_equal(
			n_bytes, n_beside + header.mask_bytes + 160 + 3 * sizeof(uint64_t) + 16);
		served = malloc((size_t)N_IMAGES * width * sizeof(*served));
		assert_non_null(served);
		assert_int_equal(judge_embed_set(served, lesson->on.tiny.vit, lesson->slot, set,
					 &lesson->on.prep, &lesson->on.source),
			0);
		assert_memory_equal(rows, served, (size_t)N_IMAGES * width * sizeof(*rows));
		assert_alone_the_same(lesson, set, rows, width);
	}
}

static size_t furthest_from_dispatcher(
	const struct lesson *lesson, const struct early_stop_limits *limits)
{
	_cleanup_(cascade_freep) struct cascade *cascade =
		begin_held(lesson, 2, &lesson->on.source, limits);
	size_t furthest = 0;

	(void)finish(cascade);
	for (uint32_t k = 0; k < 2; k++) {
		size_t moved = mask_distance(cascade_expert(cascade, k), round_mask(lesson->round));

		furthest = moved > furthest ? moved : furthest;
	}
	return furthest;
}

/* Below a floor, or above all of them without being better than what it began with. */
static void an_expert_without_a_sound_mask_is_the_dispatcher(void **state)
{
	const struct lesson *lesson = *state;
	struct early_stop_limits limits = lenient;

	assert_true(furthest_from_dispatcher(lesson, &limits) > 0);
	limits.errors = 99;
	assert_int_equal(furthest_from_dispatcher(lesson, &limits), 0);
	limits = (struct early_stop_limits){ .density = 1.1 };
	assert_int_equal(furthest_from_dispatcher(lesson, &limits), 0);
}

/** The few images over and over; counts how often one is asked for. */
struct crowd {
	const struct image_source *few;
	uint32_t n_gets;
};

static int crowd_get(void *owner, uint32_t i, struct image_view *ret_view)
{
	struct crowd *crowd = owner;

	crowd->n_gets++;
	return crowd->few->get(crowd->few->owner, i % crowd->few->n, ret_view);
}

static void of_many_images_some_are_fitted_to_and_all_divided(void **state)
{
	const struct lesson *lesson = *state;
	_cleanup_(cascade_freep) struct cascade *cascade = NULL;
	const struct cascade_options options = { .n_experts = 1, .n_route = 4 };
	struct crowd crowd = { .few = &lesson->on.source };
	const struct image_source source = { .owner = &crowd,
		.n = WARM_MAX_IMAGES + 7,
		.get = crowd_get,
		.manifest = crowd.few->manifest };
	struct cascade_progress progress;

	assert_int_equal(cascade_new(&cascade, lesson->on.tiny.vit, &options, &lesson->on.recipe,
				 &lesson->on.prep, &source, round_mask(lesson->round),
				 round_scores(lesson->round), NULL),
		0);
	assert_int_equal(crowd.n_gets, WARM_MAX_IMAGES + source.n);
	assert_int_equal(cascade_n_images(cascade, 0), source.n);
	assert_int_equal(cascade_give(cascade, 0, round_mask(lesson->round)), 0);
	crowd.n_gets = 0;
	assert_int_equal(cascade_step(cascade, &progress, NULL), 0);
	assert_int_equal(crowd.n_gets, 2 * WARM_MAX_IMAGES);
}

static void options_out_of_range_are_refused(void **state)
{
	const struct lesson *lesson = *state;
	const struct cascade_options options[] = { { 0, 4 }, { CASCADE_MAX_EXPERTS + 1, 4 },
		{ 2, 0 }, { 2, WIDTH + 1 } };
	struct cascade *cascade = NULL;

	for (size_t i = 0; i < ARRAY_SIZE(options); i++)
		assert_int_equal(
			cascade_new(&cascade, lesson->on.tiny.vit, &options[i], &lesson->on.recipe,
				&lesson->on.prep, &lesson->on.source, round_mask(lesson->round),
				round_scores(lesson->round), NULL),
			-EINVAL);
	assert_null(cascade);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_image_has_one_expert_and_all_learn_alike),
		cmocka_unit_test(fused_embeddings_of_its_own_images_are_white),
		cmocka_unit_test(a_given_expert_is_not_learnt_again),
		cmocka_unit_test(a_cascade_that_was_saved_goes_on_to_the_same_bits),
		cmocka_unit_test(what_was_saved_of_something_else_is_refused),
		cmocka_unit_test(what_is_served_says_what_was_learnt),
		cmocka_unit_test(an_expert_without_a_sound_mask_is_the_dispatcher),
		cmocka_unit_test(of_many_images_some_are_fitted_to_and_all_divided),
		cmocka_unit_test(options_out_of_range_are_refused),
	};

	return cmocka_run_group_tests(tests, set_up, clear);
}
