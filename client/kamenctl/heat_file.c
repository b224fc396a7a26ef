/* SPDX-License-Identifier: Apache-2.0 */
#include "heat_file.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "base/blob.h"
#include "image/heatmap.h"
#include "image/prep.h"

#define MAX_FILE_BYTES ((size_t)256 << 20)

static int draw(struct image **ret_drawn, const void *data, size_t n_bytes,
	const struct heat_prep *how, const float *map, uint32_t side, struct diag *diag)
{
	const struct prep prep = {
		.input_px = how->input_px,
		.resize = strcmp(how->resize, "squash") == 0 ? PREP_SQUASH : PREP_CROP,
		.crop = how->crop,
	};
	_cleanup_(image_freep) struct image *image = NULL;
	struct image_view view;
	struct resize_box box;
	int r = image_decode(&image, data, n_bytes, diag);

	if (r < 0)
		return r;
	view = image_view(image);
	box = prep_source_box(&prep, &view);
	return heatmap_draw(ret_drawn, &view, &box, map, side);
}

int heat_file_write(const char *path, const char *image_path, const struct heat_prep *prep,
	const float *map, uint32_t side, struct heat_why *why)
{
	_cleanup_(image_freep) struct image *drawn = NULL;
	_cleanup_(freep) void *data = NULL, *png = NULL;
	const char *what = image_path;
	struct diag diag = { 0 };
	struct image_view view;
	size_t n_bytes;
	int r;

	r = blob_read(AT_FDCWD, image_path, MAX_FILE_BYTES, &data, &n_bytes);
	if (r == 0)
		r = draw(&drawn, data, n_bytes, prep, map, side, &diag);
	if (r == 0) {
		what = path;
		view = image_view(drawn);
		r = image_encode_png(&view, &png, &n_bytes);
	}
	if (r == 0)
		r = blob_write(AT_FDCWD, path, png, n_bytes);
	if (r < 0)
		(void)snprintf(why->text, sizeof(why->text), "%.180s: %.300s", what,
			diag.text[0] ? diag.text : strerror(-r));
	return r;
}
