/* SPDX-License-Identifier: Apache-2.0 */

/*
 * The first steps of a round of the default recipe (views, forward, backward, update) over rendered
 * images: learn_step [--model FILE | --shape vit_t] [--steps 7] [--input 224] [--memory MIB]
 * [--recipe "NAME=VALUE ..."] [--save FILE]. Prints the median of the steps after the first two, and
 * processor seconds a step.
 *
 * Beside it stands step_torch.py. --save writes what that needs to take the same steps, as f32:
 * scores and head at the start, then of every step its large views, its small views and its loss.
 * The scores do not all start at 1 then: one in 500 lies near 0, so that bits move.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/rng.h"
#include "fixture/tiny_vit.h"
#include "learn/round_state.h"
#include "learn/swav_objective.h"

#define N_WARM 2u
#define N_MAX 101u
#define N_IMAGES 256u
#define NEAR .3f
#define SHARE_NEAR .002f

struct options {
	const char *model, *shape, *fields, *save;
	uint32_t n_steps, input_px;
	size_t memory;
};

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double cpu_seconds(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

static int measure(struct round *round, uint32_t n_steps)
{
	struct round_progress progress = { 0 };
	double seconds[N_MAX], cpu = 0;

	for (uint32_t i = 0; i < n_steps; i++) {
		uint64_t start = clock_now_ns();
		double cpu_start = cpu_seconds();
		int r = round_step(round, &progress);

		if (r < 0)
			return r;
		seconds[i] = (double)(clock_now_ns() - start) / NS_PER_S;
		if (i >= N_WARM)
			cpu += cpu_seconds() - cpu_start;
	}
	qsort(seconds + N_WARM, n_steps - N_WARM, sizeof(*seconds), compare);
	printf("step_s %.3f fastest %.3f cpu_s %.3f loss/lnK %.3f\n",
		seconds[N_WARM + (n_steps - N_WARM) / 2], seconds[N_WARM], cpu / (n_steps - N_WARM),
		progress.loss_ratio);
	return 0;
}

static bool put(FILE *file, const float *values, size_t n)
{
	return fwrite(values, sizeof(*values), n, file) == n;
}

static void spread_scores(struct round *round)
{
	const size_t n = vit_layout(round->vit)->n_elements;
	struct rng rng = rng_stream(1, 0, 1, 0);

	for (size_t i = 0; i < n; i++)
		if (rng_uniform(&rng) < SHARE_NEAR)
			round->scores[i] = rng_range(&rng, -NEAR, NEAR);
	round_take_scores(round);
}

static int save(struct round *round, uint32_t n_steps, const char *path)
{
	_cleanup_(fclosep) FILE *file = fopen(path, "we");
	const struct swav_objective *swav = (const struct swav_objective *)round->objective;
	const struct recipe *recipe = &round->recipe;
	const size_t n_large =
		(size_t)SWAV_TARGETS * recipe->batch * 3 * recipe->large_px * recipe->large_px;
	const size_t n_small =
		(size_t)recipe->n_small * recipe->batch * 3 * recipe->small_px * recipe->small_px;
	struct round_progress progress;
	bool good;
	int r;

	if (!file)
		return -errno;
	spread_scores(round);
	r = round_start(round);
	good = r == 0 && put(file, round->scores, vit_layout(round->vit)->n_elements) &&
	       put(file, swav->values, swav->n_head);
	for (uint32_t i = 0; i < n_steps && good; i++) {
		r = round_step(round, &progress);
		/* The views stay where they are until the next step. */
		good = r >= 0 && put(file, round->large, n_large) &&
		       put(file, round->small, n_small) &&
		       put(file, &round->losses[i % round->n_losses], 1);
		if (good)
			printf("step %u loss %.6f density %.6f\n", i,
				(double)round->losses[i % round->n_losses], progress.density);
	}
	if (r < 0)
		return r;
	return good && fflush(file) == 0 ? 0 : -EIO;
}

static int open_vit(struct tiny_vit *tiny, const struct options *options, struct diag *diag)
{
	struct vit_shape shape;
	int r;

	if (!options->model) {
		r = random_vit_shape(&shape, options->shape);
		return r < 0 ? r : tiny_vit_of_shape(tiny, &shape, 1);
	}
	r = base_load(&tiny->base, options->model, diag);
	return r < 0 ? r : vit_new(&tiny->vit, tiny->base, NULL, diag);
}

static int run(const struct options *options)
{
	_cleanup_(round_freep) struct round *round = NULL;
	struct tiny_vit tiny = { 0 };
	struct textures textures = { 0 };
	struct image_source source;
	struct diag diag = { "" };
	struct recipe recipe;
	struct prep prep;
	int r;

	r = open_vit(&tiny, options, &diag);
	if (r == 0)
		r = textures_new(&textures, N_IMAGES, 200, 1);
	if (r == 0) {
		source = textures_source(&textures);
		prep = vit_native_prep(tiny.vit);
		prep.input_px = options->input_px;
		recipe = recipe_default(tiny.vit, &prep, 2000);
		r = recipe_read(&recipe, options->fields, &diag);
	}
	if (r == 0) {
		recipe_fit(&recipe, tiny.vit, options->memory);
		printf("%s %s %s batch %u crops 2 x %u + %u x %u, %u at once, %zu MiB\n",
			options->model ? options->model : options->shape, vit_isa(tiny.vit),
			precision_name(recipe.precision), recipe.batch, recipe.large_px,
			recipe.n_small, recipe.small_px,
			recipe.at_once ? recipe.at_once : recipe.batch,
			recipe_tape_bytes(&recipe, tiny.vit) >> 20);
		r = round_new(&round, tiny.vit, &recipe, &prep, &source, &diag);
	}
	if (r == 0)
		r = options->save ? save(round, options->n_steps, options->save)
				  : measure(round, options->n_steps);
	if (r < 0)
		fprintf(stderr, "learn_step: %s %s\n", strerror(-r), diag.text);
	/* Before the network that it stands on. */
	round_free(TAKE_PTR(round));
	textures_done(&textures);
	tiny_vit_done(&tiny);
	return r < 0 ? 1 : 0;
}

int main(int argc, char **argv)
{
	static const struct option names[] = {
		{ "model", required_argument, NULL, 'f' },
		{ "shape", required_argument, NULL, 's' },
		{ "steps", required_argument, NULL, 'n' },
		{ "input", required_argument, NULL, 'i' },
		{ "memory", required_argument, NULL, 'm' },
		{ "recipe", required_argument, NULL, 'r' },
		{ "save", required_argument, NULL, 'o' },
		{ NULL, 0, NULL, 0 },
	};
	struct options options = { NULL, "vit_t", "", NULL, 7, 224, SIZE_MAX };
	int c;

	while ((c = getopt_long(argc, argv, "", names, NULL)) != -1) {
		if (c == 'f')
			options.model = optarg;
		else if (c == 's')
			options.shape = optarg;
		else if (c == 'n')
			options.n_steps = (uint32_t)strtoul(optarg, NULL, 10);
		else if (c == 'i')
			options.input_px = (uint32_t)strtoul(optarg, NULL, 10);
		else if (c == 'm')
			options.memory = strtoull(optarg, NULL, 10) << 20;
		else if (c == 'r')
			options.fields = optarg;
		else if (c == 'o')
			options.save = optarg;
		else
			return 2;
	}
	if (options.n_steps <= N_WARM || options.n_steps > N_MAX)
		return 2;
	return run(&options);
}
