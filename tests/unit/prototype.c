/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <math.h>
#include <cmocka.h>

#include "base/rng.h"
#include "classify/prototype.h"
#include "classify/unknown.h"
#include "fixture/close.h"

#define SEED 67

static void a_class_is_the_mean_of_directions(void **state)
{
	/* Lengths do not count: without them the mean of class 0 is (1, 1) / 2. */
	static const float features[3 * 2] = { 100, 0, 0, 1, -2, 0 };
	static const uint32_t labels[] = { 0, 0, 1 };
	_cleanup_(prototypes_freep) struct prototypes *p = NULL, *copy = NULL;
	struct prototype_answer answer, copied;
	float confidences[2];

	(void)state;
	assert_int_equal(prototypes_new(&p, features, labels, 3, 2, 2), 0);
	assert_close(p->rows[0], sqrtf(.5F), 1e-6);
	assert_close(p->rows[1], sqrtf(.5F), 1e-6);
	assert_close(p->means[0], .5, 1e-6);
	assert_int_equal(p->n_supports[0], 2);
	assert_close(p->temperature, PROTOTYPE_TEMPERATURE, 0);
	answer = prototypes_classify(p, (float[]){ 7, 7 }, confidences);
	assert_int_equal(answer.class, 0);
	assert_close(answer.cosine, 1, 1e-6);
	assert_int_equal(
		prototypes_of_means(&copy, p->means, p->n_supports, 2, 2, p->temperature), 0);
	copied = prototypes_classify(copy, (float[]){ 7, 7 }, NULL);
	assert_close(copied.confidence, answer.confidence, 0);
	assert_close(confidences[0], answer.confidence, 1e-6);
	assert_close(confidences[0] + confidences[1], 1, 1e-6);
	answer = prototypes_classify(p, (float[]){ -1, -.1F }, confidences);
	assert_int_equal(answer.class, 1);
	assert_close(confidences[1], answer.confidence, 1e-6);
	answer = prototypes_classify(p, (float[]){ 0, 0 }, confidences);
	assert_close(answer.cosine, 0, 0);
	assert_close(confidences[1], .5, 1e-6);
	answer = prototypes_classify(p, (float[]){ NAN, 0 }, NULL);
	assert_close(answer.confidence, .5, 1e-6);
}

static void a_few_that_are_all_right_are_not_sure_of_everything(void **state)
{
	/* Two classes at a right angle, of three images each that hardly differ. */
	static const float features[6 * 3] = { 1, 0, .1F, 1, 0, -.1F, 1, .1F, 0, 0, 1, .1F, 0, 1,
		-.1F, .1F, 1, 0 };
	static const uint32_t labels[] = { 0, 0, 0, 1, 1, 1 };
	_cleanup_(prototypes_freep) struct prototypes *p = NULL;

	(void)state;
	assert_int_equal(prototypes_new(&p, features, labels, 6, 3, 2), 0);
	print_message("temperature %.4f, confidence %.4f\n", (double)p->temperature,
		(double)p->worth[0].confidence);
	for (uint32_t c = 0; c < 2; c++) {
		assert_int_equal(p->worth[c].n_judged, 3);
		assert_int_equal(p->worth[c].n_right, 3);
		/* Of seven one by chance: 13 / 14. */
		assert_close(p->worth[c].confidence, 13. / 14, .03);
	}
}

static void a_class_is_worth_what_its_left_out_supports_say(void **state)
{
	/* The last of class 0 is one of class 1; class 2 has one alone. */
	static const float features[7 * 3] = { 1, 0, 0, 1, .1F, 0, .2F, 1, 0, 0, 1, 0, .1F, 1, 0, 0,
		1, .1F, 0, 0, 1 };
	static const uint32_t labels[] = { 0, 0, 0, 1, 1, 1, 2 };
	_cleanup_(prototypes_freep) struct prototypes *p = NULL, *alone = NULL;

	(void)state;
	assert_int_equal(prototypes_new(&p, features, labels, 7, 3, 3), 0);
	assert_int_equal(p->worth[0].n_judged, 3);
	assert_int_equal(p->worth[0].n_right, 2);
	assert_int_equal(p->worth[1].n_right, 3);
	assert_true(p->worth[0].confidence < p->worth[1].confidence);
	assert_int_equal(p->worth[2].n_judged, 0);
	assert_true(isnan(p->worth[2].confidence));
	assert_int_equal(prototypes_new(&alone, features, (uint32_t[]){ 0, 0 }, 2, 3, 1), 0);
	assert_int_equal(alone->worth[0].n_judged, 0);
	assert_true(isnan(alone->worth[0].confidence));
}

