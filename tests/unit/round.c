/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <string.h>
#include <cmocka.h>

#include "base/blob.h"
#include "base/rng.h"
#include "fixture/close.h"
#include "fixture/learn_bench.h"
#include "learn/judge.h"
#include "learn/round_state.h"
#include "learn/swav_objective.h"

static int set_up(void **state)
{
	static struct bench bench;

	if (bench_new(&bench) < 0)
		return -1;
	bench.recipe.steps = 12;
	bench.recipe.batch = 8;
	bench.recipe.queue = 24;
	bench.recipe.score_lr = .25f;
	*state = &bench;
	return 0;
}

static void a_fresh_mask_gives_the_frozen_outputs_bit_for_bit(void **state)
{
	const struct bench *bench = *state;
	_cleanup_(round_freep) struct round *round = start(bench, &bench->recipe);
	_cleanup_(slot_freep) struct slot *slot = NULL;
	static float frozen[N_IMAGES * 48], masked[N_IMAGES * 48];

	assert_int_equal(vit_slot_new(&slot, bench->tiny.vit, SLOT_INFER), 0);
	assert_int_equal(slot_apply(slot, NULL), 0);
	assert_int_equal(
		judge_embed(frozen, bench->tiny.vit, slot, &bench->prep, &bench->source), 0);
	assert_int_equal(slot_apply(slot, round_mask(round)), 0);
	assert_int_equal(
		judge_embed(masked, bench->tiny.vit, slot, &bench->prep, &bench->source), 0);
	assert_memory_equal(frozen, masked, sizeof(frozen));
}

static void the_loss_falls_and_bits_move(void **state)
{
	const struct bench *bench = *state;
	struct recipe recipe = bench->recipe;
	_cleanup_(round_freep) struct round *round = NULL;
	struct round_progress progress;
	float early = 0, late = 0;

	recipe.steps = 40;
	recipe.score_lr = .08f;
	round = start(bench, &recipe);
	for (unsigned i = 0; i < 40; i++) {
		progress = run(round, 1);
		assert_true(progress.loss_ratio > 0 && progress.loss_ratio < 4);
		if (i < 5)
			early += progress.loss_ratio / 5;
		else if (i >= 35)
			late += progress.loss_ratio / 5;
	}
	print_message("loss / ln K %.3f -> %.3f, density %.4f, lowest %.4f, %llu flips\n", early,
		late, progress.density, progress.lowest_density,
		(unsigned long long)progress.n_flips);
	assert_true(late < early);
	assert_true(progress.n_flips > 0);
	assert_true(progress.density < 1 && progress.density > .5);
	assert_true(progress.lowest_density <= progress.density);
	assert_true(mask_density(round_mask(round)) == progress.density);
}

static void the_same_seed_gives_the_same_bits(void **state)
{
	const struct bench *bench = *state;
	struct recipe other = bench->recipe;
	_cleanup_(round_freep) struct round *a = start(bench, &bench->recipe);
	_cleanup_(round_freep) struct round *b = start(bench, &bench->recipe);
	_cleanup_(round_freep) struct round *c = NULL;
	struct round_progress pa = run(a, 12), pb = run(b, 12), pc;

	other.seed++;
	c = start(bench, &other);
	pc = run(c, 12);
	assert_true(pa.n_flips > 0);
	assert_int_equal(mask_distance(round_mask(a), round_mask(b)), 0);
	assert_true(pa.loss_ratio == pb.loss_ratio);
	assert_true(mask_distance(round_mask(a), round_mask(c)) > 0);
	assert_true(pa.loss_ratio != pc.loss_ratio);
}

/* Field by field: what pads the struct is nobody's. */
static void assert_same_progress(const struct round_progress *a, const struct round_progress *b)
{
	assert_int_equal(a->step, b->step);
	assert_int_equal(a->steps, b->steps);
	assert_true(a->loss_ratio == b->loss_ratio);
	assert_true(a->density == b->density);
	assert_true(a->lowest_density == b->lowest_density);
	assert_int_equal(a->n_flips, b->n_flips);
}

