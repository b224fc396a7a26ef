/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "base/rng.h"
#include "model/vit_internal.h"

/* The forward pass said once more, in plain loops with sums in double: what oneDNN is held to. */

static void norm_rows(const struct vit_norm *norm, float eps, const float *src, size_t n_rows,
	size_t n, float *dst)
{
	for (size_t r = 0; r < n_rows; r++, src += n, dst += n) {
		double mean = 0, variance = 0;

		for (size_t i = 0; i < n; i++)
			mean += src[i];
		mean /= (double)n;
		for (size_t i = 0; i < n; i++)
			variance += (src[i] - mean) * (src[i] - mean);
		variance /= (double)n;
		for (size_t i = 0; i < n; i++)
			dst[i] = (float)((src[i] - mean) / sqrt(variance + eps) * norm->weight[i] +
					 norm->bias[i]);
	}
}

/* A linear layer with its own mask, as algorithms.md 1.2 says it: W' = W M / alpha. */
struct masked {
	const float *values;
	const struct mask *mask; /* NULL: all kept */
	unsigned tensor;
	double scale;
};

static struct masked masked_tensor(const struct vit *vit, const struct mask *mask, unsigned tensor)
{
	return (struct masked){
		.values = vit->weights[tensor],
		.mask = mask,
		.tensor = tensor,
		.scale = mask ? 1 / sqrt(fmax((double)mask->n_on[tensor], 1) /
					    (double)vit->layout->tensors[tensor].n)
			      : 1,
	};
}

static double masked_at(const struct masked *w, size_t i)
{
	return !w->mask || mask_get(w->mask, w->tensor, i) ? w->values[i] * w->scale : 0;
}

static void linear(const struct vit *vit, const struct mask *mask, unsigned layer, const float *src,
	size_t n_rows, size_t n_in, size_t n_out, float *dst)
{
	const struct masked w = masked_tensor(vit, mask, 2 * layer);
	const struct masked b = masked_tensor(vit, mask, 2 * layer + 1);

	for (size_t o = 0; o < n_out; o++) {
		double bias = masked_at(&b, o);

		for (size_t r = 0; r < n_rows; r++) {
			double sum = bias;

			for (size_t i = 0; i < n_in; i++)
				sum += masked_at(&w, o * n_in + i) * src[r * n_in + i];
			dst[r * n_out + o] = (float)sum;
		}
	}
}

/* One query of one head: qkv (T, 3 D), probs (T), dst (D / H) */
static void attend(const float *qkv, size_t n_tokens, size_t width, size_t head, size_t query,
	size_t offset, double *probs, float *dst)
{
	const float *q = qkv + query * 3 * width + offset;
	double max = -INFINITY, total = 0;

	for (size_t t = 0; t < n_tokens; t++) {
		const float *k = qkv + t * 3 * width + width + offset;

		probs[t] = 0;
		for (size_t i = 0; i < head; i++)
			probs[t] += (double)q[i] * k[i];
		probs[t] /= sqrt((double)head);
		max = fmax(max, probs[t]);
	}
	for (size_t t = 0; t < n_tokens; t++) {
		probs[t] = exp(probs[t] - max);
		total += probs[t];
	}
	for (size_t i = 0; i < head; i++) {
		double sum = 0;

		for (size_t t = 0; t < n_tokens; t++)
			sum += probs[t] * qkv[t * 3 * width + 2 * width + offset + i];
		dst[i] = (float)(sum / total);
	}
}

struct scratch {
	size_t n_tokens;
	float *x, *y, *wide;
	double *probs;
};

