/* SPDX-License-Identifier: Apache-2.0 */
#include "base/rng.h"
#include "model/row_bf16.h"
#include "model/vit_internal.h"

/* Where in its stream an image finds what is drawn for a layer: elements in fours, and behind all that
 * can be of them one number a layer for the path. */
#define FIRST_PATH 0xf0000000u

/* Of one image in one layer. */
struct sample {
	struct rng rng;     /* of the elements */
	float scale;        /* of what is kept: 0 where the whole path is dropped */
	uint32_t threshold; /* an element whose number is below is dropped */
};

static struct sample sample_of(
	const struct vit_drop *drop, unsigned layer, uint32_t i, size_t n_all)
{
	const uint32_t row = drop->first + i;
	const uint32_t image = drop->images[row % drop->n_images];
	const uint32_t stream = drop->stream + row / drop->n_images;
	const uint32_t at = layer * (uint32_t)((n_all + 3) / 4);
	struct rng path = rng_stream_at(drop->seed, drop->step, image, stream, FIRST_PATH + layer);
	struct sample sample = {
		.rng = rng_stream_at(drop->seed, drop->step, image, stream, at),
		.scale = 1 / ((1 - drop->rate) * (1 - drop->path)),
		.threshold = (uint32_t)((double)drop->rate * 0x1p32),
	};

	if (drop->path > 0 && rng_uniform(&path) < drop->path)
		sample.scale = 0;
	return sample;
}

/* Paths alone, or one that is dropped, need no number an element. */
static float kept(struct sample *sample)
{
	if (sample->threshold == 0 || sample->scale == 0)
		return sample->scale;
	return rng_u32(&sample->rng) < sample->threshold ? 0 : sample->scale;
}

void vit_drop_add(const struct vit_drop *drop, const struct vit_shape *shape,
	struct vit_extent extent, unsigned layer, const float *residual, uint32_t n_residual,
	float *branch)
{
	const size_t n = (size_t)extent.n_queries * shape->width;
	const size_t stride = (size_t)n_residual * shape->width;

#pragma omp parallel for schedule(static)
	for (uint32_t i = 0; i < extent.n; i++) {
		struct sample sample =
			sample_of(drop, layer, i, (size_t)extent.n_tokens * shape->width);
		const float *src = residual + i * stride;
		float *dst = branch + i * n;

		for (size_t j = 0; j < n; j++)
			dst[j] = src[j] + kept(&sample) * dst[j];
	}
}

void vit_drop_grad(const struct vit_drop *drop, const struct vit_shape *shape,
	struct vit_extent extent, unsigned layer, const float *g, void *dst)
{
	const size_t n = (size_t)extent.n_queries * shape->width;

#pragma omp parallel for schedule(static)
	for (uint32_t i = 0; i < extent.n; i++) {
		struct sample sample =
			sample_of(drop, layer, i, (size_t)extent.n_tokens * shape->width);

		for (size_t j = i * n; j < (i + 1) * n; j++) {
			const float value = kept(&sample) * g[j];

			if (extent.precision == PRECISION_F32)
				((float *)dst)[j] = value;
			else
				((bf16 *)dst)[j] = bf16_narrow(value);
		}
	}
}
