/* SPDX-License-Identifier: Apache-2.0 */
#include "texture.h"
#include "noise.h"

/* Lines of a grinding belt; grade is the width of a line. */
static int32_t brushed(uint32_t seed, int32_t u, int32_t v, int32_t grade)
{
	return Q8(122) + noise_level(seed, u, v, Q8(52), grade, 34) +
	       noise_level(seed + 1, u, v, Q8(17), Q8(0.9), 18) +
	       noise_level(seed + 2, u, v, Q8(90), Q8(60), 10);
}

/* 0 at the edges of a thread, 256 on its back. */
static int32_t thread_profile(int32_t f)
{
	return (4 * f * (256 - f)) >> 8;
}

/* A weave of threads 7 px wide; grade: a warp thread shows over every grade-th weft. */
static int32_t fabric(uint32_t seed, int32_t u, int32_t v, int32_t grade)
{
	const int32_t pitch = Q8(7), bias = pitch * 512;
	int32_t i = (u + bias) / pitch, j = (v + bias) / pitch;
	int32_t fu = (u + bias) % pitch * 256 / pitch, fv = (v + bias) % pitch * 256 / pitch;
	int32_t is_warp = (i + j) % grade == 0;
	int32_t across = thread_profile(is_warp ? fu : fv);
	int32_t along = thread_profile(is_warp ? fv : fu);
	int32_t shade = is_warp ? 88 : 70;
	uint32_t thread = noise_hash(seed, (uint32_t)(is_warp ? i : j), (uint32_t)is_warp);

	return Q8(46) + shade * across * (150 + 106 * along / 256) / 256 +
	       (int32_t)(thread >> 24) * 16 - Q8(8) +
	       noise_level(seed + 1, u, v, Q8(1.4), Q8(1.4), 20) +
	       noise_level(seed + 2, u, v, Q8(70), Q8(70), 10);
}

/* Sand cast: three octaves of grain and a few pits; grade is the size of the grain. */
static int32_t casting(uint32_t seed, int32_t u, int32_t v, int32_t grade)
{
	int32_t pit = noise_value(seed + 3, u, v, Q8(6), Q8(6)) - 54000;

	return Q8(108) + noise_level(seed, u, v, grade, grade, 34) +
	       noise_level(seed + 1, u, v, grade / 2, grade / 2, 22) +
	       noise_level(seed + 2, u, v, grade / 4, grade / 4, 14) - (pit > 0 ? pit / 2 : 0);
}

/* Rolled sheet: nearly smooth, a faint grain along u; grade is the strength of its roller marks. */
static int32_t sheet(uint32_t seed, int32_t u, int32_t v, int32_t grade)
{
	return Q8(148) + noise_level(seed, u, v, Q8(24), Q8(2), 12) +
	       noise_level(seed + 1, u, v, Q8(9), Q8(80), grade / 256) +
	       noise_level(seed + 2, u, v, Q8(60), Q8(60), 12);
}

#define METAL \
	{ \
		250, 256, 264 \
	}
#define CLOTH \
	{ \
		268, 250, 214 \
	}
#define IRON \
	{ \
		256, 253, 246 \
	}

#define GRID_OF_NINE \
	{ \
		{ Q8(-56), Q8(-56) }, { 0, Q8(-56) }, { Q8(56), Q8(-56) }, { Q8(-56), 0 }, \
			{ 0, 0 }, { Q8(56), 0 }, { Q8(-56), Q8(56) }, { 0, Q8(56) }, \
		{ \
			Q8(56), Q8(56) \
		} \
	}

const struct texture textures[PART_KINDS] = {
	{ brushed, Q8(1.4), Q8(8), 0, 2, { { Q8(-58), Q8(-50) }, { Q8(58), Q8(50) } }, METAL },
	{ brushed, Q8(2.6), Q8(8), 0, 2, { { Q8(-58), Q8(50) }, { Q8(58), Q8(-50) } }, METAL },
	{ fabric, 2, Q8(7), 0, 2, { { Q8(-60), Q8(-60) }, { Q8(60), Q8(-60) } }, CLOTH },
	{ fabric, 3, Q8(7), 0, 2, { { Q8(-60), Q8(-60) }, { Q8(60), Q8(-60) } }, CLOTH },
	{ casting, Q8(7), Q8(11), 0, 1, { { Q8(40), Q8(-40) } }, IRON },
	{ casting, Q8(13), Q8(11), 0, 1, { { Q8(40), Q8(-40) } }, IRON },
	{ sheet, Q8(8), Q8(10), 0, 9, GRID_OF_NINE, METAL },
	{ sheet, Q8(16), Q8(6), Q8(9), 9, GRID_OF_NINE, METAL },
};

int32_t texture_hole_distance(const struct texture *texture, uint32_t i, int32_t u, int32_t v)
{
	int64_t du = u - texture->holes[i][0], dv = v - texture->holes[i][1];

	/* A slot is the round hole drawn along u. */
	if (du > texture->hole_half_length)
		du -= texture->hole_half_length;
	else if (du < -texture->hole_half_length)
		du += texture->hole_half_length;
	else
		du = 0;
	return (int32_t)noise_sqrt((uint64_t)(du * du + dv * dv)) - texture->hole_radius;
}
