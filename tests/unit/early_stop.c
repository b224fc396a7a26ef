/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/blob.h"
#include "base/rng.h"
#include "fixture/close.h"
#include "fixture/learn_bench.h"
#include "learn/early_stop.h"

#define N_MASKS 6u
#define STEPS 100u
#define FILE_NAME "best"

/** The masks that are shown, and where what is kept is saved. */
struct shelf {
	struct bench on;
	struct mask *masks[N_MASKS]; /* at random, each with more bits off */
	char dir[32];
	int dir_fd;
};

static const struct early_stop_limits limits = {
	.density = .5, .lowest_density = .3, .rank_share = .1f, .loss_ratio = 1, .errors = 1000
};

static int set_up(void **state)
{
	static struct shelf shelf;
	const struct mask_layout *layout;

	if (bench_new(&shelf.on) < 0)
		return -1;
	shelf.on.recipe.steps = STEPS;
	layout = vit_layout(shelf.on.tiny.vit);
	for (unsigned i = 0; i < N_MASKS; i++) {
		struct rng rng = rng_stream(21, i, 0, 0);

		if (mask_new(&shelf.masks[i], layout) < 0)
			return -1;
		for (unsigned t = 0; t < layout->n_tensors; t++)
			for (size_t j = 0; j < layout->tensors[t].n; j++)
				if (rng_uniform(&rng) < .01f * (float)(i + 1))
					mask_put(shelf.masks[i], t, j, false);
	}
	(void)snprintf(shelf.dir, sizeof(shelf.dir), "%s", "/tmp/kamen-stop.XXXXXX");
	shelf.dir_fd =
		mkdtemp(shelf.dir) ? open(shelf.dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	*state = &shelf;
	return shelf.dir_fd < 0 ? -1 : 0;
}

static int clear(void **state)
{
	struct shelf *shelf = *state;

	(void)unlinkat(shelf->dir_fd, FILE_NAME, 0);
	(void)close(shelf->dir_fd);
	(void)rmdir(shelf->dir);
	for (unsigned i = 0; i < N_MASKS; i++)
		mask_free(shelf->masks[i]);
	bench_done(&shelf->on);
	return 0;
}

static struct early_stop *start_with(
	const struct shelf *shelf, const struct early_stop_limits *some_limits)
{
	struct early_stop *stop;

	assert_int_equal(early_stop_new(&stop, shelf->on.tiny.vit, &shelf->on.recipe,
				 &shelf->on.prep, &shelf->on.source, NULL, some_limits),
		0);
	return stop;
}

static struct early_stop *watch(const struct shelf *shelf)
{
	return start_with(shelf, &limits);
}

static struct round_progress progress_of(const struct mask *mask, uint32_t step)
{
	return (struct round_progress){ .step = step,
		.steps = STEPS,
		.loss_ratio = .5f,
		.density = mask_density(mask),
		.lowest_density = mask_lowest_density(mask),
		.n_flips = mask->layout->n_elements -
			   (uint64_t)(mask_density(mask) * (double)mask->layout->n_elements) };
}

static int show(struct early_stop *stop, const struct mask *mask, uint32_t step, struct diag *diag)
{
	const struct round_progress progress = progress_of(mask, step);

	return early_stop_step(stop, &progress, mask, diag);
}

/* The margin of a mask by the judge itself, with a look's effort. */
static float margin_of(const struct shelf *shelf, const struct mask *mask)
{
	_cleanup_(slot_freep) struct slot *slot = NULL;
	struct judge_image images[N_IMAGES];
	struct judgement judgement;

	assert_int_equal(vit_slot_new(&slot, shelf->on.tiny.vit, SLOT_INFER), 0);
	assert_int_equal(slot_apply(slot, mask), 0);
	assert_int_equal(
		judge_some(&judgement, images, shelf->on.tiny.vit, slot, &shelf->on.recipe,
			&shelf->on.prep, &shelf->on.source, (struct judge_effort){ N_IMAGES, 1 }),
		0);
	return judgement.margin;
}

static unsigned best_of(const struct shelf *shelf)
{
	unsigned best = 0;

	for (unsigned i = 1; i < N_MASKS; i++)
		if (margin_of(shelf, shelf->masks[i]) > margin_of(shelf, shelf->masks[best]))
			best = i;
	return best;
}

/* Every mask is sound where the margin may be far below the frozen one's, but for its loss. */
static void the_latest_sound_mask_is_kept(void **state)
{
	const struct shelf *shelf = *state;
	struct early_stop_limits lenient = limits;
	_cleanup_(early_stop_freep) struct early_stop *stop = NULL;
	struct round_progress lost = progress_of(shelf->masks[4], 50);
	struct diag diag = { "" };

	lenient.errors = -1000;
	stop = start_with(shelf, &lenient);
	for (unsigned i = 0; i < 4; i++)
		(void)show(stop, shelf->masks[i], 10 * (i + 1), &diag);
	assert_int_equal(early_stop_best(stop).progress.step, 40);
	lost.loss_ratio = 1.2f;
	(void)early_stop_step(stop, &lost, shelf->masks[4], &diag);
	assert_int_equal(early_stop_best(stop).progress.step, 40);
	assert_int_equal(mask_distance(early_stop_mask(stop), shelf->masks[3]), 0);
	assert_true(early_stop_is_sound(stop));
}

static void where_none_is_sound_the_best_is_kept_and_not_the_last(void **state)
{
	const struct shelf *shelf = *state;
	_cleanup_(early_stop_freep) struct early_stop *stop = watch(shelf);
	struct diag diag = { "" };
	unsigned best = best_of(shelf);

	assert_null(early_stop_mask(stop));
	/* Between two looks nothing is looked at. */
	assert_int_equal(show(stop, shelf->masks[best], 1, &diag), 0);
	assert_null(early_stop_mask(stop));
	for (unsigned i = 0; i < N_MASKS; i++)
		assert_int_equal(show(stop, shelf->masks[i], 10 * (i + 1), &diag), 0);
	assert_int_equal(early_stop_best(stop).progress.step, 10 * (best + 1));
	assert_int_equal(mask_distance(early_stop_mask(stop), shelf->masks[best]), 0);
	assert_int_equal(early_stop_mask(stop)->n_on[0], shelf->masks[best]->n_on[0]);
	assert_false(early_stop_is_sound(stop));
	assert_string_equal(diag.text, "");
}

static void a_crash_of_the_density_stops_and_is_never_kept(void **state)
{
	const struct shelf *shelf = *state;
	_cleanup_(early_stop_freep) struct early_stop *stop = watch(shelf);
	struct round_progress crashed = progress_of(shelf->masks[1], 20);
	struct diag diag = { "" };

	assert_int_equal(show(stop, shelf->masks[0], 10, &diag), 0);
	crashed.lowest_density = .29;
	assert_int_equal(early_stop_step(stop, &crashed, shelf->masks[1], &diag), 1);
	assert_non_null(strstr(diag.text, "step 20 of 100: the density crashes"));
	assert_int_equal(early_stop_best(stop).progress.step, 10);
}

static void a_round_in_which_no_bit_moves_is_stopped(void **state)
{
	const struct shelf *shelf = *state;
	_cleanup_(early_stop_freep) struct early_stop *stop = watch(shelf);
	_cleanup_(mask_freep) struct mask *all = NULL;
	struct diag diag = { "" };

	assert_int_equal(mask_new(&all, vit_layout(shelf->on.tiny.vit)), 0);
	assert_int_equal(show(stop, all, 79, &diag), 0);
	assert_int_equal(show(stop, all, 80, &diag), 1);
	assert_non_null(strstr(diag.text, "no bit has moved"));
	assert_null(early_stop_mask(stop));
}

/* The maps of a version that is held may still be asked for: they are of what has learnt longest. */
static void where_maps_are_learnt_a_round_goes_on_and_the_latest_is_kept(void **state)
{
	struct shelf other = *(struct shelf *)*state;
	_cleanup_(early_stop_freep) struct early_stop *still = NULL, *stop = NULL;
	_cleanup_(mask_freep) struct mask *all = NULL;
	struct diag diag = { "" };
	unsigned best = best_of(&other);

	other.on.recipe.objective = RECIPE_HPM;
	still = watch(&other);
	assert_int_equal(mask_new(&all, vit_layout(other.on.tiny.vit)), 0);
	for (uint32_t step = 80; step <= STEPS; step++)
		assert_int_equal(show(still, all, step, &diag), 0);
	assert_null(early_stop_mask(still));
	stop = watch(&other);
	assert_int_equal(show(stop, other.masks[best], 10, &diag), 0);
	assert_int_equal(show(stop, other.masks[best ? 0 : 1], 20, &diag), 0);
	assert_int_equal(early_stop_best(stop).progress.step, 20);
	assert_false(early_stop_is_sound(stop));
}

/* Every look is surely below the frozen model where the margin's error counts against it. */
static void a_mask_that_comes_apart_ends_its_round_but_where_maps_are_learnt(void **state)
{
	struct shelf other = *(struct shelf *)*state;
	struct early_stop_limits harsh = limits;
	_cleanup_(early_stop_freep) struct early_stop *stop = NULL, *maps = NULL;
	struct diag diag = { "" };

	harsh.errors = -1000;
	harsh.loss_ratio = .1f;
	stop = start_with(&other, &harsh);
	other.on.recipe.objective = RECIPE_HPM;
	maps = start_with(&other, &harsh);
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(show(maps, other.masks[i], 10 * (i + 1), &diag), 0);
		assert_int_equal(show(stop, other.masks[i], 10 * (i + 1), &diag), i == 2);
	}
	assert_non_null(strstr(diag.text, "come apart"));
	assert_int_equal(early_stop_best(maps).progress.step, 30);
}

