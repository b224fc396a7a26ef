/* SPDX-License-Identifier: Apache-2.0 */
#include <endian.h>
#include <errno.h>
#include <math.h>

#include "base/cleanup.h"
#include "image/blur.h"
#include "learn/recipe.h"
#include "learn/warm.h"

#define LARGE_INPUT_PX 192u
#define SMALL_SHARE (4.f / 7) /* 64 of 112 */
#define N_STEPS 100u

static uint32_t at_least(uint32_t value, uint32_t least)
{
	return value > least ? value : least;
}

static uint32_t at_most(uint32_t value, uint32_t most)
{
	return value < most ? value : most;
}

/* To whole patches, two at least: one patch alone leaves nothing to attend to. */
static uint32_t whole_patches(float px, uint32_t patch)
{
	return at_least((uint32_t)lroundf(px / (float)patch), 2) * patch;
}

/* Centred features of n images span n - 1 directions. */
static uint32_t most_directions(const struct vit_shape *shape, uint32_t n_images)
{
	return at_most(shape->width, at_least(at_most(n_images, WARM_MAX_IMAGES), 3) - 1);
}

float recipe_score_lr(uint32_t steps)
{
	return fminf(2 * RECIPE_TRAVEL / (float)at_least(steps, 1), RECIPE_MAX_SCORE_LR);
}

struct recipe recipe_default(const struct vit *vit, const struct prep *prep, uint32_t n_images)
{
	const struct vit_shape *shape = vit_shape(vit);
	uint32_t px = prep->input_px >= LARGE_INPUT_PX ? prep->input_px / 2 : prep->input_px;
	uint32_t batch = at_most(64, at_least(n_images / 2, 2));
	uint32_t large_px = whole_patches((float)px, shape->patch);

	return (struct recipe){
		.seed = 1,
		.steps = N_STEPS,
		.batch = batch,
		.n_prototypes = at_most(100, at_least(n_images / 8, 2)),
		.head_dim = at_most(128, most_directions(shape, n_images)),
		.large_px = large_px,
		.small_px = whole_patches((float)large_px * SMALL_SHARE, shape->patch),
		.n_small = 2,
		/* Not more than the images of an epoch, or one would meet itself. */
		.queue = at_most(512, n_images / batch * batch),
		.optimiser = RECIPE_ADAM,
		.score_init = 1,
		.score_lr = recipe_score_lr(N_STEPS),
		.head_lr = .15f,
		.min_area = .14f,
		.temperature = .1f,
		.sinkhorn_eps = .05f,
		.sinkhorn_iterations = 3,
		.alpha_term = true,
	};
}

struct count_field {
	const char *name;
	uint32_t value, lo, hi;
};

struct real_field {
	const char *name;
	float value, lo, hi;
};

static int check_counts(const struct count_field *fields, size_t n, struct diag *diag)
{
	for (size_t i = 0; i < n; i++)
		if (fields[i].value < fields[i].lo || fields[i].value > fields[i].hi)
			return diag_set(diag, EINVAL, "recipe: %s = %u, not %u..%u", fields[i].name,
				fields[i].value, fields[i].lo, fields[i].hi);
	return 0;
}

static int check_reals(const struct real_field *fields, size_t n, struct diag *diag)
{
	for (size_t i = 0; i < n; i++)
		if (!(fields[i].value >= fields[i].lo && fields[i].value <= fields[i].hi))
			return diag_set(diag, EINVAL, "recipe: %s = %g, not %g..%g", fields[i].name,
				(double)fields[i].value, (double)fields[i].lo,
				(double)fields[i].hi);
	return 0;
}

int recipe_check(
	const struct recipe *recipe, const struct vit *vit, uint32_t n_images, struct diag *diag)
{
	const struct vit_shape *shape = vit_shape(vit);
	const struct count_field counts[] = {
		{ "images", n_images, 4, UINT32_MAX },
		{ "steps", recipe->steps, 1, 100000 },
		{ "batch", recipe->batch, 2, at_most(n_images, 1024) },
		{ "prototypes", recipe->n_prototypes, 2, at_most(n_images, WARM_MAX_IMAGES) },
		{ "head_dim", recipe->head_dim, 2, most_directions(shape, n_images) },
		{ "large_px", recipe->large_px, at_least(shape->patch, BLUR_MIN_PX), 1024 },
		{ "small_px", recipe->small_px, at_least(shape->patch, BLUR_MIN_PX), 1024 },
		{ "small crops", recipe->n_small, 0, 8 },
		{ "queue", recipe->queue, 0, 65536 },
		{ "optimiser", (uint32_t)recipe->optimiser, RECIPE_ADAM, RECIPE_SGD },
		{ "sinkhorn_iterations", recipe->sinkhorn_iterations, 1, 100 },
		{ "large_px beyond whole patches", recipe->large_px % shape->patch, 0, 0 },
		{ "small_px beyond whole patches", recipe->small_px % shape->patch, 0, 0 },
	};
	const struct real_field reals[] = {
		{ "score_init", recipe->score_init, 1e-6f, 1e6f },
		{ "score_lr", recipe->score_lr, 0, 1e6f },
		{ "head_lr", recipe->head_lr, 0, 100 },
		{ "min_area", recipe->min_area, .05f, 1 },
		{ "temperature", recipe->temperature, .01f, 10 },
		/* exp(1 / eps) must stay a float. */
		{ "sinkhorn_eps", recipe->sinkhorn_eps, .02f, 10 },
	};
	int r;

	r = check_counts(counts, ARRAY_SIZE(counts), diag);
	if (r < 0)
		return r;
	return check_reals(reals, ARRAY_SIZE(reals), diag);
}

static void put_u32(struct digest_state *state, uint32_t value)
{
	uint32_t le = htole32(value);

	digest_update(state, &le, sizeof(le));
}

static void put_float(struct digest_state *state, float value)
{
	uint32_t bits;

	memcpy(&bits, &value, sizeof(bits));
	put_u32(state, bits);
}

struct digest recipe_digest(const struct recipe *recipe)
{
	static const char domain[] = "kamen recipe 1";
	struct digest_state state;

	digest_init(&state);
	digest_update(&state, domain, sizeof(domain));
	put_u32(&state, (uint32_t)recipe->seed);
	put_u32(&state, (uint32_t)(recipe->seed >> 32));
	put_u32(&state, recipe->steps);
	put_u32(&state, recipe->batch);
	put_u32(&state, recipe->n_prototypes);
	put_u32(&state, recipe->head_dim);
	put_u32(&state, recipe->large_px);
	put_u32(&state, recipe->small_px);
	put_u32(&state, recipe->n_small);
	put_u32(&state, recipe->queue);
	put_u32(&state, (uint32_t)recipe->optimiser);
	put_float(&state, recipe->score_init);
	put_float(&state, recipe->score_lr);
	put_float(&state, recipe->head_lr);
	put_float(&state, recipe->min_area);
	put_float(&state, recipe->temperature);
	put_float(&state, recipe->sinkhorn_eps);
	put_u32(&state, recipe->sinkhorn_iterations);
	put_u32(&state, recipe->alpha_term);
	return digest_final(&state);
}
