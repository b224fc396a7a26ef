/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <math.h>

#include "image/augment_draw.h"
#include "image/blur.h"
#include "image/colour.h"

#define N_CROP_TRIES 10u

struct augment_scratch {
	struct resize_scratch *resize;
	float *blur; /* blur_scratch_floats(max_px) */
	uint32_t max_px;
};

struct augment augment_default(
	uint32_t px, float min_area, float max_area, const float mean[3], const float std[3])
{
	return (struct augment){
		.px = px,
		.min_area = min_area,
		.max_area = max_area,
		.min_aspect = 3.f / 4.f,
		.max_aspect = 4.f / 3.f,
		.flip_p = 0.5f,
		.jitter_p = 0.8f,
		.brightness = 0.8f,
		.contrast = 0.8f,
		.saturation = 0.8f,
		.hue = 0.2f,
		.grey_p = 0.2f,
		.blur_p = 0.5f,
		.min_sigma = 0.1f,
		.max_sigma = 2.f,
		.mean = { mean[0], mean[1], mean[2] },
		.std = { std[0], std[1], std[2] },
	};
}

int augment_scratch_new(struct augment_scratch **ret_scratch, uint32_t max_px)
{
	_cleanup_(augment_scratch_freep) struct augment_scratch *scratch = NULL;
	int r;

	scratch = calloc(1, sizeof(*scratch));
	if (!scratch)
		return -ENOMEM;
	scratch->max_px = max_px;
	scratch->blur = malloc(blur_scratch_floats(max_px) * sizeof(*scratch->blur));
	if (!scratch->blur)
		return -ENOMEM;
	r = resize_scratch_new(&scratch->resize);
	if (r < 0)
		return r;
	*ret_scratch = TAKE_PTR(scratch);
	return 0;
}

void augment_scratch_free(struct augment_scratch *scratch)
{
	if (!scratch)
		return;
	resize_scratch_free(scratch->resize);
	free(scratch->blur);
	free(scratch);
}

/* Where no try fits: the largest centred part with an allowed aspect. */
static void centre_crop(
	struct augment_draw *draw, const struct augment *augment, uint32_t width, uint32_t height)
{
	double aspect = (double)width / height;

	draw->width = width;
	draw->height = height;
	if (aspect < (double)augment->min_aspect)
		draw->height = (uint32_t)lrint(width / (double)augment->min_aspect);
	else if (aspect > (double)augment->max_aspect)
		draw->width = (uint32_t)lrint(height * (double)augment->max_aspect);
	/* Rounding must lead neither out of the image nor to nothing. */
	draw->width = draw->width > width ? width : draw->width;
	draw->height = draw->height > height ? height : draw->height;
	draw->x = (width - draw->width) / 2;
	draw->y = (height - draw->height) / 2;
}

static void draw_crop(struct augment_draw *draw, const struct augment *augment, uint32_t width,
	uint32_t height, struct rng *rng)
{
	const float log_min = logf(augment->min_aspect), log_max = logf(augment->max_aspect);
	const double whole = (double)width * height;

	for (unsigned i = 0; i < N_CROP_TRIES; i++) {
		double area = whole * (double)rng_range(rng, augment->min_area, augment->max_area);
		double aspect = (double)expf(rng_range(rng, log_min, log_max));
		long w = lrint(sqrt(area * aspect)), h = lrint(sqrt(area / aspect));

		if (w <= 0 || h <= 0 || w > width || h > height)
			continue;
		draw->width = (uint32_t)w;
		draw->height = (uint32_t)h;
		draw->y = rng_below(rng, height - draw->height + 1);
		draw->x = rng_below(rng, width - draw->width + 1);
		return;
	}
	centre_crop(draw, augment, width, height);
}

static float draw_factor(struct rng *rng, float spread)
{
	return rng_range(rng, spread < 1 ? 1 - spread : 0, 1 + spread);
}