static void a_resumed_round_gives_the_same_bits(void **state)
{
	const struct bench *bench = *state;
	char dir[] = "/tmp/kamen-round-XXXXXX";
	_cleanup_(closep) int fd = -1;

	assert_non_null(mkdtemp(dir));
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	/* Before the head is warm, before and after the queue fills, and at the end. */
	for (uint32_t at = 0; at <= 12; at += 4) {
		_cleanup_(round_freep) struct round *whole = start(bench, &bench->recipe);
		_cleanup_(round_freep) struct round *killed = start(bench, &bench->recipe);
		_cleanup_(round_freep) struct round *resumed = start(bench, &bench->recipe);
		struct round_progress want = run(whole, 12), got;
		struct diag diag;

		(void)run(killed, at);
		assert_int_equal(round_save(killed, fd, "round"), 0);
		assert_int_equal(round_resume(resumed, fd, "round", &diag), 0);
		got = run(resumed, at < 12 ? 12 - at : 1);
		assert_int_equal(mask_distance(round_mask(whole), round_mask(resumed)), 0);
		assert_true(want.n_flips > 0);
		assert_same_progress(&want, &got);
	}
	assert_int_equal(unlinkat(fd, "round", 0), 0);
	assert_int_equal(rmdir(dir), 0);
}

/* What an expert of a cascade does. */
static void a_round_goes_on_from_the_scores_of_another(void **state)
{
	const struct bench *bench = *state;
	_cleanup_(round_freep) struct round *first = start(bench, &bench->recipe);
	_cleanup_(round_freep) struct round *onward = start(bench, &bench->recipe);
	_cleanup_(round_freep) struct round *resumed = start(bench, &bench->recipe);
	_cleanup_(closep) int fd = -1;
	char dir[] = "/tmp/kamen-round-XXXXXX";
	size_t n_bytes = vit_layout(bench->tiny.vit)->n_elements * sizeof(float);

	assert_non_null(mkdtemp(dir));
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	(void)run(first, 12);
	round_start_at(onward, round_scores(first));
	assert_memory_equal(round_scores(onward), round_scores(first), n_bytes);
	assert_int_equal(mask_distance(round_mask(onward), round_mask(first)), 0);
	round_start_at(resumed, round_scores(first));
	assert_int_equal(round_save(resumed, fd, "round"), 0);
	assert_int_equal(round_resume(resumed, fd, "round", NULL), 0);
	(void)run(onward, 6);
	(void)run(resumed, 6);
	assert_memory_equal(round_scores(onward), round_scores(resumed), n_bytes);
	assert_true(mask_distance(round_mask(onward), round_mask(first)) > 0);
	assert_int_equal(unlinkat(fd, "round", 0), 0);
	assert_int_equal(rmdir(dir), 0);
}

static void a_checkpoint_of_another_round_is_refused(void **state)
{
	struct bench *bench = *state;
	char dir[] = "/tmp/kamen-round-XXXXXX";
	_cleanup_(round_freep) struct round *round = start(bench, &bench->recipe);
	_cleanup_(round_freep) struct round *other = NULL, *moved = NULL;
	_cleanup_(freep) uint8_t *data = NULL;
	_cleanup_(closep) int fd = -1;
	struct recipe recipe = bench->recipe;
	struct digest manifest = bench->source.manifest;
	struct diag diag;
	uint64_t checksum;
	size_t n_bytes;

	assert_non_null(mkdtemp(dir));
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_int_equal(round_resume(round, fd, "round", &diag), -ENOENT);
	(void)run(round, 2);
	assert_int_equal(round_save(round, fd, "round"), 0);

	recipe.seed++;
	other = start(bench, &recipe);
	assert_int_equal(round_resume(other, fd, "round", &diag), -ESTALE);
	assert_non_null(strstr(diag.text, "recipe"));
	bench->source.manifest.bytes[0] ^= 1;
	moved = start(bench, &bench->recipe);
	bench->source.manifest = manifest;
	assert_int_equal(round_resume(moved, fd, "round", &diag), -ESTALE);
	assert_non_null(strstr(diag.text, "manifest"));

	assert_int_equal(blob_read(fd, "round", 1 << 30, (void **)&data, &n_bytes), 0);
	assert_int_equal(blob_write(fd, "round", data, n_bytes - 1), 0);
	assert_int_equal(round_resume(round, fd, "round", &diag), -EBADMSG);
	for (size_t i = 0; i < n_bytes; i += n_bytes / 50) {
		data[i] ^= 4;
		assert_int_equal(blob_write(fd, "round", data, n_bytes), 0);
		assert_int_equal(round_resume(round, fd, "round", &diag), -EBADMSG);
		data[i] ^= 4;
	}
	/* As an older program wrote it: whole, but with other meanings. */
	assert_memory_equal(data, "KAMNRND4", 8);
	data[7] = '3';
	checksum = digest_checksum(data, n_bytes - sizeof(checksum));
	memcpy(data + n_bytes - sizeof(checksum), &checksum, sizeof(checksum));
	assert_int_equal(blob_write(fd, "round", data, n_bytes), 0);
	assert_int_equal(round_resume(round, fd, "round", &diag), -EBADMSG);
	/* A refused checkpoint has changed nothing. */
	assert_int_equal(run(round, 1).step, 3);
	assert_int_equal(unlinkat(fd, "round", 0), 0);
	assert_int_equal(rmdir(dir), 0);
}

