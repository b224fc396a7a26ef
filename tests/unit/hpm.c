/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <string.h>
#include <cmocka.h>

#include "fixture/random_vit.h"
#include "golden/golden.h"
#include "learn/patch_loss.h"
#include "learn/patch_mask.h"

static void patches_and_losses_equal_the_golden(void **state)
{
	enum { PX = 12, PATCH = 4, L = 9, P = 3 * PATCH * PATCH, N = 10, DIM = 6, B = 4, M = 7 };
	struct golden golden = { 0 };
	float rows[L * P], losses[N], d[N * DIM], d_p[B * M];
	const float *pixels, *want;
	struct patch_rows pair = { .n = N, .dim = DIM };
	struct patch_ranks ranks = { .n_images = B, .n = M };
	double loss;

	(void)state;
	assert_int_equal(golden_open(&golden, "tests/golden/patch_loss.f32"), 0);
	pixels = golden_take(&golden, 3 * PX * PX);
	patch_cut(rows, pixels, PX, PATCH);
	assert_memory_equal(rows, golden_take(&golden, L * P), sizeof(rows));
	patch_normalise(rows, L, P);
	assert_true(relative_difference(rows, golden_take(&golden, L * P), L * P) < 1e-5);

	pair.predicted = golden_take(&golden, N * DIM);
	pair.target = golden_take(&golden, N * DIM);
	(void)patch_loss(&pair, losses, d);
	assert_true(relative_difference(losses, golden_take(&golden, N), N) < 1e-5);
	assert_true(relative_difference(d, golden_take(&golden, N * DIM), N * DIM) < 1e-5);
	(void)patch_feature_loss(&pair, losses, d);
	assert_true(relative_difference(losses, golden_take(&golden, N), N) < 1e-5);
	assert_true(relative_difference(d, golden_take(&golden, N * DIM), N * DIM) < 1e-5);

	ranks.predicted = golden_take(&golden, B * M);
	ranks.losses = golden_take(&golden, B * M);
	loss = patch_rank_loss(&ranks, d_p);
	want = golden_take(&golden, 1);
	assert_true(fabs(loss - *want) < 1e-5 * *want);
	assert_true(relative_difference(d_p, golden_take(&golden, B * M), B * M) < 1e-5);
	loss = patch_score_loss(&ranks, d_p);
	want = golden_take(&golden, 1);
	assert_true(fabs(loss - *want) < 1e-5 * *want);
	assert_true(relative_difference(d_p, golden_take(&golden, B * M), B * M) < 1e-5);
	assert_int_equal(golden.used, golden.n);
	golden_done(&golden);
}

/* The mean of the targets, as they are or of length 1, for every row. */
static void say_the_mean(
	float *predicted, const float *target, uint32_t n, uint32_t dim, bool of_length_1)
{
	memset(predicted, 0, (size_t)n * dim * sizeof(*predicted));
	for (uint32_t i = 0; i < n; i++) {
		double length = 0;

		for (uint32_t j = 0; j < dim; j++)
			length += (double)target[i * dim + j] * target[i * dim + j];
		for (uint32_t k = 0; k < n * dim; k++)
			predicted[k] += target[i * dim + k % dim] /
					(of_length_1 ? (float)sqrt(length) : (float)n);
	}
}

static void a_guess_is_the_least_that_one_answer_costs(void **state)
{
	enum { N = 9, DIM = 5 };
	struct rng rng = rng_stream(8, 0, 0, 0);
	float target[N * DIM], predicted[N * DIM], losses[N], d[N * DIM], scratch[DIM];
	const struct patch_rows rows = { N, DIM, predicted, target };
	double mean, direction;

	(void)state;
	for (uint32_t i = 0; i < N * DIM; i++)
		target[i] = 1 + rng_normal(&rng);
	say_the_mean(predicted, target, N, DIM, false);
	mean = patch_guess(&rows);
	assert_true(fabs(mean - patch_loss(&rows, losses, d)) < 1e-5);
	say_the_mean(predicted, target, N, DIM, true);
	direction = patch_feature_guess(&rows, scratch);
	assert_true(fabs(direction - patch_feature_loss(&rows, losses, d)) < 1e-5);
	for (uint32_t k = 0; k < N * DIM; k++)
		predicted[k] += k % DIM == 1 ? .3f : 0;
	assert_true(patch_loss(&rows, losses, d) > mean);
	assert_true(patch_feature_loss(&rows, losses, d) > direction);
	/* Targets that are all the same leave nothing to guess, and no division by 0. */
	for (uint32_t i = DIM; i < N * DIM; i++)
		target[i] = target[i - DIM];
	assert_true(patch_guess(&rows) > 0 && patch_guess(&rows) < 1e-5);
	assert_true(patch_feature_guess(&rows, scratch) > 0);
	assert_true(patch_feature_guess(&rows, scratch) < 1e-5);
}

