/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/blob.h"
#include "fixture/random_vit.h"
#include "model/vit.h"

/* The pretrained ViT-Tiny beside the checkout, against the probabilities that came with it. */

enum { SKIP = 77, N_CLASSES = 1000, PX = 224 };

static char *shared_path(const char *name)
{
	const char *shared = getenv("KAMEN_SHARED");
	char *path;

	if (asprintf(&path, "%s/models/vit_tiny_patch16_224/%s", shared ? shared : "../shared",
		    name) < 0)
		abort();
	return path;
}

static float *read_floats(const char *name, size_t n)
{
	_cleanup_(freep) char *path = shared_path(name);
	void *data;
	size_t n_bytes;

	assert_int_equal(blob_read(AT_FDCWD, path, 1 << 24, &data, &n_bytes), 0);
	assert_int_equal(n_bytes, n * sizeof(float));
	return data;
}

struct model {
	struct base *base;
	struct vit *vit;
	struct slot *slot;
};

static int setup(void **state)
{
	_cleanup_(freep) char *path = shared_path("model.safetensors");
	struct model *model = calloc(1, sizeof(*model));
	struct diag diag = { "" };

	if (base_load(&model->base, path, &diag) < 0 ||
		vit_new(&model->vit, model->base, NULL, &diag) < 0 ||
		vit_slot_new(&model->slot, model->vit, SLOT_INFER) < 0) {
		(void)fprintf(stderr, "%s: %s\n", path, diag.text);
		return -1;
	}
	*state = model;
	return 0;
}

static int teardown(void **state)
{
	struct model *model = *state;

	slot_free(model->slot);
	vit_free(model->vit);
	base_free(model->base);
	free(model);
	return 0;
}

static void softmax(const float *logits, float *probs)
{
	double max = -INFINITY, sum = 0;

	for (int i = 0; i < N_CLASSES; i++)
		max = fmax(max, logits[i]);
	for (int i = 0; i < N_CLASSES; i++)
		sum += exp(logits[i] - max);
	for (int i = 0; i < N_CLASSES; i++)
		probs[i] = (float)(exp(logits[i] - max) / sum);
}

static double largest_difference(const float *a, const float *b, size_t n)
{
	double most = 0;

	for (size_t i = 0; i < n; i++) {
		double d = fabs((double)a[i] - b[i]);

		if (!(d <= most))
			most = d;
	}
	return most;
}

static void vit_tiny_gives_the_probabilities_of_its_reference(void **state)
{
	struct model *model = *state;
	_cleanup_(freep) float *pixels = read_floats("ref_in.f32", (size_t)3 * PX * PX);
	_cleanup_(freep) float *want = read_floats("ref_prob.f32", N_CLASSES);
	_cleanup_(vit_plan_freep) struct vit_plan *plan = NULL;
	float embedding[192], logits[N_CLASSES], probs[N_CLASSES];
	double off;

	assert_int_equal(vit_shape(model->vit)->width, 192);
	assert_int_equal(vit_plan_new(&plan, model->vit, 1, PX, PRECISION_F32), 0);
	memcpy(vit_plan_input(plan), pixels, (size_t)3 * PX * PX * sizeof(float));
	assert_int_equal(vit_forward(plan, model->slot, embedding), 0);
	assert_int_equal(vit_logits(model->vit, embedding, 1, logits), 0);
	softmax(logits, probs);
	off = largest_difference(probs, want, N_CLASSES);
	print_message("largest difference of a probability: %.3g\n", off);
	assert_true(off <= 1e-5);
}

/* vit_tiny_golden.safetensors, by make_goldens.py: the reference image, and every other pixel. */
static void vit_tiny_embeds_as_pytorch_does_at_two_sizes(void **state)
{
	static const struct {
		uint32_t px;
		const char *name;
	} sizes[] = { { 224, "px224" }, { 112, "px112" } };
	struct model *model = *state;
	_cleanup_(freep) float *pixels = read_floats("ref_in.f32", (size_t)3 * PX * PX);
	_cleanup_(base_freep) struct base *golden = NULL;

	assert_int_equal(base_load(&golden, "tests/oracle/vit_tiny_golden.safetensors", NULL), 0);
	for (size_t s = 0; s < ARRAY_SIZE(sizes); s++) {
		const uint32_t px = sizes[s].px, every = PX / px;
		_cleanup_(vit_plan_freep) struct vit_plan *plan = NULL;
		float embedding[192], want[192], *dst;

		assert_int_equal(vit_plan_new(&plan, model->vit, 1, px, PRECISION_F32), 0);
		dst = vit_plan_input(plan);
		for (size_t c = 0; c < 3; c++)
			for (size_t y = 0; y < px; y++)
				for (size_t x = 0; x < px; x++)
					*dst++ = pixels[(c * PX + y * every) * PX + x * every];
		assert_int_equal(vit_forward(plan, model->slot, embedding), 0);
		tensor_to_f32(want, safetensors_find(base_tensors(golden), sizes[s].name));
		assert_true(relative_difference(embedding, want, 192) <= 1e-5);
	}
}

static void plan_tape_and_reference_agree_on_vit_tiny(void **state)
{
	enum { SMALL = 64 };
	const size_t n_pixels = (size_t)3 * SMALL * SMALL;
	struct model *model = *state;
	_cleanup_(mask_freep) struct mask *mask = random_mask(vit_layout(model->vit), 1, .98F);
	_cleanup_(vit_plan_freep) struct vit_plan *plan = NULL;
	_cleanup_(vit_tape_freep) struct vit_tape *tape = NULL;
	float planned[192], taped[192], want[192];

	assert_int_equal(vit_plan_new(&plan, model->vit, 1, SMALL, PRECISION_F32), 0);
	assert_int_equal(vit_tape_open(&tape, model->vit,
				 &(struct vit_tape_options){
					 .batch = 1, .px = SMALL, .precision = PRECISION_F32 }),
		0);
	random_pixels(vit_plan_input(plan), n_pixels, 1);
	random_pixels(vit_tape_input(tape), n_pixels, 1);
	assert_int_equal(slot_apply(model->slot, mask), 0);
	assert_int_equal(vit_forward(plan, model->slot, planned), 0);
	assert_int_equal(vit_tape_forward(tape, model->slot, taped), 0);
	assert_int_equal(vit_reference(model->vit, mask, vit_plan_input(plan), SMALL, want), 0);
	assert_int_equal(slot_apply(model->slot, NULL), 0);
	assert_true(relative_difference(planned, want, 192) <= 1e-5);
	assert_true(relative_difference(taped, want, 192) <= 1e-5);
}

static void vit_tiny_passes_its_self_test(void **state)
{
	struct model *model = *state;
	struct diag diag = { "" };

	assert_int_equal(vit_selftest(model->vit, PRECISION_F32, &diag), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(vit_tiny_gives_the_probabilities_of_its_reference),
		cmocka_unit_test(vit_tiny_embeds_as_pytorch_does_at_two_sizes),
		cmocka_unit_test(plan_tape_and_reference_agree_on_vit_tiny),
		cmocka_unit_test(vit_tiny_passes_its_self_test),
	};
	_cleanup_(freep) char *path = shared_path("model.safetensors");

	if (access(path, R_OK) < 0) {
		(void)fprintf(stderr, "skipped: no %s (set KAMEN_SHARED)\n", path);
		return SKIP;
	}
	return cmocka_run_group_tests(tests, setup, teardown);
}
