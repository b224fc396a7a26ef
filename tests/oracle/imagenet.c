/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <fcntl.h>
#include <string.h>
#include <cmocka.h>

#include "base/blob.h"
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

struct classifier {
	struct base *base;
	struct vit *vit;
	struct slot *slot;
	struct vit_plan *plan;
	struct resize_scratch *scratch;
	struct prep prep;
};

static int setup(void **state)
{
	_cleanup_(freep) char *path = shared_path(MODEL, "");
	struct classifier *c = calloc(1, sizeof(*c));
	struct diag diag = { "" };

	*state = c;
	if (base_load(&c->base, path, &diag) < 0 || vit_new(&c->vit, c->base, NULL, &diag) < 0 ||
		vit_slot_new(&c->slot, c->vit, SLOT_INFER) < 0 ||
		vit_plan_new(&c->plan, c->vit, 1, 224, PRECISION_F32) < 0 ||
		resize_scratch_new(&c->scratch) < 0) {
		(void)fprintf(stderr, "%s: %s\n", path, diag.text);
		return -1;
	}
	c->prep = vit_native_prep(c->vit);
	return 0;
}

static int teardown(void **state)
{
	struct classifier *c = *state;

	resize_scratch_free(c->scratch);
	vit_plan_free(c->plan);
	slot_free(c->slot);
	vit_free(c->vit);
	base_free(c->base);
	free(c);
	return 0;
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
	assert_int_equal(prep_apply(&c->prep, &view, vit_plan_input(c->plan), c->scratch), 0);
	assert_int_equal(vit_forward(c->plan, c->slot, embedding), 0);
	assert_int_equal(vit_logits(c->vit, embedding, 1, logits), 0);
	for (int i = 0; i < N_CLASSES; i++)
		rank += logits[i] > logits[label];
	return rank;
}

/* 83 and 96 by PyTorch and PIL; other resize filters move one or two. */
static void photographs_are_classified_as_elsewhere(void **state)
{
	_cleanup_(freep) char *path = shared_path(PHOTOS, "/labels.tsv");
	_cleanup_(freep) char *labels = NULL;
	int n_images = 0, n_first = 0, n_top = 0;
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
}

int main(void)
{
	_cleanup_(freep) char *model = shared_path(MODEL, "");
	_cleanup_(freep) char *labels = shared_path(PHOTOS, "/labels.tsv");
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(photographs_are_classified_as_elsewhere),
	};

	if (access(model, R_OK) < 0 || access(labels, R_OK) < 0) {
		printf("skipped: neither %s nor %s may be missing\n", model, labels);
		return SKIP;
	}
	return cmocka_run_group_tests(tests, setup, teardown);
}