static void patches_without_a_pair_cost_nothing(void **state)
{
	const float predicted[6] = { 1, -2, 3, 4, 5, -6 };
	const float ties[6] = { .5f, .5f, .5f, 2, 2, 2 }, apart[6] = { 1, 2, 3, 3, 2, 1 };
	float d[6];

	(void)state;
	/* Fewer than two distinct losses in each image: no pair, and not 0 / 0. */
	assert_true(patch_rank_loss(&(struct patch_ranks){ 2, 3, predicted, ties }, d) == 0);
	for (unsigned i = 0; i < 6; i++)
		assert_true(d[i] == 0);
	/* One patch an image. */
	assert_true(patch_rank_loss(&(struct patch_ranks){ 6, 1, predicted, apart }, d) == 0);
	for (unsigned i = 0; i < 6; i++)
		assert_true(d[i] == 0);
	assert_true(isfinite(patch_score_loss(&(struct patch_ranks){ 6, 1, predicted, apart }, d)));
	assert_true(isfinite(patch_score_loss(&(struct patch_ranks){ 2, 3, predicted, ties }, d)));
	for (unsigned i = 0; i < 6; i++)
		assert_true(isfinite(d[i]));
	assert_true(patch_rank_loss(&(struct patch_ranks){ 0, 3, NULL, NULL }, d) == 0);
}

static void a_certain_mistake_costs_a_bounded_amount(void **state)
{
	const float predicted[2] = { 1000, -1000 }, losses[2] = { 1, 2 };
	float d[2];
	double loss = patch_rank_loss(&(struct patch_ranks){ 1, 2, predicted, losses }, d);

	(void)state;
	assert_true(fabs(loss - -log(1e-6)) < 1e-6);
	assert_true(isfinite(d[0]) && isfinite(d[1]));
}

static void rows_without_a_direction_stay_finite(void **state)
{
	const float zero[4] = { 0 }, target[4] = { 1, 2, 3, 4 };
	float loss, d[4], flat[4] = { 7, 7, 7, 7 };

	(void)state;
	(void)patch_feature_loss(&(struct patch_rows){ 1, 4, zero, target }, &loss, d);
	assert_true(fabsf(loss - 1) < 1e-6f);
	for (unsigned i = 0; i < 4; i++)
		assert_true(isfinite(d[i]));
	patch_normalise(flat, 1, 4);
	for (unsigned i = 0; i < 4; i++)
		assert_true(flat[i] == 0);
}

static void counts_are_exact(void **state)
{
	(void)state;
	assert_int_equal(patch_mask_n_kept(196, .75f), 49);
	assert_int_equal(patch_mask_n_kept(49, .75f), 12);
	assert_int_equal(patch_mask_n_kept(64, .75f), 16);
	assert_int_equal(patch_mask_n_kept(1, .75f), 1);
	assert_int_equal(patch_mask_n_kept(9, 0), 9);
	for (uint32_t n = 1; n <= 1024; n++)
		for (uint32_t hundredth = 0; hundredth < 100; hundredth++) {
			uint32_t want = n * (100 - hundredth) / 100;

			assert_int_equal(
				patch_mask_n_kept(n, (float)hundredth / 100), want > 0 ? want : 1);
		}
	assert_int_equal(patch_mask_n_hard(147, .5), 73);
	assert_int_equal(patch_mask_n_hard(147, 0), 0);
	assert_int_equal(patch_mask_n_hard(147, 1), 147);
}