static void with_too_few_images_the_last_mask_is_the_best(void **state)
{
	struct shelf few = *(struct shelf *)*state;
	_cleanup_(early_stop_freep) struct early_stop *stop = NULL;
	struct diag diag = { "" };

	few.on.source.n = EARLY_STOP_MIN_IMAGES - 1;
	stop = watch(&few);
	assert_int_equal(show(stop, few.masks[0], 50, &diag), 0);
	assert_null(early_stop_mask(stop));
	assert_false(early_stop_is_sound(stop));
	assert_int_equal(show(stop, few.masks[2], STEPS, &diag), 0);
	assert_true(early_stop_is_sound(stop));
	assert_int_equal(mask_distance(early_stop_mask(stop), few.masks[2]), 0);
}

static void what_is_kept_survives_a_kill(void **state)
{
	const struct shelf *shelf = *state;
	_cleanup_(early_stop_freep) struct early_stop *whole = watch(shelf),
						      *resumed = watch(shelf);
	struct diag diag = { "" };

	for (unsigned i = 0; i < N_MASKS; i++) {
		assert_int_equal(show(whole, shelf->masks[i], 10 * (i + 1), &diag), 0);
		if (i == 2)
			assert_int_equal(early_stop_save(whole, shelf->dir_fd, FILE_NAME), 0);
	}
	assert_int_equal(early_stop_resume(resumed, shelf->dir_fd, FILE_NAME, &diag), 0);
	/* The checkpoint was older: steps come again, and are not looked at again. */
	for (unsigned i = 1; i < N_MASKS; i++)
		assert_int_equal(show(resumed, shelf->masks[i], 10 * (i + 1), &diag), 0);
	assert_int_equal(
		early_stop_best(resumed).progress.step, early_stop_best(whole).progress.step);
	assert_int_equal(mask_distance(early_stop_mask(resumed), early_stop_mask(whole)), 0);
	assert_memory_equal(early_stop_mask(resumed)->n_on, early_stop_mask(whole)->n_on,
		vit_layout(shelf->on.tiny.vit)->n_tensors * sizeof(size_t));
}