static void a_class_spreads_as_far_as_its_left_out_supports_are(void **state)
{
	/* Left out they are 1 from class 0, nothing from class 1; class 2 has one. */
	static const float features[5 * 4] = { 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0,
		0, 1 };
	static const uint32_t labels[] = { 0, 0, 1, 1, 2 };
	_cleanup_(prototypes_freep) struct prototypes *p = NULL, *same = NULL, *copy = NULL;
	struct prototype_answer answer;
	float distances[5];

	(void)state;
	assert_int_equal(prototypes_new(&p, features, labels, 5, 4, 3), 0);
	/* .5 is usual, and counts as eight more. */
	assert_close(p->spreads[0], 1.2, 1e-6);
	assert_close(p->spreads[1], .8, 1e-6);
	assert_close(p->spreads[2], 1, 0);
	assert_int_equal(prototypes_leave_one_out(p, features, labels, 5, distances), 4);
	assert_close(distances[1], 1 / 1.2, 1e-6);
	assert_close(distances[2], 0, 1e-6);
	answer = prototypes_classify(p, (float[]){ 1, 0, 0, 0 }, NULL);
	assert_close(answer.distance, (1 - sqrt(.5)) / 1.2, 1e-6);
	/* Nothing to go by. */
	assert_int_equal(prototypes_new(&same, features + 8, (uint32_t[]){ 0, 0, 1 }, 3, 4, 2), 0);
	assert_close(same->spreads[0], 1, 0);
	assert_int_equal(
		prototypes_of_means(&copy, p->means, p->n_supports, 3, 4, p->temperature), 0);
	assert_close(copy->spreads[0], 1, 0);
}

static void what_is_no_set_of_classes_is_refused(void **state)
{
	static const float features[4] = { 1, 2, 3, 4 };
	struct prototypes *p;

	(void)state;
	assert_int_equal(prototypes_new(&p, features, (uint32_t[]){ 0, 0 }, 2, 2, 2), -EINVAL);
	assert_int_equal(prototypes_new(&p, features, (uint32_t[]){ 0, 2 }, 2, 2, 2), -EINVAL);
	assert_int_equal(prototypes_new(&p, features, (uint32_t[]){ 0, 0 }, 0, 2, 1), -EINVAL);
	assert_int_equal(prototypes_new(&p, features, (uint32_t[]){ 0, 0 }, 2, 2, 0), -EINVAL);
	assert_int_equal(prototypes_of_means(&p, features, (uint32_t[]){ 1, 0 }, 2, 2, 1), -EINVAL);
	assert_int_equal(prototypes_of_means(&p, features, (uint32_t[]){ 1, 1 }, 0, 2, 1), -EINVAL);
}

enum { K = 3, DIM = 24, SHOTS = 5 };

static void draw(struct rng *rng, const float *centres, uint32_t c, float noise, float *dst)
{
	for (uint32_t d = 0; d < DIM; d++)
		dst[d] = centres[c * DIM + d] + noise * rng_normal(rng);
}

struct scene {
	float centres[(K + 1) * DIM]; /* the last one is of no class */
	float supports[K * SHOTS * DIM];
	uint32_t labels[K * SHOTS];
	struct prototypes *prototypes;
};

static void scene_make(struct scene *scene, struct rng *rng, uint32_t n_shots, float noise)
{
	for (uint32_t i = 0; i < (K + 1) * DIM; i++)
		scene->centres[i] = rng_normal(rng);
	for (uint32_t i = 0; i < K * n_shots; i++) {
		scene->labels[i] = i / n_shots;
		draw(rng, scene->centres, i / n_shots, noise, scene->supports + (size_t)i * DIM);
	}
	assert_int_equal(prototypes_new(&scene->prototypes, scene->supports, scene->labels,
				 K * n_shots, DIM, K),
		0);
}

