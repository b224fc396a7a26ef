/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <fcntl.h>
#include <string.h>
#include <cmocka.h>

#include "base/blob.h"
#include "classify/cosine.h"
#include "model/vit.h"

/* Photographs beside the checkout, through our own decoder, resize and forward. */

enum { SKIP = 77, N_IMAGES = 97, WIDTH = 192, N_CLASSES = 1000, N_TOP = 5 };

#define MODEL "models/vit_tiny_patch16_224/model.safetensors"
#define PHOTOS "data/imagenet_samples"

static char *shared_path(const char *folder, const char *name)
{
	const char *shared = getenv("KAMEN_SHARED");
	char *path;

	if (asprintf(&path, "%s/%s%s", shared ? shared : "../shared", folder, name) < 0)
		abort();
	return path;
}

/* One way through the network. */
struct eye {
	struct slot *slot;
	struct vit_plan *plan;
};

struct classifier {
	struct base *base;
	struct vit *vit;
	struct eye eyes[N_PRECISIONS]; /* slot NULL: this CPU has it not */
	double sum, worst;             /* of the cosines between bf16's embeddings and f32's */
	struct resize_scratch *scratch;
	struct prep prep;
};

static int eye_open(struct eye *eye, struct vit *vit, enum precision precision)
{
	int r = vit_slot_new(&eye->slot, vit, slot_use_in(SLOT_INFER, precision));

	return r < 0 ? r : vit_plan_new(&eye->plan, vit, 1, 224, precision);
}

static int setup(void **state)
{
	_cleanup_(freep) char *path = shared_path(MODEL, "");
	struct classifier *c = calloc(1, sizeof(*c));
	struct diag diag = { "" };

	*state = c;
	if (base_load(&c->base, path, &diag) < 0 || vit_new(&c->vit, c->base, NULL, &diag) < 0 ||
		eye_open(&c->eyes[PRECISION_F32], c->vit, PRECISION_F32) < 0 ||
		(vit_has(c->vit, PRECISION_BF16) &&
			eye_open(&c->eyes[PRECISION_BF16], c->vit, PRECISION_BF16) < 0) ||
		resize_scratch_new(&c->scratch) < 0) {
		(void)fprintf(stderr, "%s: %s\n", path, diag.text);
		return -1;
	}
	c->prep = vit_native_prep(c->vit);
	c->worst = 1;
	return 0;
}

static int teardown(void **state)
{
	struct classifier *c = *state;

	resize_scratch_free(c->scratch);
	for (int i = 0; i < N_PRECISIONS; i++) {
		vit_plan_free(c->eyes[i].plan);
		slot_free(c->eyes[i].slot);
	}
	vit_free(c->vit);
	base_free(c->base);
	free(c);
	return 0;
}

static void look(const struct classifier *c, enum precision precision,
	const struct image_view *view, float embedding[WIDTH])
{
	const struct eye *eye = &c->eyes[precision];

	assert_int_equal(prep_apply(&c->prep, view, vit_plan_input(eye->plan), c->scratch), 0);
	assert_int_equal(vit_forward(eye->plan, eye->slot, embedding), 0);
}

static void compare(
	struct classifier *c, const struct image_view *view, const float embedding[WIDTH])
{
	float unit[WIDTH], rounded[WIDTH];
	double cosine;

	if (!c->eyes[PRECISION_BF16].slot)
		return;
	look(c, PRECISION_BF16, view, rounded);
	cosine_normalise(rounded, rounded, 1, WIDTH);
	cosine_normalise(unit, embedding, 1, WIDTH);
	cosine = (double)cosine_dot(unit, rounded, WIDTH);
	c->sum += cosine;
	c->worst = cosine < c->worst ? cosine : c->worst;
}

/* How many classes score higher than the right one. */
static int rank_of(struct classifier *c, const char *file, long label)
{
	_cleanup_(freep) char *path = shared_path(PHOTOS "/", file);
	_cleanup_(image_freep) struct image *image = NULL;
	_cleanup_(freep) void *data = NULL;
	float embedding[WIDTH], logits[N_CLASSES];
	struct image_view view;
	struct diag diag = { "" };
	size_t n_bytes;
	int rank = 0;

	assert_int_equal(blob_read(AT_FDCWD, path, 64 << 20, &data, &n_bytes), 0);
	if (image_decode(&image, data, n_bytes, &diag) < 0)
		fail_msg("%s: %s", file, diag.text);
	view = image_view(image);
	look(c, PRECISION_F32, &view, embedding);
	compare(c, &view, embedding);
	assert_int_equal(vit_logits(c->vit, embedding, 1, logits), 0);
	for (int i = 0; i < N_CLASSES; i++)
		rank += logits[i] > logits[label];
	return rank;
}

/* 83 and 96 by PyTorch and PIL; other resize filters move one or two. */
static void photographs_are_classified_as_elsewhere_and_in_bf16_as_in_f32(void **state)
{
	_cleanup_(freep) char *path = shared_path(PHOTOS, "/labels.tsv");
	_cleanup_(freep) char *labels = NULL;
	int n_images = 0, n_first = 0, n_top = 0;
	const struct classifier *c = *state;
	char *line, *rest;
	size_t n_bytes;

	assert_int_equal(blob_read(AT_FDCWD, path, 1 << 20, (void **)&labels, &n_bytes), 0);
	rest = labels;
	while ((line = strsep(&rest, "\n")) && *line) {
		char *tab = strchr(line, '\t');
		long label;
		int rank;

		assert_non_null(tab);
		*tab = 0;
		label = strtol(tab + 1, NULL, 10);
		assert_in_range(label, 0, N_CLASSES - 1);
		rank = rank_of(*state, line, label);
		n_images++;
		n_first += rank == 0;
		n_top += rank < N_TOP;
	}
	print_message("%d of %d right, %d among the first five\n", n_first, n_images, n_top);
	assert_int_equal(n_images, N_IMAGES);
	assert_in_range(n_first, 81, 85);
	assert_in_range(n_top, 94, 97);
	if (!c->eyes[PRECISION_BF16].slot)
		return;
	print_message("bf16 beside f32: cosine %.6f on average, %.6f at worst\n", c->sum / n_images,
		c->worst);
	assert_true(c->sum / n_images >= .9995);
	assert_true(c->worst >= .998);
}

int main(void)
{
	_cleanup_(freep) char *model = shared_path(MODEL, "");
	_cleanup_(freep) char *labels = shared_path(PHOTOS, "/labels.tsv");
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(photographs_are_classified_as_elsewhere_and_in_bf16_as_in_f32),
	};

	if (access(model, R_OK) < 0 || access(labels, R_OK) < 0) {
		printf("skipped: neither %s nor %s may be missing\n", model, labels);
		return SKIP;
	}
	return cmocka_run_group_tests(tests, setup, teardown);
}