/* Theorem 2 (algorithms.md 1.4) with a power of two: nothing rounds differently. */
static void doubling_scores_and_rate_leaves_every_mask_as_it_is(void **state)
{
	const struct bench *bench = *state;
	struct recipe single = bench->recipe, twice;
	_cleanup_(round_freep) struct round *a = NULL, *b = NULL;
	uint64_t n_flips = 0;

	single.optimiser = RECIPE_SGD;
	single.score_lr = 1000;
	single.score_spread = .25f;
	single.warm_up = .25f;
	twice = single;
	twice.score_lr *= 2;
	twice.score_init *= 2;
	a = start(bench, &single);
	b = start(bench, &twice);
	for (unsigned i = 0; i < 12; i++) {
		struct round_progress pa = run(a, 1), pb = run(b, 1);

		assert_int_equal(mask_distance(round_mask(a), round_mask(b)), 0);
		assert_true(pa.loss_ratio == pb.loss_ratio);
		n_flips = pa.n_flips;
	}
	print_message("%llu flips\n", (unsigned long long)n_flips);
	assert_true(n_flips > 0);
}

/* ... and doubling the rate alone does not: the test above can fail. */
static void doubling_the_rate_alone_changes_the_mask(void **state)
{
	const struct bench *bench = *state;
	struct recipe single = bench->recipe, twice;
	_cleanup_(round_freep) struct round *a = NULL, *b = NULL;

	single.optimiser = RECIPE_SGD;
	single.score_lr = 1000;
	twice = single;
	twice.score_lr *= 2;
	a = start(bench, &single);
	b = start(bench, &twice);
	(void)run(a, 12);
	(void)run(b, 12);
	assert_true(mask_distance(round_mask(a), round_mask(b)) > 0);
}

/* Theorem 1 (algorithms.md 1.4): start and threshold moved by the same. Exact in real numbers;
 * scores of another size round elsewhere, and a bit that does so is followed by others. */
static void moving_start_and_threshold_together_leaves_the_masks_as_they_are(void **state)
{
	const struct bench *bench = *state;

	for (unsigned optimiser = RECIPE_ADAM; optimiser <= RECIPE_SGD; optimiser++) {
		struct recipe recipe = bench->recipe;
		_cleanup_(round_freep) struct round *a = NULL, *b = NULL, *c = NULL;
		uint64_t n_flips, n_apart, n_moved_alone;

		recipe.optimiser = optimiser;
		recipe.steps = 6;
		recipe.score_lr = optimiser == RECIPE_SGD ? 1000 : .4f;
		a = start(bench, &recipe);
		recipe.score_init = 2.5f;
		c = start(bench, &recipe);
		recipe.score_threshold = 1.5f;
		b = start(bench, &recipe);
		n_flips = run(a, 6).n_flips;
		(void)run(b, 6);
		(void)run(c, 6);
		n_apart = mask_distance(round_mask(a), round_mask(b));
		n_moved_alone = mask_distance(round_mask(a), round_mask(c));
		print_message("%llu flips, %llu apart; %llu with the start moved alone\n",
			(unsigned long long)n_flips, (unsigned long long)n_apart,
			(unsigned long long)n_moved_alone);
		assert_true(n_flips > 50);
		assert_true(n_apart <= n_flips / 50);
		assert_true(n_moved_alone > n_flips / 5);
	}
}