struct augment_draw augment_draw(
	const struct augment *augment, uint32_t width, uint32_t height, struct rng *rng)
{
	struct augment_draw draw;

	draw_crop(&draw, augment, width, height, rng);
	draw.flip = rng_uniform(rng) < augment->flip_p;
	draw.jitter = rng_uniform(rng) < augment->jitter_p;
	rng_permutation(rng, draw.order, N_JITTER);
	draw.amount[JITTER_BRIGHTNESS] = draw_factor(rng, augment->brightness);
	draw.amount[JITTER_CONTRAST] = draw_factor(rng, augment->contrast);
	draw.amount[JITTER_SATURATION] = draw_factor(rng, augment->saturation);
	draw.amount[JITTER_HUE] = rng_range(rng, -augment->hue, augment->hue);
	draw.grey = rng_uniform(rng) < augment->grey_p;
	draw.blur = rng_uniform(rng) < augment->blur_p;
	draw.sigma = rng_range(rng, augment->min_sigma, augment->max_sigma);
	draw.solarize = rng_uniform(rng) < augment->solarize_p;
	return draw;
}

/* The crop's bytes (px, px, n_channels) to planes in [0, 1], mirrored on the way. */
static void unpack(float *dst, const uint8_t *src, uint32_t px, uint32_t n_channels, bool flip)
{
	for (unsigned c = 0; c < 3; c++)
		for (uint32_t y = 0; y < px; y++) {
			const uint8_t *row =
				src + (size_t)y * px * n_channels + (n_channels == 3 ? c : 0);
			float *out = dst + ((size_t)c * px + y) * px;

			if (flip)
				for (uint32_t x = 0; x < px; x++)
					out[x] =
						(float)row[(px - 1 - x) * n_channels] * (1 / 255.f);
			else
				for (uint32_t x = 0; x < px; x++)
					out[x] = (float)row[x * n_channels] * (1 / 255.f);
		}
}

static int crop(const struct augment *augment, const struct augment_draw *draw,
	const struct image_view *src, float *dst, struct resize_scratch *scratch)
{
	uint32_t px = augment->px;
	/* A view of its own, so that pixels beside the crop do not shine in. */
	const struct image_view part = {
		src->pixels + draw->y * src->stride + (size_t)draw->x * src->n_channels,
		draw->width,
		draw->height,
		src->n_channels,
		src->stride,
	};
	const struct resize_box box = { 0, 0, (float)draw->width, (float)draw->height };
	uint8_t *pixels = resize_scratch_pixels(scratch, (size_t)px * px * src->n_channels);
	int r;

	if (!pixels)
		return -ENOMEM;
	r = resize_u8(pixels, px, px, &part, &box, RESIZE_BILINEAR, scratch);
	if (r < 0)
		return r;
	unpack(dst, pixels, px, src->n_channels, draw->flip);
	return 0;
}

static void jitter(const struct augment_draw *draw, float *rgb, size_t n)
{
	for (unsigned i = 0; i < N_JITTER; i++) {
		float amount = draw->amount[draw->order[i]];

		switch ((enum jitter_step)draw->order[i]) {
		case JITTER_BRIGHTNESS:
			colour_brightness(rgb, n, amount);
			break;
		case JITTER_CONTRAST:
			colour_contrast(rgb, n, amount);
			break;
		case JITTER_SATURATION:
			colour_saturation(rgb, n, amount);
			break;
		case JITTER_HUE:
			colour_hue(rgb, n, amount);
			break;
		case N_JITTER:
			break;
		}
	}
}

int augment_apply(const struct augment *augment, const struct image_view *src, struct rng *rng,
	float *dst, struct augment_scratch *scratch)
{
	size_t n = (size_t)augment->px * augment->px;
	struct augment_draw draw;
	int r;

	if (augment->px < BLUR_MIN_PX || augment->px > scratch->max_px)
		return -EINVAL;
	draw = augment_draw(augment, src->width, src->height, rng);
	r = crop(augment, &draw, src, dst, scratch->resize);
	if (r < 0)
		return r;
	if (draw.jitter)
		jitter(&draw, dst, n);
	if (draw.grey)
		colour_grey(dst, n);
	if (draw.solarize)
		colour_solarize(dst, n);
	if (draw.blur)
		blur_planes(dst, augment->px, augment_blur_taps(augment->px), draw.sigma,
			scratch->blur);
	for (unsigned c = 0; c < 3; c++) {
		const float scale = 1 / augment->std[c], shift = augment->mean[c] * scale;

		for (size_t i = 0; i < n; i++)
			dst[c * n + i] = dst[c * n + i] * scale - shift;
	}
	return 0;
}
