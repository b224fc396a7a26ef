/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "learn/hardness_file.h"

#define NORM_EPS 1e-6f

/** A layer's values: weight (n_out, n_in) and bias, or a norm's. */
struct layer {
	const float *weight, *bias;
};

enum { NORM1, QKV, PROJ, NORM2, FC1, FC2, N_LAYERS };

struct hardness {
	struct hardness_info info;
	float *values;
	struct layer entry, norm, exit;
	struct layer (*blocks)[N_LAYERS]; /* (depth) */
	uint32_t grid;                    /* of what is below; 0: none yet */
	float *positions;                 /* (T, inner) */
	float *x, *y;                     /* (T, inner) */
	float *wide;                      /* (T, max(3 inner, mlp)) */
	float *logits;                    /* (T) */
};

static uint32_t n_tokens(const struct hardness *hardness)
{
	return 1 + hardness->grid * hardness->grid;
}

static struct layer take_layer(struct hardness *hardness, const float **at, unsigned i)
{
	struct layer layer = { .weight = *at };

	layer.bias = layer.weight + hardness_tensor(&hardness->info, i).n;
	*at = layer.bias + hardness_tensor(&hardness->info, i + 1).n;
	return layer;
}

static int take_layers(struct hardness *hardness)
{
	const float *at = hardness->values;
	unsigned i = 0;

	hardness->blocks = calloc(hardness->info.depth, sizeof(*hardness->blocks));
	if (!hardness->blocks)
		return -ENOMEM;
	hardness->entry = take_layer(hardness, &at, i);
	i += 2;
	for (uint32_t b = 0; b < hardness->info.depth; b++)
		for (unsigned l = 0; l < N_LAYERS; l++, i += 2)
			hardness->blocks[b][l] = take_layer(hardness, &at, i);
	hardness->norm = take_layer(hardness, &at, i);
	hardness->exit = take_layer(hardness, &at, i + 2);
	return 0;
}

int hardness_load(struct hardness **ret_hardness, struct vit *vit, const void *data, size_t n_bytes,
	struct diag *diag)
{
	_cleanup_(hardness_freep) struct hardness *hardness = calloc(1, sizeof(*hardness));
	int r;

	if (!hardness)
		return -ENOMEM;
	r = hardness_decode(&hardness->info, &hardness->values, data, n_bytes, diag);
	if (r < 0)
		return r;
	if (!digest_equal(&hardness->info.base, vit_digest(vit)) ||
		hardness->info.width != vit_shape(vit)->width)
		return diag_set(diag, ESTALE, "hardness: of another model");
	r = take_layers(hardness);
	if (r < 0)
		return r;
	*ret_hardness = TAKE_PTR(hardness);
	return 0;
}

static void forget_grid(struct hardness *hardness)
{
	free(hardness->positions);
	hardness->positions = NULL;
	hardness->grid = 0;
}

void hardness_free(struct hardness *hardness)
{
	if (!hardness)
		return;
	forget_grid(hardness);
	free(hardness->blocks);
	free(hardness->values);
	free(hardness);
}

const struct hardness_info *hardness_info(const struct hardness *hardness)
{
	return &hardness->info;
}

/* n / 2 sines, then as many cosines, of one coordinate; wavelengths up to 10000. */
static void put_waves(float *dst, uint32_t n, double coordinate)
{
	for (uint32_t i = 0; i < n / 2; i++) {
		double angle = coordinate / pow(10000, (double)i / (n / 2));

		dst[i] = (float)sin(angle);
		dst[n / 2 + i] = (float)cos(angle);
	}
}

/* MAE's fixed positions, (1 + grid^2, inner), the column first. On another grid than the one it was
 * learnt on a patch lies where it lies in the image. */
static void fill_positions(struct hardness *hardness)
{
	const uint32_t inner = hardness->info.inner, grid = hardness->grid;
	const double scale = (double)hardness->info.grid / grid;
	float *p = hardness->positions;

	memset(p, 0, inner * sizeof(*p));
	for (uint32_t y = 0; y < grid; y++)
		for (uint32_t x = 0; x < grid; x++) {
			p += inner;
			put_waves(p, inner / 2, (x + .5) * scale - .5);
			put_waves(p + inner / 2, inner / 2, (y + .5) * scale - .5);
		}
}

static int set_grid(struct hardness *hardness, uint32_t grid)
{
	const struct hardness_info *info = &hardness->info;
	const size_t n = 1 + (size_t)grid * grid;
	const size_t wide = info->n_mlp > 3 * info->inner ? info->n_mlp : 3 * info->inner;

	if (grid == hardness->grid)
		return 0;
	if (grid == 0 || grid > HARDNESS_MAX_GRID)
		return -EINVAL;
	forget_grid(hardness);
	hardness->positions =
		malloc(n * (3 * info->inner + wide + 1) * sizeof(*hardness->positions));
	if (!hardness->positions)
		return -ENOMEM;
	hardness->x = hardness->positions + n * info->inner;
	hardness->y = hardness->x + n * info->inner;
	hardness->wide = hardness->y + n * info->inner;
	hardness->logits = hardness->wide + n * wide;
	hardness->grid = grid;
	fill_positions(hardness);
	return 0;
}