static void the_hard_share_rises_to_its_end(void **state)
{
	(void)state;
	for (uint32_t steps = 1; steps <= 300; steps++)
		for (uint32_t step = 0; step < steps; step++)
			assert_int_equal(
				patch_mask_n_hard(147, patch_mask_share(0, .5f, step, steps)),
				147 * (step + 1) / (2 * steps));
	assert_int_equal(patch_mask_n_hard(37, patch_mask_share(0, .5f, 99, 100)), 18);
	/* The other way, and all from the start, as an ablation has it. */
	assert_int_equal(patch_mask_n_hard(100, patch_mask_share(1, 0, 99, 100)), 0);
	assert_int_equal(patch_mask_n_hard(100, patch_mask_share(1, 1, 0, 100)), 100);
}

enum { L = 20, KEPT = 5 };

/* Fills hidden[] of the choice; checks that it is a partition in order. */
static void choose(const struct patch_mask *mask, const float *hardness, struct rng *rng,
	bool hidden[static L])
{
	bool seen[L] = { false };
	uint32_t order[L];

	patch_mask_choose(mask, hardness, rng, order);
	for (uint32_t i = 0; i < L; i++) {
		assert_true(order[i] < L && !seen[order[i]]);
		seen[order[i]] = true;
		hidden[order[i]] = i >= mask->n_kept;
		if (i > 0 && i != mask->n_kept)
			assert_true(order[i] > order[i - 1]);
	}
}

static void the_hardest_are_hidden_and_chance_has_the_rest(void **state)
{
	enum { HARD = 6, DRAWS = 4000 };
	const struct patch_mask mask = { L, KEPT, HARD };
	struct rng rng = rng_stream(3, 0, 0, 0);
	unsigned n_hidden[L] = { 0 };
	float hardness[L];

	(void)state;
	for (uint32_t i = 0; i < L; i++)
		hardness[i] = (float)(i * 7 % L);
	for (unsigned draw = 0; draw < DRAWS; draw++) {
		bool hidden[L];

		choose(&mask, hardness, &rng, hidden);
		for (uint32_t i = 0; i < L; i++)
			n_hidden[i] += hidden[i];
	}
	for (uint32_t i = 0; i < L; i++) {
		const double want = (double)(L - KEPT - HARD) / (L - HARD);

		if (hardness[i] >= L - HARD)
			assert_int_equal(n_hidden[i], DRAWS);
		else
			assert_true(fabs((double)n_hidden[i] / DRAWS - want) < .04);
	}
}

static void of_equal_patches_the_first_count_as_harder(void **state)
{
	const struct patch_mask all = { L, KEPT, L - KEPT }, none = { L, KEPT, 0 };
	struct rng rng = rng_stream(4, 0, 0, 0);
	float hardness[L] = { 0 };
	bool hidden[L];
	uint32_t n = 0;

	(void)state;
	choose(&all, hardness, &rng, hidden);
	for (uint32_t i = 0; i < L; i++)
		assert_true(hidden[i] == (i < L - KEPT));
	/* What is no number is the easiest. */
	hardness[0] = nanf("");
	hardness[L - 1] = INFINITY;
	choose(&all, hardness, &rng, hidden);
	assert_false(hidden[0]);
	assert_true(hidden[L - 1]);
	choose(&none, NULL, &rng, hidden);
	for (uint32_t i = 0; i < L; i++)
		n += hidden[i];
	assert_int_equal(n, L - KEPT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(patches_and_losses_equal_the_golden),
		cmocka_unit_test(a_guess_is_the_least_that_one_answer_costs),
		cmocka_unit_test(patches_without_a_pair_cost_nothing),
		cmocka_unit_test(a_certain_mistake_costs_a_bounded_amount),
		cmocka_unit_test(rows_without_a_direction_stay_finite),
		cmocka_unit_test(counts_are_exact),
		cmocka_unit_test(the_hard_share_rises_to_its_end),
		cmocka_unit_test(the_hardest_are_hidden_and_chance_has_the_rest),
		cmocka_unit_test(of_equal_patches_the_first_count_as_harder),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
