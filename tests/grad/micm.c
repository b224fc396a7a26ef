/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <string.h>
#include <cmocka.h>

#include "base/rng.h"
#include "fixture/tiny_vit.h"
#include "learn/micm_head.h"
#include "learn/micm_loss.h"

#define SEED 23u
#define STEP 2e-3f
enum { D = 8, HIDDEN = 10, DIM = 6, K = 7, BATCH = 4, VIEWS = 3, MASKED = 9 };
enum { ROWS = VIEWS * BATCH + MASKED, N_DIRECTIONS = 20 };

static const struct micm_head_shape head_shape = { D, HIDDEN, DIM, K };
static const struct micm_shape shape = { BATCH, VIEWS, K, .3f };

/* All that the losses see: class rows of every view, then masked patches. */
struct scene {
	struct micm_head *head;
	float *values, *grad;
	size_t n_values;
	float x[ROWS * D], t[ROWS * K], raw[2 * BATCH * K];
	uint32_t rows[MASKED], nearest[2 * BATCH];
};

/* Class, patch and pseudo-label loss through the head; the head then has their gradient. */
static double loss_of(struct scene *scene)
{
	float *d_o = micm_head_d_outputs(scene->head), pseudo[2 * BATCH * K];
	const float *o = micm_head_outputs(scene->head);
	const size_t n_class = (size_t)VIEWS * BATCH * K;
	double loss;

	memcpy(micm_head_input(scene->head), scene->x, sizeof(scene->x));
	assert_int_equal(micm_head_forward(scene->head, scene->values, ROWS), 0);
	loss = micm_class_loss(&shape, o, scene->t, d_o);
	loss += micm_patch_loss(
		&shape, scene->rows, o + n_class, scene->t + n_class, MASKED, d_o + n_class);
	loss += micm_pseudo_loss(&shape, o, scene->raw, scene->t, scene->nearest, pseudo);
	for (size_t i = 0; i < ARRAY_SIZE(pseudo); i++)
		d_o[i] += pseudo[i];
	return loss;
}

static void set_up_scene(struct scene *scene)
{
	struct rng rng = rng_stream(SEED, 0, 0, 0);

	scene->n_values = micm_head_size(&head_shape);
	scene->values = malloc(scene->n_values * sizeof(float));
	scene->grad = malloc(scene->n_values * sizeof(float));
	assert_true(scene->values && scene->grad);
	for (size_t i = 0; i < scene->n_values; i++)
		scene->values[i] = .6f * rng_normal(&rng);
	for (size_t i = 0; i < ARRAY_SIZE(scene->x); i++)
		scene->x[i] = rng_normal(&rng);
	for (size_t i = 0; i < ARRAY_SIZE(scene->raw); i++)
		scene->raw[i] = rng_normal(&rng);
	/* Targets that do not sum to 1: the gradient must not take it for granted. */
	for (size_t i = 0; i < ARRAY_SIZE(scene->t); i++)
		scene->t[i] = rng_uniform(&rng) / 3;
	for (uint32_t i = 0; i < MASKED; i++)
		scene->rows[i] = i * i / 11;
}

/* The slope along a random direction of n values, against their gradient's. */
static void check_slope(struct scene *scene, float *values, const float *grad, size_t n, uint32_t i)
{
	struct rng rng = rng_stream(SEED, i, (uint32_t)n, 1);
	float *way = malloc(n * sizeof(*way)), *kept = malloc(n * sizeof(*kept));
	double slope = 0, up, down;

	assert_true(way && kept);
	memcpy(kept, values, n * sizeof(*kept));
	for (size_t j = 0; j < n; j++) {
		way[j] = rng_normal(&rng) / sqrtf((float)n);
		slope += (double)way[j] * grad[j];
	}
	for (size_t j = 0; j < n; j++)
		values[j] = kept[j] + STEP * way[j];
	up = loss_of(scene);
	for (size_t j = 0; j < n; j++)
		values[j] = kept[j] - STEP * way[j];
	down = loss_of(scene);
	memcpy(values, kept, n * sizeof(*kept));
	if (!(fabs((up - down) / (2 * (double)STEP) - slope) < 5e-4))
		fail_msg("direction %u of %zu values: %.6f, by differences %.6f", i, n, slope,
			(up - down) / (2 * (double)STEP));
	free(way);
	free(kept);
}

static void gradients_equal_central_differences(void **state)
{
	struct tiny_vit tiny;
	static struct scene scene;
	float d_x[ROWS * D];
	double length = 0;

	(void)state;
	print_message("seed %u\n", SEED);
	set_up_scene(&scene);
	assert_int_equal(tiny_vit_new(&tiny, SEED), 0);
	assert_int_equal(micm_head_new(&scene.head, tiny.vit, &head_shape, ROWS), 0);
	(void)loss_of(&scene);
	assert_int_equal(micm_head_backward(scene.head, scene.values, ROWS, scene.grad), 0);
	memcpy(d_x, micm_head_d_input(scene.head), sizeof(d_x));
	for (size_t i = 0; i < scene.n_values; i++)
		length += (double)scene.grad[i] * scene.grad[i];
	/* Or else there is nothing to compare. */
	assert_true(length > .01);
	for (uint32_t i = 0; i < N_DIRECTIONS; i++) {
		check_slope(&scene, scene.values, scene.grad, scene.n_values, i);
		check_slope(&scene, scene.x, d_x, ARRAY_SIZE(scene.x), i);
	}
	micm_head_free(scene.head);
	tiny_vit_done(&tiny);
	free(scene.grad);
	free(scene.values);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(gradients_equal_central_differences),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
