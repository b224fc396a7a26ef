/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Seconds of one learning step (crops, forward, backward, update) of a random ViT over rendered
 * images: learn_step [--shape vit_t] [--steps 7] [--input 224] [--memory MIB] [--recipe "NAME=VALUE
 * ..."]. Beside it stands
 * step_torch.py. Prints the median of the steps after the first two, and processor seconds a step.
 */
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "fixture/tiny_vit.h"
#include "learn/round.h"

#define N_WARM 2u
#define N_MAX 101u
#define N_IMAGES 256u

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

static int run(
	const char *name, uint32_t n_steps, uint32_t input_px, size_t memory, const char *fields)
{
	_cleanup_(round_freep) struct round *round = NULL;
	struct tiny_vit tiny = { 0 };
	struct textures textures = { 0 };
	struct image_source source;
	struct diag diag = { "" };
	struct vit_shape shape;
	struct recipe recipe;
	struct prep prep;
	int r;

	r = random_vit_shape(&shape, name);
	if (r == 0)
		r = tiny_vit_of_shape(&tiny, &shape, 1);
	if (r == 0)
		r = textures_new(&textures, N_IMAGES, 200, 1);
	if (r == 0) {
		source = textures_source(&textures);
		prep = vit_native_prep(tiny.vit);
		prep.input_px = input_px;
		recipe = recipe_default(tiny.vit, &prep, 2000);
		recipe.steps = n_steps;
		r = recipe_read(&recipe, fields, &diag);
	}
	if (r == 0) {
		recipe_fit(&recipe, tiny.vit, memory);
		printf("%s %s %s batch %u crops 2 x %u + %u x %u, %u at once, %zu MiB\n", name,
			vit_isa(tiny.vit), precision_name(recipe.precision), recipe.batch,
			recipe.large_px, recipe.n_small, recipe.small_px,
			recipe.at_once ? recipe.at_once : recipe.batch,
			recipe_tape_bytes(&recipe, tiny.vit) >> 20);
		r = round_new(&round, tiny.vit, &recipe, &prep, &source, &diag);
	}
	if (r == 0)
		r = measure(round, n_steps);
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
		{ "shape", required_argument, NULL, 's' },
		{ "steps", required_argument, NULL, 'n' },
		{ "input", required_argument, NULL, 'i' },
		{ "memory", required_argument, NULL, 'm' },
		{ "recipe", required_argument, NULL, 'r' },
		{ NULL, 0, NULL, 0 },
	};
	const char *shape = "vit_t", *fields = "";
	uint32_t n_steps = 7, input_px = 224;
	size_t memory = SIZE_MAX;
	int c;

	while ((c = getopt_long(argc, argv, "", names, NULL)) != -1) {
		if (c == 's')
			shape = optarg;
		else if (c == 'n')
			n_steps = (uint32_t)strtoul(optarg, NULL, 10);
		else if (c == 'i')
			input_px = (uint32_t)strtoul(optarg, NULL, 10);
		else if (c == 'm')
			memory = strtoull(optarg, NULL, 10) << 20;
		else if (c == 'r')
			fields = optarg;
		else
			return 2;
	}
	if (n_steps <= N_WARM || n_steps > N_MAX)
		return 2;
	return run(shape, n_steps, input_px, memory, fields);
}
