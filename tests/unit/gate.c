/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "site/gate.h"

/* The figures published for a steel set: frozen, a good mask and three ruined ones. */
static struct version_row measured(float retrieval, float margin, float rank)
{
	return (struct version_row){
		.density = .9987,
		.lowest_density = .93,
		.loss_ratio = .85,
		.n_elements = 5329152,
		.n_flips = 6900,
		.frozen = { .n = 413, .retrieval = .236f, .margin = 2.2f, .effective_rank = 50 },
		.candidate = { .n = 413,
			.retrieval = retrieval,
			.margin = margin,
			.effective_rank = rank,
			.retrieval_error = .015f,
			.margin_error = .03f },
	};
}

static void a_good_mask_passes(void **state)
{
	struct version_row row = measured(.406f, 2.9f, 42);

	(void)state;
	(void)snprintf(row.reasons, sizeof(row.reasons), "%s", "from before");
	gate_decide(&row);
	assert_true(row.passed);
	assert_string_equal(row.reasons, "");
}

/* Steel, seed 1: +.028 knn, +.153 shot1, +.063 shot5 on images never learnt from. */
static void a_good_mask_may_end_at_a_high_loss(void **state)
{
	struct version_row row = measured(.178f, 1.505f, 100.5f);

	(void)state;
	row.frozen = (struct judgement_row){ 250, .120f, 1.309f, 132 };
	row.density = .99577;
	row.lowest_density = .891;
	row.loss_ratio = 1.013;
	gate_decide(&row);
	assert_string_equal(row.reasons, "");
	assert_true(row.passed);
}

static void ruined_masks_are_held_with_figures(void **state)
{
	static const float ruined[3][3] = { { .135f, 1.6f, 27 }, { .148f, 1.3f, 19 },
		{ .186f, 1.1f, 12 } };

	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		struct version_row row = measured(ruined[i][0], ruined[i][1], ruined[i][2]);

		gate_decide(&row);
		assert_false(row.passed);
		assert_non_null(strstr(row.reasons, "retrieval"));
		assert_non_null(strstr(row.reasons, "0.236"));
		assert_non_null(strstr(row.reasons, "margin"));
		assert_true(i == 0 || strstr(row.reasons, "effective rank"));
	}
}

static void each_figure_alone_can_hold(void **state)
{
	struct version_row good = measured(.406f, 2.9f, 42);
	struct version_row rows[14];
	static const char *const words[14] = { "retrieval", "margin", "rank", "loss", "no bit",
		"density", "lowest", "retrieval", "loss", "density", "retrieval", "margin",
		"entropy", "neighbours" };

	(void)state;
	for (unsigned i = 0; i < 14; i++)
		rows[i] = good;
	rows[0].candidate.retrieval = .18f;
	rows[1].candidate.margin = 2.2f;
	rows[2].candidate.effective_rank = 19.9f;
	rows[3].loss_ratio = 1.09;
	rows[4].n_flips = 0;
	rows[5].density = .89;
	rows[6].lowest_density = .34;
	rows[7].candidate.retrieval = NAN;
	rows[8].loss_ratio = NAN;
	rows[9].density = NAN;
	rows[10].candidate.retrieval_error = NAN;
	rows[11].candidate.margin_error = NAN;
	good.candidate.has_entropy = good.candidate.has_neighbours = true;
	good.candidate.entropy = .97f;
	good.candidate.neighbours = .6f;
	rows[12] = rows[13] = good;
	gate_decide(&good);
	assert_true(good.passed);
	rows[12].candidate.entropy = .45f;
	rows[13].candidate.neighbours = .05f;
	for (unsigned i = 0; i < 14; i++) {
		gate_decide(&rows[i]);
		assert_false(rows[i].passed);
		assert_non_null(strstr(rows[i].reasons, words[i]));
		assert_null(strchr(rows[i].reasons, '\n'));
	}
}

static void few_held_out_images_cannot_judge(void **state)
{
	struct version_row row = measured(.406f, 2.9f, 42);

	(void)state;
	row.candidate.n = row.frozen.n = 15;
	gate_decide(&row);
	assert_false(row.passed);
	assert_non_null(strstr(row.reasons, "too few held-out images to judge: 15"));
	row.candidate.n = row.frozen.n = 16;
	gate_decide(&row);
	assert_true(row.passed);
}

/* A class that looks all alike: fewer twins are found by chance, not for sure. */
static void chance_decides_nothing(void **state)
{
	struct version_row row = measured(.210f, 2.9f, 42);

	(void)state;
	gate_decide(&row);
	assert_true(row.passed);
	row.candidate.retrieval = .19f;
	gate_decide(&row);
	assert_false(row.passed);
	row = measured(.406f, 2.27f, 42);
	gate_decide(&row);
	assert_non_null(strstr(row.reasons, "margin 2.270"));
	row.candidate.margin = 2.29f;
	gate_decide(&row);
	assert_true(row.passed);
}

/* contract.md's paired rule; what is merely not better, or not sure, is no reason. */
static void labels_can_only_speak_against(void **state)
{
	struct version_row row = measured(.406f, 2.9f, 42);

	(void)state;
	row.shots = (struct shots_row){ 120, 6, .6, .8, .58, .78, -.05, -.0049, -.05, .01 };
	gate_decide(&row);
	assert_string_equal(row.reasons, "");
	row.shots.hi1 = -.0051;
	gate_decide(&row);
	assert_false(row.passed);
	assert_string_equal(row.reasons,
		"few-shot accuracy with 1 a class 0.580 is surely below the frozen model's 0.600 "
		"(by 0.005 to 0.050, 120 labelled images of 6 classes)");
	row.shots.hi1 = 0;
	row.shots.hi5 = (double)NAN;
	gate_decide(&row);
	assert_non_null(strstr(row.reasons, "with 5 a class"));
	row.shots.n = 0;
	gate_decide(&row);
	assert_true(row.passed);
	/* Nor do they speak for one that the unlabelled figures hold. */
	row = measured(.135f, 1.6f, 27);
	row.shots = (struct shots_row){ 120, 6, .6, .8, .9, .95, .2, .3, .1, .2 };
	gate_decide(&row);
	assert_false(row.passed);
}

static void an_imported_mask_has_no_loss_to_ask_for(void **state)
{
	struct version_row row = measured(.406f, 2.9f, 42);

	(void)state;
	row.loss_ratio = 0;
	gate_decide(&row);
	assert_true(row.passed);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_good_mask_passes),
		cmocka_unit_test(a_good_mask_may_end_at_a_high_loss),
		cmocka_unit_test(ruined_masks_are_held_with_figures),
		cmocka_unit_test(each_figure_alone_can_hold),
		cmocka_unit_test(few_held_out_images_cannot_judge),
		cmocka_unit_test(chance_decides_nothing),
		cmocka_unit_test(labels_can_only_speak_against),
		cmocka_unit_test(an_imported_mask_has_no_loss_to_ask_for),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