static void block(
	const struct vit *vit, const struct mask *mask, uint32_t b, const struct scratch *s)
{
	const size_t width = vit->shape.width, mlp = vit->shape.mlp, n = s->n_tokens;
	const size_t head = width / vit->shape.n_heads;
	const unsigned layer = vit_layer_index(b, VIT_QKV);
	const float eps = vit->shape.norm_eps;
	float *out = s->wide + n * (mlp > 3 * width ? mlp : 3 * width);

	norm_rows(&vit->norm1[b], eps, s->x, n, width, s->y);
	linear(vit, mask, layer + VIT_QKV, s->y, n, width, 3 * width, s->wide);
	for (size_t query = 0; query < n; query++)
		for (size_t h = 0; h < vit->shape.n_heads; h++)
			attend(s->wide, n, width, head, query, h * head, s->probs,
				s->y + query * width + h * head);
	linear(vit, mask, layer + VIT_PROJ, s->y, n, width, width, out);
	for (size_t i = 0; i < n * width; i++)
		s->x[i] += out[i];

	norm_rows(&vit->norm2[b], eps, s->x, n, width, s->y);
	linear(vit, mask, layer + VIT_FC1, s->y, n, width, mlp, s->wide);
	for (size_t i = 0; i < n * mlp; i++)
		s->wide[i] = (float)(s->wide[i] * 0.5 * erfc(-s->wide[i] * sqrt(0.5)));
	linear(vit, mask, layer + VIT_FC2, s->wide, n, mlp, width, out);
	for (size_t i = 0; i < n * width; i++)
		s->x[i] += out[i];
}

static void embed(const struct vit *vit, const float *pixels, uint32_t px, const float *positions,
	float *columns, float *x)
{
	const size_t width = vit->shape.width, n_in = vit_patch_values(&vit->shape);
	const size_t n_patches = (size_t)(px / vit->shape.patch) * (px / vit->shape.patch);

	vit_columns(&vit->shape, 1, px, pixels, columns);
	memcpy(x, positions, width * sizeof(float));
	for (size_t p = 0; p < n_patches; p++)
		for (size_t o = 0; o < width; o++) {
			double sum = vit->patch_bias[o];

			for (size_t i = 0; i < n_in; i++)
				sum += (double)vit->patch_weight[o * n_in + i] *
				       columns[p * n_in + i];
			x[(1 + p) * width + o] = (float)(sum + positions[(1 + p) * width + o]);
		}
}

int vit_reference(const struct vit *vit, const struct mask *mask, const float *pixels, uint32_t px,
	float *embedding)
{
	const struct vit_shape *shape = &vit->shape;
	const size_t width = shape->width, mlp = shape->mlp;
	const size_t wide = mlp > 3 * width ? mlp : 3 * width;
	_cleanup_(freep) float *positions = NULL, *columns = NULL, *floats = NULL;
	_cleanup_(freep) double *probs = NULL;
	struct vit_stem stem = { 0 };
	struct scratch s;
	int r;

	r = vit_stem_size(&stem, vit, 1, px);
	if (r < 0)
		return r;
	positions = calloc(stem.n_tokens * width, sizeof(float));
	columns = calloc(stem.n_tokens * vit_patch_values(shape), sizeof(float));
	floats = calloc(stem.n_tokens * (3 * width + wide), sizeof(float));
	probs = calloc(stem.n_tokens, sizeof(double));
	if (!positions || !columns || !floats || !probs)
		return -ENOMEM;
	s = (struct scratch){
		.n_tokens = stem.n_tokens,
		.x = floats,
		.y = floats + stem.n_tokens * width,
		.wide = floats + stem.n_tokens * 2 * width,
		.probs = probs,
	};

	vit_positions(vit, stem.grid, positions);
	embed(vit, pixels, px, positions, columns, s.x);
	for (uint32_t b = 0; b < shape->depth; b++)
		block(vit, mask, b, &s);
	norm_rows(&vit->norm, shape->norm_eps, s.x, 1, width, embedding);
	return 0;
}

int vit_logits(const struct vit *vit, const float *embeddings, uint32_t n, float *logits)
{
	const size_t width = vit->shape.width, n_classes = vit->shape.n_classes;

	if (n_classes == 0)
		return -ENODATA;
	for (uint32_t i = 0; i < n; i++)
		for (size_t c = 0; c < n_classes; c++) {
			double sum = vit->head_bias[c];

			for (size_t d = 0; d < width; d++)
				sum += (double)vit->head_weight[c * width + d] *
				       embeddings[i * width + d];
			logits[i * n_classes + c] = (float)sum;
		}
	return 0;
}