static void what_the_source_says_comes_out_and_leaves_no_trace(void **state)
{
	struct bench *bench = *state;
	_cleanup_(round_freep) struct round *round = start(bench, &bench->recipe);
	_cleanup_(round_freep) struct round *other = start(bench, &bench->recipe);
	struct round_progress progress, want;

	for (unsigned i = 0; i < 12; i++) {
		bench->textures.fail_with = -EIO;
		assert_int_equal(round_step(round, &progress), -EIO);
		bench->textures.fail_with = 0;
		progress = run(round, 1);
		want = run(other, 1);
		assert_same_progress(&progress, &want);
	}
	assert_memory_equal(round->state, other->state, round->n_state * sizeof(*round->state));
}

/* Features that are no numbers fail a step as late as it can: nothing of it must stay. */
static void a_step_without_a_loss_leaves_no_trace(void **state)
{
	const struct bench *bench = *state;
	_cleanup_(round_freep) struct round *round = start(bench, &bench->recipe);
	struct swav_objective *swav = (struct swav_objective *)round->objective;
	_cleanup_(freep) float *before = NULL;
	struct round_progress progress;
	float bias;

	(void)run(round, 9);
	assert_true(swav->queues[0].n > 0);
	bias = swav->head.bias[0];
	swav->head.bias[0] = nanf("");
	before = malloc(round->n_state * sizeof(*before));
	memcpy(before, round->state, round->n_state * sizeof(*before));
	assert_int_equal(round_step(round, &progress), -EDOM);
	assert_memory_equal(before, round->state, round->n_state * sizeof(*before));
	assert_int_equal(round->step, 9);
	swav->head.bias[0] = bias;
	assert_int_equal(run(round, 1).step, 10);
}

static void progress_tells_the_mean_of_the_last_losses(void **state)
{
	const struct bench *bench = *state;
	_cleanup_(round_freep) struct round *round = start(bench, &bench->recipe);
	double losses[12], scale = log(bench->recipe.n_prototypes);

	for (int i = 0; i < 12; i++) {
		struct round_progress progress = run(round, 1);
		double sum = 0;
		int first = i < 4 ? 0 : i - 4;

		losses[i] = round->losses[i % 5];
		assert_true(losses[i] > 0 && (i == 0 || losses[i] != losses[i - 1]));
		for (int j = first; j <= i; j++)
			sum += losses[j];
		assert_true(fabs(progress.loss_ratio - sum / (i + 1 - first) / scale) < 1e-6);
	}
}

static void a_recipe_out_of_range_is_named(void **state)
{
	const struct bench *bench = *state;
	struct recipe recipe = bench->recipe;
	struct digest before = recipe_digest(&recipe), after;
	struct diag diag;

	assert_int_equal(recipe_check(&recipe, bench->tiny.vit, N_IMAGES, &diag), 0);
	recipe.batch = N_IMAGES + 1;
	assert_int_equal(recipe_check(&recipe, bench->tiny.vit, N_IMAGES, &diag), -EINVAL);
	assert_non_null(strstr(diag.text, "batch"));
	recipe = bench->recipe;
	recipe.large_px = 33;
	assert_int_equal(recipe_check(&recipe, bench->tiny.vit, N_IMAGES, &diag), -EINVAL);
	assert_non_null(strstr(diag.text, "large_px"));
	recipe = bench->recipe;
	recipe.head_dim = N_IMAGES;
	assert_int_equal(recipe_check(&recipe, bench->tiny.vit, N_IMAGES, &diag), -EINVAL);
	assert_non_null(strstr(diag.text, "head_dim"));
	recipe = bench->recipe;
	recipe.n_prototypes = 5000;
	assert_int_equal(recipe_check(&recipe, bench->tiny.vit, 10000, &diag), -EINVAL);
	assert_non_null(strstr(diag.text, "prototypes"));
	recipe = bench->recipe;
	recipe.sinkhorn_eps = nanf("");
	assert_int_equal(recipe_check(&recipe, bench->tiny.vit, N_IMAGES, &diag), -EINVAL);
	after = recipe_digest(&recipe);
	assert_false(digest_equal(&before, &after));
	for (uint32_t n = 4; n < 300; n++) {
		recipe = recipe_default(bench->tiny.vit, &bench->prep, n);
		assert_int_equal(recipe_check(&recipe, bench->tiny.vit, n, &diag), 0);
	}
}

