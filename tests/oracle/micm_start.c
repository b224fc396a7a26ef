/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "learn/folder.h"
#include "learn/round.h"
#include "model/vit.h"

/* What a micm round's loss is before anything is learnt, on NEU beside the checkout: a network of random
 * weights says nothing of it. */

enum { SKIP = 77, PX = 112, STEPS = 60, BATCH = 32, N_FIRST = 5 };
/* The gate's, and that of a sound mask. */
#define MAX_LOSS 1.05f

static char *shared_path(const char *name)
{
	const char *shared = getenv("KAMEN_SHARED");
	char *path;

	if (asprintf(&path, "%s/%s", shared ? shared : "../shared", name) < 0)
		abort();
	return path;
}

struct study {
	struct base *base;
	struct vit *vit;
	struct folder *learn;
};

static int setup(void **state)
{
	_cleanup_(freep) char *model = shared_path("models/vit_tiny_patch16_224/model.safetensors");
	_cleanup_(freep) char *images = shared_path("data/neu");
	static struct study study;
	struct diag diag = { "" };

	*state = &study;
	if (base_load(&study.base, model, &diag) < 0 ||
		vit_new(&study.vit, study.base, NULL, &diag) < 0 ||
		folder_open(&study.learn, images, FOLDER_LEARN, 224, &diag) < 0) {
		(void)fprintf(stderr, "%s\n", diag.text);
		return -1;
	}
	return 0;
}

static int teardown(void **state)
{
	struct study *study = *state;

	folder_free(study->learn);
	vit_free(study->vit);
	base_free(study->base);
	return 0;
}

/* The highest that is reported of the first steps. */
static float highest(struct study *study, bool warm)
{
	const struct image_source source = folder_source(study->learn);
	struct prep prep = vit_native_prep(study->vit);
	_cleanup_(round_freep) struct round *round = NULL;
	struct round_progress progress;
	struct diag diag = { "" };
	struct recipe recipe;
	float most = 0;

	prep.input_px = PX;
	recipe = recipe_for(study->vit, &prep, source.n, RECIPE_MICM, STEPS);
	recipe.batch = BATCH;
	recipe.micm_warm = warm;
	if (round_new(&round, study->vit, &recipe, &prep, &source, &diag) < 0)
		fail_msg("%s", diag.text);
	for (uint32_t i = 0; i < N_FIRST; i++) {
		assert_int_equal(round_step(round, &progress), 1);
		if (progress.loss_ratio > most)
			most = progress.loss_ratio;
	}
	print_message("micm_warm=%s: loss ratio at most %.3f, after %u steps %.3f\n",
		warm ? "on" : "off", most, progress.step, progress.loss_ratio);
	return most;
}

static void a_warm_round_begins_below_the_gates_limit(void **state)
{
	const float warm = highest(*state, true), cold = highest(*state, false);

	assert_true(warm < MAX_LOSS);
	assert_true(cold > warm);
}

int main(void)
{
	_cleanup_(freep) char *model = shared_path("models/vit_tiny_patch16_224/model.safetensors");
	_cleanup_(freep) char *images = shared_path("data/neu");
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_warm_round_begins_below_the_gates_limit),
	};

	if (access(model, R_OK) < 0 || access(images, R_OK) < 0) {
		printf("skipped: neither %s nor %s may be missing\n", model, images);
		return SKIP;
	}
	return cmocka_run_group_tests(tests, setup, teardown);
}
