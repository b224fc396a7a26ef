/* SPDX-License-Identifier: Apache-2.0 */
#include "learner/hard.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "site/hard_list.h"

#define PREDICTOR "candidate.khard"
#define LIST "candidate.hard"
#define BATCH 8u

_Static_assert(HARD_MAX_IMAGES <= HARD_LIST_MAX, "all of them in one list");

static int by_hardness(const void *a, const void *b)
{
	const float x = *(const float *)a, y = *(const float *)b;

	return (x < y) - (x > y);
}

float hard_of_map(float *map, uint32_t n)
{
	const uint32_t n_hard = (n + 3) / 4;
	double sum = 0;

	qsort(map, n, sizeof(*map), by_hardness);
	for (uint32_t i = 0; i < n_hard; i++)
		sum += (double)map[i];
	return (float)(sum / n_hard);
}

/** What a batch goes through. */
struct eye {
	struct slot *slot;
	struct vit_plan *plan;
	struct resize_scratch *scratch;
	float *embeddings; /* (BATCH, width) */
	float *maps;       /* (BATCH, grid^2) */
	uint32_t grid;
};

static void eye_done(struct eye *eye)
{
	vit_plan_free(eye->plan);
	slot_free(eye->slot);
	resize_scratch_free(eye->scratch);
	free(eye->embeddings);
	free(eye->maps);
}

static int eye_open(struct eye *eye, const struct hard_options *options)
{
	const struct vit_shape *shape = vit_shape(options->vit);
	const struct vit_plan_options plan = {
		.batch = BATCH,
		.px = options->prep->input_px,
		.precision = options->precision,
		.tokens_out = true,
	};
	int r;

	eye->grid = options->prep->input_px / shape->patch;
	eye->embeddings = malloc((size_t)BATCH * shape->width * sizeof(float));
	eye->maps = malloc((size_t)BATCH * eye->grid * eye->grid * sizeof(float));
	if (!eye->embeddings || !eye->maps)
		return -ENOMEM;
	r = resize_scratch_new(&eye->scratch);
	if (r == 0)
		r = vit_slot_new(
			&eye->slot, options->vit, slot_use_in(SLOT_INFER, options->precision));
	if (r == 0)
		r = slot_apply(eye->slot, options->set->masks[0]);
	return r < 0 ? r : vit_plan_open(&eye->plan, options->vit, &plan);
}

/* Images [first, first + n) of the source. */
static int look(struct eye *eye, struct hardness *hardness, const struct prep *prep,
	const struct image_source *source, uint32_t first, uint32_t n)
{
	const size_t n_input = (size_t)3 * prep->input_px * prep->input_px;
	struct image_view view;
	int r = 0;

	for (uint32_t i = 0; i < n && r >= 0; i++) {
		r = source->get(source->owner, first + i, &view);
		if (r >= 0)
			r = prep_apply(
				prep, &view, vit_plan_input(eye->plan) + i * n_input, eye->scratch);
	}
	if (r >= 0)
		r = vit_forward(eye->plan, eye->slot, eye->embeddings);
	if (r >= 0)
		r = hardness_map(hardness, vit_plan_tokens(eye->plan), n, eye->grid, eye->maps);
	return r;
}

static int list_all(
	struct hard_list *list, struct hardness *hardness, const struct hard_options *options)
{
	const struct manifest *manifest = images_manifest(options->images);
	struct images_all all;
	const struct image_source source =
		images_all_source(options->images, &all, HARD_MAX_IMAGES, 0);
	_cleanup_(eye_done) struct eye eye = { 0 };
	int r = eye_open(&eye, options);

	for (uint32_t i = 0; i < source.n && r >= 0; i += BATCH) {
		const uint32_t n = source.n - i < BATCH ? source.n - i : BATCH;
		const uint32_t n_map = eye.grid * eye.grid;

		r = look(&eye, hardness, options->prep, &source, i, n);
		for (uint32_t k = 0; k < n && r >= 0; k++) {
			r = hard_list_add(list, &manifest->entries[images_all_at(&all, i + k)].hash,
				hard_of_map(eye.maps + (size_t)k * n_map, n_map));
			/* Not a number: it says nothing of this image. */
			r = r == -EINVAL ? 0 : r;
		}
	}
	return r;
}

static int write_list(const struct hard_options *options, const void *data, size_t n_bytes,
	int dir_fd, struct diag *diag)
{
	_cleanup_(hardness_freep) struct hardness *hardness = NULL;
	_cleanup_(hard_list_done) struct hard_list list = { 0 };
	_cleanup_(freep) char *text = NULL;
	size_t n_chars;
	int r;

	r = hardness_load(&hardness, options->vit, data, n_bytes, diag);
	if (r == 0)
		r = list_all(&list, hardness, options);
	if (r >= 0)
		r = hard_list_write(&list, &text, &n_chars);
	return r < 0 ? r : blob_write(dir_fd, LIST, text, n_chars);
}

int hard_write(const struct hard_options *options, int dir_fd, struct diag *diag)
{
	_cleanup_(freep) void *data = NULL;
	size_t n_bytes;
	int r;

	/* Of an earlier try at the round. */
	(void)unlinkat(dir_fd, LIST, 0);
	r = blob_read(dir_fd, PREDICTOR, HARDNESS_MAX_BYTES, &data, &n_bytes);
	if (r == -ENOENT)
		return 0;
	if (r == 0)
		r = write_list(options, data, n_bytes, dir_fd, diag);
	return r < 0 ? diag_set(diag, -r, "hardness: %s %s", strerror(-r),
			       images_error(options->images))
		     : 0;
}
