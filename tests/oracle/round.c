/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A whole round against PyTorch in double (tests/golden/round.py): network, head, queue, assignment,
 * loss, both optimisers, the mask they move. Given are the ViT, the head's start and the views.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <string.h>
#include <cmocka.h>

#include "fixture/random_vit.h"
#include "golden/golden.h"
#include "learn/round_state.h"
#include "learn/swav_objective.h"
#include "model/safetensors.h"

enum { WIDTH = 16, DEPTH = 2, MLP = 24, PATCH = 4, GRID = 4, N_TENSORS = 4 + 12 * DEPTH + 2 };
enum {
	B = 4,
	LARGE = 16,
	SMALL = 8,
	N_SMALL = 2,
	E = 6,
	K = 8,
	QUEUE = 8,
	STEPS = 8,
	N_IMAGES = 12
};

/* f32 against double. Adam's steps are of the rate's size however small a gradient is: where it is
 * all but rounding, a score may go elsewhere. A few may; most must agree. */
#define LOSS_TOLERANCE 1e-4
#define SCORE_TOLERANCE 1e-3
#define HEAD_TOLERANCE 1e-3
#define MAX_STRAYS 4u

/** The tensors in the order of the golden file. */
struct tensors {
	struct tensor_out out[N_TENSORS];
	char names[N_TENSORS][40];
	unsigned n;
};

static void take(struct tensors *tensors, struct golden *golden, const char *stem, const char *kind,
	unsigned n_dims, const uint64_t *dims)
{
	struct tensor_out *out = &tensors->out[tensors->n];
	char *name = tensors->names[tensors->n++];
	size_t n = 1;

	for (unsigned i = 0; i < n_dims; i++)
		n *= dims[i];
	(void)snprintf(name, sizeof(*tensors->names), "%s%s", stem, kind);
	*out = (struct tensor_out){ .name = name, .n_dims = n_dims };
	memcpy(out->dims, dims, n_dims * sizeof(*dims));
	out->data = golden_take(golden, n);
	assert_non_null(out->data);
}

static void take_pair(struct tensors *tensors, struct golden *golden, const char *stem,
	unsigned n_dims, const uint64_t *dims)
{
	take(tensors, golden, stem, ".weight", n_dims, dims);
	take(tensors, golden, stem, ".bias", 1, dims);
}

static void take_all(struct tensors *tensors, struct golden *golden)
{
	static const struct {
		const char *name;
		uint64_t dims[2];
		unsigned n_dims;
	} parts[] = {
		{ "attn.qkv", { 3 * WIDTH, WIDTH }, 2 },
		{ "attn.proj", { WIDTH, WIDTH }, 2 },
		{ "mlp.fc1", { MLP, WIDTH }, 2 },
		{ "mlp.fc2", { WIDTH, MLP }, 2 },
		{ "norm1", { WIDTH }, 1 },
		{ "norm2", { WIDTH }, 1 },
	};
	char stem[32];

	take(tensors, golden, "cls_token", "", 3, (uint64_t[]){ 1, 1, WIDTH });
	take(tensors, golden, "pos_embed", "", 3, (uint64_t[]){ 1, 1 + GRID * GRID, WIDTH });
	take_pair(tensors, golden, "patch_embed.proj", 4, (uint64_t[]){ WIDTH, 3, PATCH, PATCH });
	for (unsigned block = 0; block < DEPTH; block++)
		for (unsigned i = 0; i < ARRAY_SIZE(parts); i++) {
			(void)snprintf(stem, sizeof(stem), "blocks.%u.%s", block, parts[i].name);
			take_pair(tensors, golden, stem, parts[i].n_dims, parts[i].dims);
		}
	take_pair(tensors, golden, "norm", 1, (uint64_t[]){ WIDTH });
	assert_int_equal(tensors->n, N_TENSORS);
}

static struct base *open_base(struct golden *golden)
{
	static const char *const metadata[] = { "num_heads", "2", NULL };
	struct tensors tensors = { .n = 0 };
	_cleanup_(freep) void *data = NULL;
	struct diag diag = { "" };
	struct base *base = NULL;
	size_t n_bytes;

	take_all(&tensors, golden);
	assert_int_equal(
		safetensors_encode(tensors.out, tensors.n, (void *)metadata, &data, &n_bytes), 0);
	if (base_from_fd(&base, sealed_memfd(data, n_bytes), &diag) < 0)
		fail_msg("%s", diag.text);
	return base;
}