/* A figure's name is an address: what is read back must have this process's. */
static void figures_have_their_names_after_a_kill(void **state)
{
	static const char *const names[] = { "reconstruction", "ranking", "pairs" };
	struct shelf other = *(struct shelf *)*state;
	_cleanup_(early_stop_freep) struct early_stop *stop = NULL, *resumed = NULL;
	struct round_progress progress = progress_of(other.masks[0], 10);
	char of_a_process_that_is_gone[16] = "gone";
	struct early_stop_best best;
	struct diag diag = { "" };

	other.on.recipe.objective = RECIPE_HPM;
	stop = watch(&other);
	resumed = watch(&other);
	progress.n_figures = 3;
	for (unsigned i = 0; i < 3; i++)
		progress.figures[i] =
			(struct objective_figure){ of_a_process_that_is_gone, .5f + (float)i };
	assert_int_equal(early_stop_step(stop, &progress, other.masks[0], &diag), 0);
	assert_int_equal(early_stop_save(stop, other.dir_fd, FILE_NAME), 0);
	memset(of_a_process_that_is_gone, 'x', sizeof(of_a_process_that_is_gone));
	assert_int_equal(early_stop_resume(resumed, other.dir_fd, FILE_NAME, &diag), 0);
	best = early_stop_best(resumed);
	assert_int_equal(best.progress.step, 10);
	assert_int_equal(best.progress.n_figures, 3);
	for (unsigned i = 0; i < 3; i++) {
		assert_string_equal(best.progress.figures[i].name, names[i]);
		assert_close(best.progress.figures[i].value, .5 + i, 0);
	}
}

