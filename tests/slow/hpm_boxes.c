/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <string.h>

#include "base/blob.h"
#include "hpm_study.h"

#define MAX_BOXES 16u
#define MAX_FILE ((size_t)4 << 20)
#define PNG_PX 448u

/** In pixels of the image's file. */
struct box {
	float x0, y0, x1, y1;
};

struct annotated {
	char name[64]; /* CLASS_N */
	struct image *image;
	struct box boxes[MAX_BOXES];
	uint32_t n_boxes;
};

static void annotated_done(struct annotated *annotated)
{
	image_free(annotated->image);
}

/* The number behind <name> from *at on, which moves behind it. */
static bool read_tag(const char **at, const char *name, float *ret_value)
{
	const char *tag = strstr(*at, name);

	if (!tag)
		return false;
	*at = tag + strlen(name);
	*ret_value = strtof(*at, NULL);
	return true;
}

static int read_boxes(struct annotated *annotated, const char *data)
{
	_cleanup_(freep) char *text = NULL;
	char path[4096];
	const char *at;
	size_t n_bytes;
	int r;

	(void)snprintf(path, sizeof(path), "%s/_annotations/%s.xml", data, annotated->name);
	r = blob_read(AT_FDCWD, path, MAX_FILE, (void **)&text, &n_bytes);
	if (r < 0)
		return r;
	at = text;
	while (annotated->n_boxes < MAX_BOXES) {
		struct box *box = &annotated->boxes[annotated->n_boxes];

		if (!read_tag(&at, "<xmin>", &box->x0) || !read_tag(&at, "<ymin>", &box->y0) ||
			!read_tag(&at, "<xmax>", &box->x1) || !read_tag(&at, "<ymax>", &box->y1))
			break;
		annotated->n_boxes++;
	}
	return annotated->n_boxes > 0 ? 0 : -ENODATA;
}

/* Share of a rectangle that lies in boxes, by a grid of points. */
static float share_inside(const struct annotated *annotated, struct box area)
{
	enum { POINTS = 8 };
	uint32_t n = 0;

	for (uint32_t i = 0; i < POINTS * POINTS; i++) {
		const float x =
			area.x0 + (area.x1 - area.x0) * ((float)(i % POINTS) + .5f) / POINTS;
		const float y =
			area.y0 + (area.y1 - area.y0) * ((float)(i / POINTS) + .5f) / POINTS;
		bool inside = false;

		for (uint32_t b = 0; b < annotated->n_boxes; b++) {
			const struct box *box = &annotated->boxes[b];

			inside |= x >= box->x0 && x < box->x1 && y >= box->y0 && y < box->y1;
		}
		n += inside;
	}
	return (float)n / (POINTS * POINTS);
}

/* -EAGAIN: learnt from, or of no use: boxes everywhere, or hardly any. */
static int open_annotated(struct annotated *annotated, const char *data, const char *name)
{
	_cleanup_(freep) void *file = NULL;
	char path[4096];
	size_t n_bytes;
	struct box whole = { 0 };
	float share;
	int r;

	*annotated = (struct annotated){ 0 };
	(void)snprintf(annotated->name, sizeof(annotated->name), "%s", name);
	(void)snprintf(path, sizeof(path), "%s/%.*s/%s.jpg", data, (int)(strrchr(name, '_') - name),
		name, name);
	r = blob_read(AT_FDCWD, path, MAX_FILE, &file, &n_bytes);
	if (r < 0)
		return r;
	if (!digest_is_held(file, n_bytes))
		return -EAGAIN;
	r = image_decode(&annotated->image, file, n_bytes, NULL);
	if (r == 0)
		r = read_boxes(annotated, data);
	if (r < 0)
		return r;
	whole.x1 = (float)annotated->image->width;
	whole.y1 = (float)annotated->image->height;
	share = share_inside(annotated, whole);
	return share < .05f || share > .6f ? -EAGAIN : 0;
}

static struct box patch_box(const struct annotated *annotated, uint32_t grid, uint32_t patch)
{
	const float w = (float)annotated->image->width / (float)grid;
	const float h = (float)annotated->image->height / (float)grid;
	const float x = (float)(patch % grid), y = (float)(patch / grid);

	return (struct box){ x * w, y * h, (x + 1) * w, (y + 1) * h };
}

/** Means over the patches, each counted by its share inside and outside of the boxes. */
struct contrast {
	double inside, outside;
};

static struct contrast contrast_of(
	const struct annotated *annotated, const float *values, uint32_t grid)
{
	double sums[2] = { 0 }, weights[2] = { 0 };

	for (uint32_t i = 0; i < grid * grid; i++) {
		const float inside = share_inside(annotated, patch_box(annotated, grid, i));

		sums[0] += inside * values[i];
		weights[0] += inside;
		sums[1] += (1 - inside) * values[i];
		weights[1] += 1 - inside;
	}
	return (struct contrast){ sums[0] / weights[0], sums[1] / weights[1] };
}

/* The order alone means something: 0 the easiest patch, 1 the hardest. */
static void to_shares(float *shares, const float *map, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		uint32_t below = 0;

		for (uint32_t j = 0; j < n; j++)
			below += map[j] < map[i];
		shares[i] = (float)below / (float)(n - 1);
	}
}