static void a_score_travels_equally_far_in_any_number_of_steps(void **state)
{
	const struct bench *bench = *state;
	struct recipe recipe = recipe_default(bench->tiny.vit, &bench->prep, N_IMAGES);

	assert_int_equal(recipe.steps, 100);
	assert_true(fabsf(recipe.score_lr - .03f) < 1e-7f);
	for (uint32_t steps = 50; steps < 3000; steps += 50)
		assert_true(
			fabsf(recipe_score_lr(steps) * (float)steps / 2 - RECIPE_TRAVEL) < 1e-4f);
	for (uint32_t steps = 0; steps < 50; steps++)
		assert_true(recipe_score_lr(steps) == RECIPE_MAX_SCORE_LR);
}

/* White around what a centre crop serves: views of it are the views of what is left without. */
static void what_a_site_crops_away_is_not_seen(void **state)
{
	enum { WIDTH = 64, HEIGHT = 48, X = 12, Y = 4, SIDE = 40 };
	const struct bench *bench = *state;
	static uint8_t whole[WIDTH * HEIGHT], part[SIDE * SIDE];
	static float a[3 * 32 * 32], b[3 * 32 * 32];
	_cleanup_(views_freep) struct views *crop = NULL, *squash = NULL;
	struct prep prep = bench->prep;
	const struct image_view all = { whole, WIDTH, HEIGHT, 1, WIDTH };
	const struct image_view served = { part, SIDE, SIDE, 1, SIDE };
	struct rng rng = rng_stream(3, 0, 0, 0);

	memset(whole, 255, sizeof(whole));
	for (unsigned i = 0; i < SIDE * SIDE; i++)
		whole[(Y + i / SIDE) * WIDTH + X + i % SIDE] = part[i] = (uint8_t)rng_u32(&rng);
	prep.input_px = 40;
	prep.crop = 40 / 48.f;
	prep.resize = PREP_CROP;
	assert_int_equal(views_new(&crop, &bench->recipe, 2, &prep, &bench->source), 0);
	prep.resize = PREP_SQUASH;
	assert_int_equal(views_new(&squash, &bench->recipe, 2, &prep, &bench->source), 0);
	for (unsigned i = 0; i < 20; i++) {
		assert_int_equal(views_apply(crop, &all, rng_stream(5, i, 0, 0), 0, a), 0);
		assert_int_equal(views_apply(squash, &served, rng_stream(5, i, 0, 0), 0, b), 0);
		assert_memory_equal(a, b, sizeof(a));
	}
	assert_int_equal(views_apply(squash, &all, rng_stream(5, 0, 0, 0), 0, a), 0);
	assert_int_equal(views_apply(squash, &served, rng_stream(5, 0, 0, 0), 0, b), 0);
	assert_memory_not_equal(a, b, sizeof(a));
}