static void a_file_that_does_not_fit_is_refused(void **state)
{
	struct shelf other = *(struct shelf *)*state;
	_cleanup_(early_stop_freep) struct early_stop *stop = watch(&other), *stranger = NULL;
	_cleanup_(freep) char *data = NULL;
	struct diag diag = { "" };
	uint64_t checksum;
	size_t n_bytes;

	assert_int_equal(show(stop, other.masks[0], 10, &diag), 0);
	assert_int_equal(early_stop_save(stop, other.dir_fd, FILE_NAME), 0);
	other.on.recipe.seed++;
	stranger = watch(&other);
	assert_int_equal(early_stop_resume(stranger, other.dir_fd, FILE_NAME, &diag), -ESTALE);
	assert_int_equal(blob_read(other.dir_fd, FILE_NAME, 1 << 20, (void **)&data, &n_bytes), 0);
	/* As an older program wrote it. */
	assert_memory_equal(data, "KAMNBST4", 8);
	data[7] = '3';
	checksum = digest_checksum(data, n_bytes - sizeof(checksum));
	memcpy(data + n_bytes - sizeof(checksum), &checksum, sizeof(checksum));
	assert_int_equal(blob_write(other.dir_fd, FILE_NAME, data, n_bytes), 0);
	assert_int_equal(early_stop_resume(stop, other.dir_fd, FILE_NAME, &diag), -EBADMSG);
	data[7] = '4';
	data[n_bytes / 2] ^= 1;
	assert_int_equal(blob_write(other.dir_fd, FILE_NAME, data, n_bytes), 0);
	assert_int_equal(early_stop_resume(stop, other.dir_fd, FILE_NAME, &diag), -EBADMSG);
	assert_non_null(strstr(diag.text, "checksum"));
	assert_int_equal(blob_write(other.dir_fd, FILE_NAME, data, 100), 0);
	assert_int_equal(early_stop_resume(stop, other.dir_fd, FILE_NAME, &diag), -EBADMSG);
	assert_int_equal(early_stop_best(stop).progress.step, 10);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_latest_sound_mask_is_kept),
		cmocka_unit_test(where_none_is_sound_the_best_is_kept_and_not_the_last),
		cmocka_unit_test(a_crash_of_the_density_stops_and_is_never_kept),
		cmocka_unit_test(a_round_in_which_no_bit_moves_is_stopped),
		cmocka_unit_test(where_maps_are_learnt_a_round_goes_on_and_the_latest_is_kept),
		cmocka_unit_test(a_mask_that_comes_apart_ends_its_round_but_where_maps_are_learnt),
		cmocka_unit_test(with_too_few_images_the_last_mask_is_the_best),
		cmocka_unit_test(what_is_kept_survives_a_kill),
		cmocka_unit_test(figures_have_their_names_after_a_kill),
		cmocka_unit_test(a_file_that_does_not_fit_is_refused),
	};

	return cmocka_run_group_tests(tests, set_up, clear);
}