static void normalise(const struct hardness *hardness, const struct layer *norm)
{
	const uint32_t n = hardness->info.inner;

	for (uint32_t t = 0; t < n_tokens(hardness); t++) {
		const float *src = hardness->x + (size_t)t * n;
		float *dst = hardness->y + (size_t)t * n;
		float mean = 0, variance = 0, factor;

		for (uint32_t i = 0; i < n; i++)
			mean += src[i];
		mean /= (float)n;
		for (uint32_t i = 0; i < n; i++)
			variance += (src[i] - mean) * (src[i] - mean);
		factor = 1 / sqrtf(variance / (float)n + NORM_EPS);
		for (uint32_t i = 0; i < n; i++)
			dst[i] = (src[i] - mean) * factor * norm->weight[i] + norm->bias[i];
	}
}

static float dot(const float *a, const float *b, uint32_t n)
{
	float sum = 0;

	for (uint32_t i = 0; i < n; i++)
		sum += a[i] * b[i];
	return sum;
}

/* src (T, n_in) -> dst (T, n_out), added to where it says so */
static void run_layer(const struct hardness *hardness, const struct layer *layer, const float *src,
	uint32_t n_in, uint32_t n_out, float *dst, bool adds)
{
	for (uint32_t t = 0; t < n_tokens(hardness); t++, src += n_in, dst += n_out)
		for (uint32_t o = 0; o < n_out; o++) {
			float value =
				layer->bias[o] + dot(layer->weight + (size_t)o * n_in, src, n_in);

			dst[o] = adds ? dst[o] + value : value;
		}
}

/* One query of one head, whose values begin at offset: from wide (T, 3 inner) to dst */
static void attend(const struct hardness *hardness, uint32_t query, uint32_t offset, float *dst)
{
	const uint32_t inner = hardness->info.inner, head = inner / hardness->info.n_heads;
	const float *row = hardness->wide + offset;
	float max = -INFINITY, total = 0;

	for (uint32_t t = 0; t < n_tokens(hardness); t++) {
		hardness->logits[t] = dot(row + (size_t)query * 3 * inner,
					      row + (size_t)t * 3 * inner + inner, head) /
				      sqrtf((float)head);
		max = fmaxf(max, hardness->logits[t]);
	}
	memset(dst, 0, head * sizeof(*dst));
	for (uint32_t t = 0; t < n_tokens(hardness); t++) {
		const float *value = row + (size_t)t * 3 * inner + 2 * inner;
		float share = expf(hardness->logits[t] - max);

		total += share;
		for (uint32_t i = 0; i < head; i++)
			dst[i] += share * value[i];
	}
	for (uint32_t i = 0; i < head; i++)
		dst[i] /= total;
}

static void run_block(const struct hardness *hardness, const struct layer *layers)
{
	const uint32_t inner = hardness->info.inner, mlp = hardness->info.n_mlp;
	const uint32_t head = inner / hardness->info.n_heads, n = n_tokens(hardness);

	normalise(hardness, &layers[NORM1]);
	run_layer(hardness, &layers[QKV], hardness->y, inner, 3 * inner, hardness->wide, false);
	for (uint32_t t = 0; t < n; t++)
		for (uint32_t offset = 0; offset < inner; offset += head)
			attend(hardness, t, offset, hardness->y + (size_t)t * inner + offset);
	run_layer(hardness, &layers[PROJ], hardness->y, inner, inner, hardness->x, true);
	normalise(hardness, &layers[NORM2]);
	run_layer(hardness, &layers[FC1], hardness->y, inner, mlp, hardness->wide, false);
	for (size_t i = 0; i < (size_t)n * mlp; i++)
		hardness->wide[i] *= .5f * erfcf(-hardness->wide[i] * sqrtf(.5f));
	run_layer(hardness, &layers[FC2], hardness->wide, mlp, inner, hardness->x, true);
}

static void map_image(const struct hardness *hardness, const float *tokens, float *map)
{
	const struct hardness_info *info = &hardness->info;
	const uint32_t n = n_tokens(hardness);

	run_layer(hardness, &hardness->entry, tokens, info->width, info->inner, hardness->x, false);
	for (size_t i = 0; i < (size_t)n * info->inner; i++)
		hardness->x[i] += hardness->positions[i];
	for (uint32_t b = 0; b < info->depth; b++)
		run_block(hardness, hardness->blocks[b]);
	normalise(hardness, &hardness->norm);
	for (uint32_t t = 1; t < n; t++)
		map[t - 1] = *hardness->exit.bias + dot(hardness->exit.weight,
							    hardness->y + (size_t)t * info->inner,
							    info->inner);
}

int hardness_map(
	struct hardness *hardness, const float *tokens, uint32_t n, uint32_t grid, float *map)
{
	int r = set_grid(hardness, grid);

	if (r < 0)
		return r;
	for (uint32_t i = 0; i < n; i++) {
		map_image(hardness, tokens, map);
		tokens += (size_t)n_tokens(hardness) * hardness->info.width;
		map += (size_t)grid * grid;
	}
	return 0;
}