/* A recipe that learns at half the size is judged at the whole one. */
static void the_judge_looks_at_the_size_that_is_served(void **state)
{
	const struct bench *bench = *state;
	_cleanup_(slot_freep) struct slot *slot = NULL;
	struct recipe half = bench->recipe;
	struct prep small = bench->prep;
	struct judge_image images[JUDGE_MAX_IMAGES];
	struct judgement a, b, c;

	half.large_px = small.input_px = bench->prep.input_px / 2;
	assert_int_equal(vit_slot_new(&slot, bench->tiny.vit, SLOT_INFER), 0);
	assert_int_equal(slot_apply(slot, NULL), 0);
	assert_int_equal(judge_views(&a, images, bench->tiny.vit, slot, &bench->recipe,
				 &bench->prep, &bench->source),
		0);
	assert_int_equal(
		judge_views(&b, images, bench->tiny.vit, slot, &half, &bench->prep, &bench->source),
		0);
	assert_int_equal(
		judge_views(&c, images, bench->tiny.vit, slot, &half, &small, &bench->source), 0);
	assert_memory_equal(&a, &b, sizeof(a));
	assert_memory_not_equal(&a, &c, sizeof(a));
}

static void the_judge_is_repeatable_and_in_range(void **state)
{
	const struct bench *bench = *state;
	_cleanup_(slot_freep) struct slot *slot = NULL;
	struct judge_image first[JUDGE_MAX_IMAGES], second[JUDGE_MAX_IMAGES];
	struct judgement a, b;

	assert_int_equal(vit_slot_new(&slot, bench->tiny.vit, SLOT_INFER), 0);
	assert_int_equal(slot_apply(slot, NULL), 0);
	assert_int_equal(judge_views(&a, first, bench->tiny.vit, slot, &bench->recipe, &bench->prep,
				 &bench->source),
		0);
	assert_int_equal(judge_views(&b, second, bench->tiny.vit, slot, &bench->recipe,
				 &bench->prep, &bench->source),
		0);
	assert_memory_equal(&a, &b, sizeof(a));
	assert_memory_equal(first, second, a.n * sizeof(*first));
	print_message(
		"retrieval %.3f margin %.2f rank %.1f\n", a.retrieval, a.margin, a.effective_rank);
	assert_int_equal(a.n, bench->source.n);
	assert_true(a.retrieval >= 0 && a.retrieval <= 1);
	assert_true(isfinite(a.margin));
	assert_true(a.effective_rank > 1 && a.effective_rank <= 48);
}

static void twins_are_found_where_there_are_twins(void **state)
{
	enum { N = 50, WIDTH = 8 };
	static float rows[2 * N * WIDTH], strangers[2 * N * WIDTH];
	struct rng rng = rng_stream(5, 0, 0, 0);
	struct judge_image images[N], found[N];
	struct judgement twins, random;

	(void)state;
	for (unsigned i = 0; i < N * WIDTH; i++) {
		rows[i] = rng_normal(&rng);
		/* Twice as long: only the direction counts. */
		rows[N * WIDTH + i] = 2 * rows[i] + .1f * rng_normal(&rng);
		strangers[i] = rows[i];
		strangers[N * WIDTH + i] = rng_normal(&rng);
	}
	assert_int_equal(judge_rows(&twins, found, rows, N, WIDTH), 0);
	assert_int_equal(judge_rows(&random, images, strangers, N, WIDTH), 0);
	assert_true(twins.retrieval > .98f);
	assert_true(random.retrieval < .1f);
	assert_true(twins.margin > 2 && fabsf(random.margin) < .5f);
	/* Directions of equal strength: all eight count. */
	assert_true(random.effective_rank > 7 && random.effective_rank <= 8);
	judge_compare(&twins, found, images);
	assert_true(twins.retrieval - random.retrieval > 5 * twins.retrieval_error);
	assert_true(twins.margin - random.margin > 5 * twins.margin_error);
	assert_int_equal(judge_rows(&twins, found, rows, 2, WIDTH), -EINVAL);
}

