/* SPDX-License-Identifier: Apache-2.0 */
#include <stdbool.h>
#include <stddef.h>

#include "defect.h"
#include "noise.h"

enum {
	GRID = 192,          /* the part's own grid; px samples it more or less finely */
	VISIBLE = Q8(8),     /* a difference of this many levels belongs to the box */
	HOLE_LEVEL = Q8(26), /* of its bottom */
	RIM_WIDTH = Q8(2.5),
};

/* Streams of one part: its defect is drawn apart, so that the part below it stays the same. */
enum { STREAM_PART = 0x706172, STREAM_DEFECT = 0x646566 };

const char *const part_kind_names[PART_KINDS] = { "brushed-fine", "brushed-coarse", "fabric-plain",
	"fabric-twill", "casting-fine", "casting-coarse", "sheet-round", "sheet-slot" };
const char *const part_defect_names[PART_DEFECTS] = { "good", "scratch", "spot", "dent", "stain",
	"missing" };

/* Everything that is drawn once for a part. */
struct scene {
	const struct texture *texture;
	struct defect defect;
	uint32_t seed;
	int32_t shift_u, shift_v;       /* Q8 */
	int32_t cosine, sine;           /* Q14, times the scale */
	int32_t gain, slope_u, slope_v; /* light: Q8, and Q8 at the border */
	int32_t balance[3];             /* Q8 */
	int32_t noise;                  /* of the sensor, levels */
};

/* What one point of the part looks like. */
struct sample {
	int32_t level; /* Q8 */
	bool differs;  /* visibly, from the good part */
};

static int32_t draw(struct rng *rng, int32_t low, int32_t high)
{
	return low + (int32_t)rng_below(rng, (uint32_t)(high - low + 1));
}

static void draw_pose(struct scene *scene, struct rng *rng)
{
	int32_t angle = draw(rng, -1700, 1700); /* Q14 radians: 6 degrees */
	int32_t scale = draw(rng, 245, 267);    /* Q8 */

	scene->shift_u = draw(rng, Q8(-8), Q8(8));
	scene->shift_v = draw(rng, Q8(-8), Q8(8));
	/* Two terms of the series are exact to Q14 at so small an angle. */
	scene->cosine = (16384 - angle * angle / 32768) * scale / 256;
	scene->sine = (angle - angle * angle / 16384 * angle / 16384 / 6) * scale / 256;
}

static void draw_light(struct scene *scene, struct rng *rng)
{
	int32_t warm = draw(rng, -8, 8);

	scene->gain = draw(rng, 204, 308);
	scene->slope_u = draw(rng, -44, 44);
	scene->slope_v = draw(rng, -44, 44);
	scene->balance[0] = 256 + warm;
	scene->balance[1] = 256;
	scene->balance[2] = 256 - warm;
	scene->noise = draw(rng, 2, 6);
}

static void draw_scene(struct scene *scene, uint64_t seed, uint32_t index, uint32_t defects_ppm,
	uint32_t *ret_kind)
{
	struct rng rng = rng_stream(seed, index, STREAM_PART, 0);
	struct rng of_defect = rng_stream(seed, index, STREAM_DEFECT, 0);

	*ret_kind = rng_below(&rng, PART_KINDS);
	*scene = (struct scene){ .texture = &textures[*ret_kind], .seed = rng_u32(&rng) };
	draw_pose(scene, &rng);
	draw_light(scene, &rng);
	if (rng_below(&of_defect, 1000000) < defects_ppm)
		defect_draw(&scene->defect, scene->texture, &of_defect);
}

/* How much of a point lies inside a shape whose edge is d away (negative inside), of 256. */
static int32_t inside(int32_t d)
{
	return q8_clamp(128 - d, 0, 256);
}

static int32_t mix(int32_t a, int32_t b, int32_t of_256)
{
	return a + (b - a) / 256 * of_256;
}

