/* SPDX-License-Identifier: Apache-2.0 */
#include "learn_subject.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "base/rng.h"
#include "subject.h"

#define N_IMAGES 256u
/* What the recipe's default is asked for: a site that is not short of images. */
#define N_SITE_IMAGES 2000u
#define SEED 1u
#define SHARE_NEAR .002f
/* Some ten steps of the default rate. */
#define NEAR .3f

/* Stripes under noise, in colours. */
static void render(struct image *image, uint32_t number)
{
	struct rng rng = rng_stream(SEED, number, 0, 0);
	const float angle = rng_range(&rng, 0, 3.1f), width = rng_range(&rng, 2, 12);
	const float shift = rng_range(&rng, 0, 6.3f);
	uint8_t *pixel = image->pixels;

	for (uint32_t y = 0; y < image->height; y++)
		for (uint32_t x = 0; x < image->width; x++) {
			float along = (float)x * cosf(angle) + (float)y * sinf(angle);
			uint32_t noise = rng_u32(&rng);

			for (unsigned c = 0; c < 3; c++, noise >>= 8)
				*pixel++ = (uint8_t)(112 +
						     80 * sinf(along / width + shift * (float)c) +
						     (float)(noise & 31));
		}
}

static int images_new(struct learn_subject *s, uint32_t side)
{
	s->images = calloc(N_IMAGES, sizeof(*s->images));
	if (!s->images)
		return -ENOMEM;
	for (uint32_t i = 0; i < N_IMAGES; i++) {
		int r = image_new(&s->images[i], side, side, 3);

		if (r < 0)
			return r;
		render(s->images[i], i);
	}
	return 0;
}

static int get_image(void *owner, uint32_t i, struct image_view *ret_view)
{
	const struct learn_subject *s = owner;

	*ret_view = image_view(s->images[i]);
	return 0;
}

static int start_late(struct learn_subject *s)
{
	const size_t n = vit_layout(s->vit)->n_elements;
	_cleanup_(freep) float *scores = malloc(n * sizeof(*scores));
	struct rng rng = rng_stream(SEED, 0, 1, 0);

	if (!scores)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++)
		scores[i] = rng_uniform(&rng) < SHARE_NEAR ? rng_range(&rng, -NEAR, NEAR)
							   : s->recipe.score_init;
	round_start_at(s->round, scores);
	return 0;
}

int learn_subject_init(
	struct learn_subject *s, const struct learn_subject_options *options, struct diag *diag)
{
	const struct image_source source = { .owner = s, .n = N_IMAGES, .get = get_image };
	struct prep prep;
	int r = subject_open(
		&s->base, &s->vit, options->file, options->random, options->precision, diag);

	if (r < 0)
		return r;
	prep = vit_native_prep(s->vit);
	if (options->px)
		prep.input_px = options->px;
	s->recipe = recipe_default(s->vit, &prep, N_SITE_IMAGES);
	s->recipe.precision = options->precision;
	s->recipe.steps = options->n_steps;
	if (options->batch)
		s->recipe.batch = options->batch;
	r = images_new(s, prep.input_px + prep.input_px / 7);
	if (r == 0)
		r = round_new(&s->round, s->vit, &s->recipe, &prep, &source, diag);
	return r == 0 ? start_late(s) : r;
}

void learn_subject_done(struct learn_subject *s)
{
	round_free(s->round);
	for (uint32_t i = 0; s->images && i < N_IMAGES; i++)
		image_free(s->images[i]);
	free(s->images);
	vit_free(s->vit);
	base_free(s->base);
}