static void neighbours_are_shared_as_far_as_spaces_agree(void **state)
{
	enum { N = 200, WIDTH = 16 };
	static float rows[N * WIDTH], near[N * WIDTH], other[N * WIDTH], same[N * WIDTH];
	struct rng rng = rng_stream(6, 0, 0, 0);
	float own, little, none, collapsed;

	(void)state;
	for (unsigned i = 0; i < N * WIDTH; i++) {
		rows[i] = rng_normal(&rng);
		near[i] = 3 * rows[i] + .3f * rng_normal(&rng);
		other[i] = rng_normal(&rng);
		same[i] = 1;
	}
	assert_int_equal(judge_neighbours(&own, rows, WIDTH, rows, WIDTH, N), 0);
	assert_int_equal(judge_neighbours(&little, rows, WIDTH, near, WIDTH, N), 0);
	assert_int_equal(judge_neighbours(&none, rows, WIDTH, other, WIDTH, N), 0);
	assert_int_equal(judge_neighbours(&collapsed, rows, WIDTH, same, WIDTH, N), 0);
	assert_close(own, 1, 0);
	assert_true(little > .6f && little < 1);
	/* By chance 10 of 199. */
	assert_true(fabsf(none - 10.f / 199) < .02f);
	assert_true(fabsf(collapsed - 10.f / 199) < .02f);
	assert_int_equal(judge_neighbours(&own, rows, WIDTH, rows, WIDTH, 19), -EINVAL);
}

/* Four prototypes along two axes: embeddings on all of them use all, on one use that one. */
static void a_heads_entropy_is_how_many_prototypes_are_used(void **state)
{
	float values[] = { 1, 0, 0, 1, 0, 0, 1, 0, -1, 0, 0, 1, 0, -1 };
	const float spread[] = { 2, 0, -3, 0, 0, 1, 0, -1 }, one[] = { 2, 0, 3, 0 };
	const struct head head = head_map(values, 2, 2, 4);
	float all, alike;

	(void)state;
	assert_int_equal(judge_entropy(&all, &head, .1f, spread, 4), 0);
	assert_int_equal(judge_entropy(&alike, &head, .1f, one, 2), 0);
	assert_close(all, 1, 1e-4);
	assert_close(alike, 0, 1e-2);
	assert_int_equal(judge_entropy(&alike, &head, .1f, one, 0), -EINVAL);
}

/* By hand: differences 1, 0, -1, 2 have mean .5 and variance 5/3; 1.5 each has no spread. */
static void differences_are_paired_by_image(void **state)
{
	const struct judge_image frozen[] = { { 0, 1 }, { .5, 2 }, { 1, 9 }, { 0, 0 } };
	const struct judge_image masked[] = { { 1, 2.5 }, { .5, 3.5 }, { 0, 10.5 }, { 2, 1.5 } };
	struct judgement judgement = { .n = 4 };

	(void)state;
	judge_compare(&judgement, masked, frozen);
	assert_close(judgement.retrieval_error, sqrt(5. / 3 / 4), 1e-6);
	assert_close(judgement.margin_error, 0, 1e-6);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_fresh_mask_gives_the_frozen_outputs_bit_for_bit),
		cmocka_unit_test(the_loss_falls_and_bits_move),
		cmocka_unit_test(the_same_seed_gives_the_same_bits),
		cmocka_unit_test(a_resumed_round_gives_the_same_bits),
		cmocka_unit_test(a_round_goes_on_from_the_scores_of_another),
		cmocka_unit_test(a_checkpoint_of_another_round_is_refused),
		cmocka_unit_test(doubling_scores_and_rate_leaves_every_mask_as_it_is),
		cmocka_unit_test(doubling_the_rate_alone_changes_the_mask),
		cmocka_unit_test(moving_start_and_threshold_together_leaves_the_masks_as_they_are),
		cmocka_unit_test(what_the_source_says_comes_out_and_leaves_no_trace),
		cmocka_unit_test(a_step_without_a_loss_leaves_no_trace),
		cmocka_unit_test(progress_tells_the_mean_of_the_last_losses),
		cmocka_unit_test(a_recipe_out_of_range_is_named),
		cmocka_unit_test(a_score_travels_equally_far_in_any_number_of_steps),
		cmocka_unit_test(what_a_site_crops_away_is_not_seen),
		cmocka_unit_test(the_judge_looks_at_the_size_that_is_served),
		cmocka_unit_test(the_judge_is_repeatable_and_in_range),
		cmocka_unit_test(twins_are_found_where_there_are_twins),
		cmocka_unit_test(neighbours_are_shared_as_far_as_spaces_agree),
		cmocka_unit_test(a_heads_entropy_is_how_many_prototypes_are_used),
		cmocka_unit_test(differences_are_paired_by_image),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
