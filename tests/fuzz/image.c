/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "image/prep.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

static void check_prepared(const struct image_view *view)
{
	const struct prep prep = { 16, PREP_CROP, 0.9f, { 0, 0, 0 }, { 1, 1, 1 }, { 0 }, { 0 } };
	struct resize_scratch *scratch;
	float out[3 * 16 * 16];

	if (resize_scratch_new(&scratch) < 0 || prep_apply(&prep, view, out, scratch) < 0)
		abort();
	for (size_t i = 0; i < 3 * 16 * 16; i++)
		if (!(out[i] >= 0 && out[i] <= 1.0001f))
			abort();
	resize_scratch_free(scratch);
}

/* What was decoded, encoded again, must decode to itself. */
static void check_encoded(const struct image *image)
{
	const struct image_view view = image_view(image);
	struct image *back;
	size_t n_bytes;
	void *file;

	if (image_encode_png(&view, &file, &n_bytes) < 0 ||
		image_decode(&back, file, n_bytes, NULL) < 0)
		abort();
	if (back->width != image->width || back->height != image->height ||
		back->n_channels != image->n_channels ||
		memcmp(back->pixels, image->pixels, view.stride * image->height) != 0)
		abort();
	image_free(back);
	free(file);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
	struct image *image;
	struct image_view view;
	struct diag diag = { "" };

	int r = image_decode(&image, data, n_bytes, &diag);

	if (r < 0) {
		if (r != -ENOMEM && diag.text[0] == 0)
			abort();
		return 0;
	}
	view = image_view(image);
	if ((uint64_t)image->width * image->height <= 1 << 16) {
		check_prepared(&view);
		check_encoded(image);
	}
	image_free(image);
	return 0;
}