static struct sample sample_at(const struct scene *scene, int32_t u, int32_t v)
{
	const struct texture *texture = scene->texture;
	bool is_missing = scene->defect.kind == PART_MISSING;
	int32_t added = defect_level(&scene->defect, u, v);
	struct sample sample = { texture->level(scene->seed, u, v, texture->grade) + added,
		added >= VISIBLE || added <= -VISIBLE };

	for (uint32_t i = 0; i < texture->n_holes; i++) {
		int32_t d = texture_hole_distance(texture, i, u, v);

		if (d > RIM_WIDTH + 128)
			continue;
		if (is_missing && i == scene->defect.hole) {
			sample.differs = true;
			continue;
		}
		/* A countersunk rim catches the light, then the dark bottom. */
		sample.level = mix(sample.level, Q8(196), inside(d - RIM_WIDTH) * 3 / 4);
		sample.level = mix(sample.level, HOLE_LEVEL, inside(d));
		sample.differs = sample.differs && d > 0;
	}
	return sample;
}

static uint8_t to_byte(int32_t level)
{
	return (uint8_t)(q8_clamp(level, 0, Q8(255)) >> 8);
}

/* (x, y) in Q8 grid pixels from the picture's centre. */
static int32_t light_at(const struct scene *scene, int32_t level, int32_t x, int32_t y)
{
	int32_t gain = scene->gain +
		       (scene->slope_u * (x / 256) + scene->slope_v * (y / 256)) / (GRID / 2);

	return (int32_t)((int64_t)level * gain / 256);
}

static int32_t sensor_noise(const struct scene *scene, uint32_t x, uint32_t y)
{
	uint32_t h = noise_hash(scene->seed ^ 0x5e4505u, x, y);

	/* The sum of two bytes: a triangle about 0. */
	return ((int32_t)(h & 255) + (int32_t)(h >> 8 & 255) - 255) * scene->noise;
}

static void put_pixel(uint8_t *pixel, const struct scene *scene, int32_t level, uint32_t n_channels)
{
	if (n_channels == 1) {
		pixel[0] = to_byte(level);
		return;
	}
	for (uint32_t c = 0; c < 3; c++)
		pixel[c] = to_byte((int32_t)((int64_t)level * scene->texture->tint[c] *
					     scene->balance[c] / 65536));
}

static void box_add(struct part_box *box, uint32_t x, uint32_t y)
{
	uint32_t right, bottom;

	if (box->width == 0) {
		*box = (struct part_box){ x, y, 1, 1 };
		return;
	}
	right = x >= box->x + box->width ? x + 1 : box->x + box->width;
	bottom = y >= box->y + box->height ? y + 1 : box->y + box->height;
	box->x = x < box->x ? x : box->x;
	box->y = y < box->y ? y : box->y;
	box->width = right - box->x;
	box->height = bottom - box->y;
}

void part_render(struct part *ret_part, uint8_t *pixels, uint32_t px, uint32_t n_channels,
	uint64_t seed, uint32_t index, uint32_t defects_ppm)
{
	struct part part = { 0 };
	struct scene scene;

	draw_scene(&scene, seed, index, defects_ppm, &part.kind);
	part.defect = scene.defect.kind;
	for (uint32_t y = 0; y < px; y++)
		for (uint32_t x = 0; x < px; x++) {
			int32_t gx = (int32_t)((2 * x + 1) * GRID * 128 / px) - Q8(GRID / 2);
			int32_t gy = (int32_t)((2 * y + 1) * GRID * 128 / px) - Q8(GRID / 2);
			int64_t u = ((int64_t)gx * scene.cosine - (int64_t)gy * scene.sine) / 16384;
			int64_t v = ((int64_t)gx * scene.sine + (int64_t)gy * scene.cosine) / 16384;
			struct sample sample = sample_at(
				&scene, (int32_t)u + scene.shift_u, (int32_t)v + scene.shift_v);
			int32_t level =
				light_at(&scene, sample.level, gx, gy) + sensor_noise(&scene, x, y);

			if (sample.differs)
				box_add(&part.box, x, y);
			put_pixel(pixels + ((size_t)y * px + x) * n_channels, &scene, level,
				n_channels);
		}
	*ret_part = part;
}