static void put_pixel(struct image *image, uint32_t x, uint32_t y, float r, float g, float b)
{
	uint8_t *p = image->pixels + ((size_t)y * image->width + x) * 3;

	p[0] = (uint8_t)(255 * fminf(fmaxf(r, 0), 1));
	p[1] = (uint8_t)(255 * fminf(fmaxf(g, 0), 1));
	p[2] = (uint8_t)(255 * fminf(fmaxf(b, 0), 1));
}

static bool is_edge(const struct annotated *annotated, float x, float y, float width)
{
	for (uint32_t b = 0; b < annotated->n_boxes; b++) {
		const struct box *box = &annotated->boxes[b];
		const float dx = fminf(fabsf(x - box->x0), fabsf(x - box->x1));
		const float dy = fminf(fabsf(y - box->y0), fabsf(y - box->y1));
		const bool in_x = x > box->x0 - width && x < box->x1 + width;
		const bool in_y = y > box->y0 - width && y < box->y1 + width;

		if ((dx < width && in_y) || (dy < width && in_x))
			return true;
	}
	return false;
}

/* The image with its boxes, and beside it the map: blue is easy, red is hard. */
static int write_png(
	const struct annotated *annotated, const float *shares, uint32_t grid, const char *out)
{
	_cleanup_(image_freep) struct image *picture = NULL;
	_cleanup_(freep) void *data = NULL;
	const struct image *image = annotated->image;
	struct image_view view;
	char path[4096];
	size_t n_bytes;
	int r = image_new(&picture, 2 * PNG_PX, PNG_PX, 3);

	if (r < 0)
		return r;
	for (uint32_t y = 0; y < PNG_PX; y++)
		for (uint32_t x = 0; x < PNG_PX; x++) {
			const uint32_t from_x = x * image->width / PNG_PX;
			const uint32_t from_y = y * image->height / PNG_PX;
			const float grey =
				(float)image->pixels[((size_t)from_y * image->width + from_x) *
						     image->n_channels] /
				255;
			const float hard =
				shares[(size_t)(y * grid / PNG_PX) * grid + x * grid / PNG_PX];

			if (is_edge(annotated, (float)x * (float)image->width / PNG_PX,
				    (float)y * (float)image->height / PNG_PX, .7f))
				put_pixel(picture, x, y, 0, 1, 0);
			else
				put_pixel(picture, x, y, grey, grey, grey);
			put_pixel(picture, PNG_PX + x, y, .35f * grey + .65f * hard,
				.35f * grey + .65f * (1 - fabsf(2 * hard - 1)) * .8f,
				.35f * grey + .65f * (1 - hard));
		}
	view = image_view(picture);
	r = image_encode_png(&view, &data, &n_bytes);
	(void)snprintf(path, sizeof(path), "%s/%s.png", out, annotated->name);
	return r < 0 ? r : blob_write(AT_FDCWD, path, data, n_bytes);
}

static int one(struct hpm_view *view, const char *data, const char *name, const char *out,
	double *ret_ratio)
{
	__attribute__((cleanup(annotated_done))) struct annotated annotated = { 0 };
	float shares[HARDNESS_MAX_GRID * HARDNESS_MAX_GRID];
	struct contrast ranks, raw;
	struct image_view pixels;
	int r = open_annotated(&annotated, data, name);

	if (r < 0)
		return r;
	pixels = image_view(annotated.image);
	r = hpm_view_look(view, &pixels);
	if (r < 0)
		return r;
	to_shares(shares, view->map, view->grid * view->grid);
	ranks = contrast_of(&annotated, shares, view->grid);
	raw = contrast_of(&annotated, view->map, view->grid);
	*ret_ratio = ranks.inside / ranks.outside;
	printf("  %-20s %u boxes: inside %.3f outside %.3f ratio %.3f (raw %.3f %.3f)\n",
		annotated.name, annotated.n_boxes, ranks.inside, ranks.outside, *ret_ratio,
		raw.inside, raw.outside);
	return out ? write_png(&annotated, shares, view->grid, out) : 0;
}

int hpm_boxes(struct hpm_view *view, const char *data, const char *out)
{
	static const char *const classes[] = { "crazing", "inclusion", "patches", "pitted_surface",
		"rolled-in_scale", "scratches" };
	enum { N_WANTED = 10, N_FILES = 300, N_CLASSES = ARRAY_SIZE(classes) };
	uint32_t at[N_CLASSES] = { 0 }, n = 0, n_above = 0, n_ended = 0;
	double sum = 0;

	for (uint32_t c = 0; n < N_WANTED && n_ended < N_CLASSES; c = (c + 1) % N_CLASSES) {
		double ratio = 0;
		int r = -EAGAIN;

		while (r == -EAGAIN && at[c] < N_FILES) {
			char name[64];

			(void)snprintf(name, sizeof(name), "%s_%u", classes[c], ++at[c]);
			r = one(view, data, name, out, &ratio);
		}
		/* So many classes in a row have none left. */
		n_ended = r == -EAGAIN ? n_ended + 1 : 0;
		if (r == -EAGAIN)
			continue;
		if (r < 0)
			return r;
		sum += ratio;
		n_above += ratio > 1;
		n++;
	}
	if (n == 0)
		return -ENODATA;
	printf("hardness inside over outside of the boxes, by rank: mean ratio %.3f, above 1 in %u "
	       "of "
	       "%u images\n",
		sum / n, n_above, n);
	return 0;
}
