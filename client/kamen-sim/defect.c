/* SPDX-License-Identifier: Apache-2.0 */
#include <stdbool.h>

#include "defect.h"
#include "noise.h"

enum { CLEARANCE = Q8(5), REACH = 62, N_TRIES = 64 };

static int32_t draw(struct rng *rng, int32_t low, int32_t high)
{
	return low + (int32_t)rng_below(rng, (uint32_t)(high - low + 1));
}

static int32_t draw_sign(struct rng *rng)
{
	return rng_below(rng, 2) ? 1 : -1;
}

static bool is_clear(const struct texture *texture, int32_t u, int32_t v)
{
	for (uint32_t i = 0; i < texture->n_holes; i++)
		if (texture_hole_distance(texture, i, u, v) < CLEARANCE)
			return false;
	return true;
}

static void draw_place(struct defect *defect, const struct texture *texture, struct rng *rng)
{
	for (int i = 0; i < N_TRIES; i++) {
		defect->u = Q8(draw(rng, -REACH, REACH));
		defect->v = Q8(draw(rng, -REACH, REACH));
		if (is_clear(texture, defect->u, defect->v))
			break;
	}
}

static void draw_scratch(struct defect *defect, struct rng *rng)
{
	do {
		defect->du = Q8(draw(rng, -40, 40));
		defect->dv = Q8(draw(rng, -40, 40));
	} while ((int64_t)defect->du * defect->du + (int64_t)defect->dv * defect->dv <
		 (int64_t)Q8(16) * Q8(16));
	defect->bow = draw(rng, Q8(-5), Q8(5));
	defect->radius = draw(rng, Q8(0.7), Q8(1.5));
	defect->strength = draw_sign(rng) * draw(rng, 50, 85);
}

static void draw_dent(struct defect *defect, struct rng *rng)
{
	defect->radius = draw(rng, Q8(11), Q8(19));
	defect->du = draw_sign(rng) * draw(rng, 120, 220);
	defect->dv = draw_sign(rng) * draw(rng, 120, 220);
	defect->strength = draw(rng, 110, 160);
}

void defect_draw(struct defect *ret_defect, const struct texture *texture, struct rng *rng)
{
	struct defect defect = { .kind = (enum part_defect)draw(
					 rng, PART_SCRATCH, PART_DEFECTS - 1) };

	defect.seed = rng_u32(rng);
	draw_place(&defect, texture, rng);
	switch (defect.kind) {
	case PART_SCRATCH:
		draw_scratch(&defect, rng);
		break;
	case PART_SPOT:
		defect.radius = draw(rng, Q8(3), Q8(6));
		defect.strength = -draw(rng, 55, 90);
		break;
	case PART_DENT:
		draw_dent(&defect, rng);
		break;
	case PART_STAIN:
		defect.radius = draw(rng, Q8(13), Q8(25));
		defect.strength = -draw(rng, 30, 48);
		break;
	case PART_MISSING:
		defect.hole = rng_below(rng, texture->n_holes);
		break;
	case PART_GOOD:
	case PART_DEFECTS:
		break;
	}
	*ret_defect = defect;
}

static int32_t distance(const struct defect *defect, int32_t u, int32_t v)
{
	int64_t du = u - defect->u, dv = v - defect->v;

	return (int32_t)noise_sqrt((uint64_t)(du * du + dv * dv));
}

/* Grey levels of strength where an edge lies d inside (d > 0), soft over `soft`. */
static int32_t cover(const struct defect *defect, int32_t d, int32_t soft)
{
	return defect->strength * q8_clamp(d * 256 / soft + 128, 0, 256);
}

static int32_t scratch_level(const struct defect *defect, int32_t u, int32_t v)
{
	int64_t du = defect->du, dv = defect->dv, pu = u - defect->u, pv = v - defect->v;
	int64_t squared = du * du + dv * dv;
	/* Along from -256 to 256, across in Q8 pixels. */
	int32_t along = (int32_t)((pu * du + pv * dv) * 256 / squared);
	int32_t across = (int32_t)((pu * dv - pv * du) / (int64_t)noise_sqrt((uint64_t)squared));
	int32_t width;

	if (along < -256 || along > 256)
		return 0;
	across -= defect->bow * (65536 - along * along) / 65536;
	width = defect->radius * (160 + noise_value(defect->seed, along * 8, 0, 256, 256) / 512) /
		256;
	return cover(defect, width - (across < 0 ? -across : across), Q8(1));
}

/* Light falls across a hollow: one flank brighter, one darker, flat at rim and bottom. */
static int32_t dent_level(const struct defect *defect, int32_t u, int32_t v)
{
	int32_t d = distance(defect, u, v) * 256 / defect->radius;
	int32_t slope;

	if (d >= 256)
		return 0;
	slope = ((u - defect->u) * defect->du + (v - defect->v) * defect->dv) / defect->radius;
	return defect->strength * slope * ((65536 - d * d) >> 8) / 192;
}

static int32_t stain_level(const struct defect *defect, int32_t u, int32_t v)
{
	int32_t n = noise_value(defect->seed, u, v, Q8(11), Q8(11)) / 256;
	int32_t edge = defect->radius * (160 + n * 3 / 4) / 256;

	return cover(defect, edge - distance(defect, u, v), Q8(4)) * (208 + n / 4) / 256;
}

int32_t defect_level(const struct defect *defect, int32_t u, int32_t v)
{
	switch (defect->kind) {
	case PART_SCRATCH:
		return scratch_level(defect, u, v);
	case PART_SPOT:
		return cover(defect, defect->radius - distance(defect, u, v), Q8(1.5));
	case PART_DENT:
		return dent_level(defect, u, v);
	case PART_STAIN:
		return stain_level(defect, u, v);
	case PART_GOOD:
	case PART_MISSING:
	case PART_DEFECTS:
		break;
	}
	return 0;
}