static int no_image(void *owner, uint32_t i, struct image_view *ret_view)
{
	(void)owner;
	(void)i;
	(void)ret_view;
	return -EIO;
}

static struct round *start(struct vit *vit, struct golden *golden)
{
	const struct image_source source = { .n = N_IMAGES, .get = no_image };
	const struct prep prep = vit_native_prep(vit);
	struct recipe recipe = recipe_default(vit, &prep, N_IMAGES);
	struct swav_objective *swav;
	struct round *round = NULL;
	struct diag diag = { "" };

	recipe.precision = PRECISION_F32;
	recipe.steps = STEPS;
	recipe.batch = B;
	recipe.n_prototypes = K;
	recipe.head_dim = E;
	recipe.large_px = LARGE;
	recipe.small_px = SMALL;
	recipe.n_small = N_SMALL;
	recipe.queue = QUEUE;
	recipe.score_lr = .4f;
	if (round_new(&round, vit, &recipe, &prep, &source, &diag) < 0)
		fail_msg("%s", diag.text);
	swav = (struct swav_objective *)round->objective;
	memcpy(swav->values, golden_take(golden, swav->n_head), swav->n_head * sizeof(float));
	round->is_started = true;
	return round;
}

/* hashed() of tests/oracle/make_goldens.py, as pixels. */
static void fill(float *pixels, size_t n, uint32_t step, uint32_t salt)
{
	for (size_t i = 0; i < n; i++) {
		uint32_t hash = ((uint32_t)i + 100000 * step + salt) * 2654435761u >> 16;

		pixels[i] = (float)(hash % 256) / 128 - 1;
	}
}

static void run(struct round *round, const float *losses)
{
	for (uint32_t step = 0; step < STEPS; step++) {
		double got;

		fill(round->large, (size_t)2 * B * 3 * LARGE * LARGE, step, 1);
		fill(round->small, (size_t)N_SMALL * B * 3 * SMALL * SMALL, step, 50000);
		assert_int_equal(round_learn(round), 0);
		got = round->losses[step % round->n_losses];
		print_message("step %u: loss %.6f, wanted %.6f\n", step, got, (double)losses[step]);
		assert_true(fabs(got / losses[step] - 1) < LOSS_TOLERANCE);
	}
}

static void a_whole_round_equals_the_golden(void **state)
{
	struct golden golden = { 0 };
	_cleanup_(base_freep) struct base *base = NULL;
	_cleanup_(vit_freep) struct vit *vit = NULL;
	_cleanup_(round_freep) struct round *round = NULL;
	const float *losses, *scores;
	const struct swav_objective *swav;
	unsigned n_astray = 0, n_flips = 0;
	size_t n;

	(void)state;
	assert_int_equal(golden_open(&golden, "tests/golden/round.f32"), 0);
	base = open_base(&golden);
	vit = random_vit(base);
	round = start(vit, &golden);
	losses = golden_take(&golden, STEPS);
	n = vit_layout(vit)->n_elements;
	scores = golden_take(&golden, n);
	run(round, losses);

	for (size_t i = 0; i < n; i++) {
		n_flips += scores[i] <= 0;
		if (!(fabs((double)round->scores[i] - scores[i]) < SCORE_TOLERANCE))
			n_astray++;
	}
	print_message("%u of %zu scores astray, %u flips\n", n_astray, n, n_flips);
	assert_true(n_astray <= MAX_STRAYS);
	assert_true(n_flips > n / 10);
	for (unsigned t = 0, differ = 0; t < vit_layout(vit)->n_tensors; t++)
		for (size_t i = 0; i < vit_layout(vit)->tensors[t].n; i++) {
			bool want = scores[vit_layout(vit)->tensors[t].offset + i] > 0;

			differ += mask_get(round->mask, t, i) != want;
			assert_true(differ <= MAX_STRAYS);
		}
	swav = (const struct swav_objective *)round->objective;
	assert_true(relative_difference(swav->values, golden_take(&golden, swav->n_head),
			    swav->n_head) < HEAD_TOLERANCE);
	assert_int_equal(golden.used, golden.n);
	golden_done(&golden);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_whole_round_equals_the_golden),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