static void confidence_says_how_often_it_is_right(void **state)
{
	struct rng rng = rng_stream(SEED, 0, 0, 0);

	(void)state;
	for (int step = 1; step <= 4; step++) {
		double said = 0, right = 0;
		enum { N_SCENES = 40, N = 60 };

		for (int i = 0; i < N_SCENES; i++) {
			struct scene scene;

			scene_make(&scene, &rng, SHOTS, (float)step);
			for (uint32_t q = 0; q < N; q++) {
				struct prototype_answer answer;
				float query[DIM];

				draw(&rng, scene.centres, q % K, (float)step, query);
				answer = prototypes_classify(scene.prototypes, query, NULL);
				said += answer.confidence;
				right += answer.class == q % K;
			}
			prototypes_free(scene.prototypes);
		}
		print_message("noise %d: %.3f right, %.3f said\n", step, right / N_SCENES / N,
			said / N_SCENES / N);
		assert_true(fabs(said - right) / N_SCENES / N < .08);
	}
}

/* Of known and of unknown queries, how many are called unknown. */
static void count_unknown(const struct scene *scene, const struct unknown *unknown, struct rng *rng,
	double *ret_false, double *ret_found)
{
	enum { N = 300 };
	uint32_t n_false = 0, n_found = 0;

	for (uint32_t i = 0; i < N; i++) {
		float query[DIM];

		draw(rng, scene->centres, i % K, .7F, query);
		n_false += unknown_is(
			unknown, prototypes_classify(scene->prototypes, query, NULL).distance);
		draw(rng, scene->centres, K, .7F, query);
		n_found += unknown_is(
			unknown, prototypes_classify(scene->prototypes, query, NULL).distance);
	}
	*ret_false = (double)n_false / N;
	*ret_found = (double)n_found / N;
}

static void unknown_images_are_told_by_supports_by_traffic_and_by_both(void **state)
{
	enum { N_TRAFFIC = 100 };
	static const struct {
		uint32_t n_shots, n_traffic, of_one_class, every;
	} ways[] = {
		{ SHOTS, 0, 0, 0 },         /* supports alone */
		{ 1, N_TRAFFIC, 0, 0 },     /* traffic alone */
		{ 1, N_TRAFFIC, 0, 3 },     /* a third of which is unknown */
		{ SHOTS, N_TRAFFIC, 0, 0 }, /* both */
		{ SHOTS, N_TRAFFIC, 1, 0 }, /* traffic of one class that hardly varies */
		{ SHOTS, N_TRAFFIC, 0, 1 }, /* nothing but unknown */
	};
	struct rng rng = rng_stream(SEED, 1, 0, 0);

	(void)state;
	for (size_t w = 0; w < ARRAY_SIZE(ways); w++) {
		float traffic[N_TRAFFIC * DIM];
		struct unknown unknown;
		struct scene scene;
		double n_false, n_found;

		scene_make(&scene, &rng, ways[w].n_shots, .7F);
		for (uint32_t i = 0; i < N_TRAFFIC; i++)
			draw(&rng, scene.centres,
				ways[w].every && i % ways[w].every == 0 ? K
				: ways[w].of_one_class                  ? 0
									: i % K,
				ways[w].of_one_class ? .1F : .7F, traffic + (size_t)i * DIM);
		assert_int_equal(
			unknown_calibrate(&unknown, scene.prototypes, scene.supports, scene.labels,
				K * ways[w].n_shots, traffic, ways[w].n_traffic),
			0);
		count_unknown(&scene, &unknown, &rng, &n_false, &n_found);
		print_message("way %zu: threshold %.3f, %.3f of known and %.3f of unknown\n", w,
			(double)unknown.threshold, n_false, n_found);
		assert_true(n_false < .25);
		assert_true(n_found > .75);
		prototypes_free(scene.prototypes);
	}
}

struct told {
	double wide,
		stranger; /* of the class that spreads, of no class: how many are called unknown */
};

/* Class 0 spreads, the others do not; strangers are near them. */
static struct told tell_beside_a_wide_class(struct scene *scene, uint64_t seed)
{
	enum { N_TRAFFIC = 60, N = 150 };
	struct rng rng = rng_stream(SEED, 3, seed, 0);
	float traffic[N_TRAFFIC * DIM], query[DIM];
	struct unknown unknown;
	struct told told = { 0 };

	for (uint32_t i = 0; i < N_TRAFFIC; i++)
		draw(&rng, scene->centres, i % K, i % K ? .3F : 1, traffic + (size_t)i * DIM);
	assert_int_equal(unknown_calibrate(&unknown, scene->prototypes, scene->supports,
				 scene->labels, K * SHOTS, traffic, N_TRAFFIC),
		0);
	for (uint32_t i = 0; i < N; i++) {
		draw(&rng, scene->centres, 0, 1, query);
		told.wide += unknown_is(&unknown,
				     prototypes_classify(scene->prototypes, query, NULL).distance) /
			     (double)N;
		draw(&rng, scene->centres, 1, .3F, query);
		for (uint32_t d = 0; d < DIM; d += 4)
			query[d] += 1;
		told.stranger +=
			unknown_is(&unknown,
				prototypes_classify(scene->prototypes, query, NULL).distance) /
			(double)N;
	}
	return told;
}

static void a_class_that_spreads_takes_in_more_and_the_others_less(void **state)
{
	enum { N_SCENES = 20 };
	struct rng rng = rng_stream(SEED, 2, 0, 0);
	struct told own = { 0 }, common = { 0 };

	(void)state;
	for (uint32_t i = 0; i < N_SCENES; i++) {
		struct scene scene;
		struct told told;

		scene_make(&scene, &rng, SHOTS, .3F);
		for (uint32_t s = 0; s < SHOTS; s++)
			draw(&rng, scene.centres, 0, 1, scene.supports + (size_t)s * DIM);
		prototypes_free(scene.prototypes);
		assert_int_equal(prototypes_new(&scene.prototypes, scene.supports, scene.labels,
					 K * SHOTS, DIM, K),
			0);
		told = tell_beside_a_wide_class(&scene, i);
		own.wide += told.wide / N_SCENES;
		own.stranger += told.stranger / N_SCENES;
		for (uint32_t c = 0; c < K; c++)
			scene.prototypes->spreads[c] = 1;
		told = tell_beside_a_wide_class(&scene, i);
		common.wide += told.wide / N_SCENES;
		common.stranger += told.stranger / N_SCENES;
		prototypes_free(scene.prototypes);
	}
	print_message("wide %.3f, strangers %.3f; as if no class spread %.3f, %.3f\n", own.wide,
		own.stranger, common.wide, common.stranger);
	assert_true(own.wide < common.wide - .05);
	assert_true(own.stranger > common.stranger + .1);
}

static void with_nothing_to_go_by_nothing_is_unknown(void **state)
{
	static const float supports[2 * 2] = { 1, 0, 0, 1 };
	static const uint32_t labels[] = { 0, 1 };
	_cleanup_(prototypes_freep) struct prototypes *p = NULL;
	struct unknown unknown;

	(void)state;
	assert_int_equal(prototypes_new(&p, supports, labels, 2, 2, 2), 0);
	assert_int_equal(unknown_calibrate(&unknown, p, supports, labels, 2, supports, 2), 0);
	assert_true(isnan(unknown.threshold));
	assert_false(unknown_is(&unknown, 2));
	assert_true(isnan(unknown_score(&unknown, 0)));
}

static void a_score_is_a_half_at_the_threshold(void **state)
{
	const struct unknown unknown = { .threshold = .25F }, sharp = { .threshold = 0 };

	(void)state;
	assert_close(unknown_score(&unknown, .25F), .5, 1e-6);
	assert_close(unknown_score(&unknown, -.0001F), 0, 0);
	assert_true(unknown_score(&unknown, 2) > .8F);
	assert_true(unknown_is(&unknown, .3F) && !unknown_is(&unknown, .2F));
	assert_close(unknown_score(&sharp, 0), 0, 0);
	assert_close(unknown_score(&sharp, .1F), 1, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_class_is_the_mean_of_directions),
		cmocka_unit_test(a_few_that_are_all_right_are_not_sure_of_everything),
		cmocka_unit_test(a_class_is_worth_what_its_left_out_supports_say),
		cmocka_unit_test(a_class_spreads_as_far_as_its_left_out_supports_are),
		cmocka_unit_test(what_is_no_set_of_classes_is_refused),
		cmocka_unit_test(confidence_says_how_often_it_is_right),
		cmocka_unit_test(unknown_images_are_told_by_supports_by_traffic_and_by_both),
		cmocka_unit_test(a_class_that_spreads_takes_in_more_and_the_others_less),
		cmocka_unit_test(with_nothing_to_go_by_nothing_is_unknown),
		cmocka_unit_test(a_score_is_a_half_at_the_threshold),
	};

	print_message("seed %u\n", SEED);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
