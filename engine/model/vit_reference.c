/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "model/vit_internal.h"

/* The forward pass said once more, in plain loops and in double: what oneDNN is held to. */

struct pass {
	const struct vit *vit;
	const struct mask *mask;
	const struct vit_nudge *nudge;
	size_t n_tokens;
	double *x, *y, *out; /* (T, D) */
	double *wide;        /* (T, max(3 D, mlp)) */
	double *row;         /* (max(n_in)) of a weight */
	double *probs;       /* (T) */
	double *looks; /* (T) what the first token looks at in the last block, sum over heads */
};

static void norm_rows(const struct vit_norm *norm, double eps, const double *src, size_t n_rows,
	size_t n, double *dst)
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
			dst[i] = (src[i] - mean) / sqrt(variance + eps) * norm->weight[i] +
				 norm->bias[i];
	}
}

/* n values of a tensor from its offset on, as algorithms.md 1.2 says: W' = W M / alpha. */
static void effective(const struct pass *p, unsigned tensor, size_t offset, size_t n, double *dst)
{
	const float *values = p->vit->weights[tensor] + offset;
	double alpha = 1;

	if (p->mask)
		alpha = sqrt(fmax((double)p->mask->n_on[tensor], 1) /
			     (double)p->vit->layout->tensors[tensor].n);
	for (size_t i = 0; i < n; i++) {
		bool kept = !p->mask || mask_get(p->mask, tensor, offset + i);

		dst[i] = kept ? values[i] / alpha : 0;
	}
	if (p->nudge && p->nudge->tensor == tensor)
		for (size_t i = 0; i < n; i++)
			dst[i] += p->nudge->step * p->nudge->direction[offset + i];
}

static void linear(const struct pass *p, unsigned layer, const double *src, size_t n_in,
	size_t n_out, double *dst)
{
	for (size_t o = 0; o < n_out; o++) {
		double bias;

		effective(p, 2 * layer, o * n_in, n_in, p->row);
		effective(p, 2 * layer + 1, o, 1, &bias);
		for (size_t t = 0; t < p->n_tokens; t++) {
			double sum = bias;

			for (size_t i = 0; i < n_in; i++)
				sum += p->row[i] * src[t * n_in + i];
			dst[t * n_out + o] = sum;
		}
	}
}

/* One query of one head, whose values begin at offset: from wide (T, 3 D) to dst (D / H), and what
 * it looked at to probs */
static void attend(const struct pass *p, size_t query, size_t offset, double *dst)
{
	const size_t width = p->vit->shape.width, head = width / p->vit->shape.n_heads;
	const double *q = p->wide + query * 3 * width + offset;
	double max = -INFINITY, total = 0;

	for (size_t t = 0; t < p->n_tokens; t++) {
		const double *k = p->wide + t * 3 * width + width + offset;
		double sum = 0;

		for (size_t i = 0; i < head; i++)
			sum += q[i] * k[i];
		p->probs[t] = sum / sqrt((double)head);
		max = fmax(max, p->probs[t]);
	}
	for (size_t t = 0; t < p->n_tokens; t++) {
		p->probs[t] = exp(p->probs[t] - max);
		total += p->probs[t];
	}
	for (size_t t = 0; t < p->n_tokens; t++)
		p->probs[t] /= total;
	for (size_t i = 0; i < head; i++) {
		dst[i] = 0;
		for (size_t t = 0; t < p->n_tokens; t++)
			dst[i] += p->probs[t] * p->wide[t * 3 * width + 2 * width + offset + i];
	}
}

static void add_to(double *sums, const double *values, size_t n)
{
	for (size_t i = 0; i < n; i++)
		sums[i] += values[i];
}

static void run_block(const struct pass *p, uint32_t b)
{
	const size_t width = p->vit->shape.width, mlp = p->vit->shape.mlp, n = p->n_tokens;
	const size_t head = width / p->vit->shape.n_heads;
	const unsigned layer = vit_layer_index(b, VIT_QKV);
	const double eps = p->vit->shape.norm_eps;

	norm_rows(&p->vit->norm1[b], eps, p->x, n, width, p->y);
	linear(p, layer + VIT_QKV, p->y, width, 3 * width, p->wide);
	for (size_t query = 0; query < n; query++)
		for (size_t offset = 0; offset < width; offset += head) {
			attend(p, query, offset, p->y + query * width + offset);
			if (query == 0 && b + 1 == p->vit->shape.depth)
				add_to(p->looks, p->probs, n);
		}
	linear(p, layer + VIT_PROJ, p->y, width, width, p->out);
	for (size_t i = 0; i < n * width; i++)
		p->x[i] += p->out[i];

	norm_rows(&p->vit->norm2[b], eps, p->x, n, width, p->y);
	linear(p, layer + VIT_FC1, p->y, width, mlp, p->wide);
	for (size_t i = 0; i < n * mlp; i++)
		p->wide[i] *= 0.5 * erfc(-p->wide[i] * sqrt(0.5));
	linear(p, layer + VIT_FC2, p->wide, mlp, width, p->out);
	for (size_t i = 0; i < n * width; i++)
		p->x[i] += p->out[i];
}

static void embed(
	const struct vit *vit, const float *columns, const float *positions, size_t n, double *x)
{
	const size_t width = vit->shape.width, n_in = vit_patch_values(&vit->shape);

	for (size_t d = 0; d < width; d++)
		x[d] = positions[d];
	for (size_t t = 1; t < n; t++, columns += n_in)
		for (size_t o = 0; o < width; o++) {
			double sum = vit->patch_bias[o];

			for (size_t i = 0; i < n_in; i++)
				sum += (double)vit->patch_weight[o * n_in + i] * columns[i];
			x[t * width + o] = sum + positions[t * width + o];
		}
}

int vit_reference_enter(
	const struct vit *vit, const float *pixels, uint32_t px, double *tokens, uint32_t *ret_n)
{
	const size_t n_in = vit_patch_values(&vit->shape);
	_cleanup_(freep) float *columns = NULL, *positions = NULL;
	struct vit_stem stem = { 0 };
	int r;

	r = vit_stem_size(&stem, vit, 1, px, PRECISION_F32);
	if (r < 0)
		return r;
	columns = calloc(stem.n_tokens * n_in, sizeof(*columns));
	positions = calloc((size_t)stem.n_tokens * vit->shape.width, sizeof(*positions));
	if (!columns || !positions)
		return -ENOMEM;
	vit_columns(&vit->shape, 1, px, pixels, PRECISION_F32, columns);
	vit_positions(vit, stem.grid, positions);
	embed(vit, columns + n_in, positions, stem.n_tokens, tokens);
	*ret_n = stem.n_tokens;
	return 0;
}

/* The class token among p->n_tokens patches, and positions on top of all; room for one token more. */
static int let_class_enter(struct pass *p)
{
	const size_t width = p->vit->shape.width, grid = (size_t)lround(sqrt((double)p->n_tokens));
	_cleanup_(freep) float *positions = calloc((1 + grid * grid) * width, sizeof(*positions));

	if (!positions)
		return -ENOMEM;
	if (grid * grid != p->n_tokens)
		return -EINVAL;
	vit_positions_of(p->vit, p->vit->late_positions, (uint32_t)grid, positions);
	memmove(p->x + width, p->x, p->n_tokens * width * sizeof(*p->x));
	memset(p->x, 0, width * sizeof(*p->x));
	p->n_tokens++;
	for (size_t i = 0; i < p->n_tokens * width; i++)
		p->x[i] += positions[i];
	return 0;
}

static int run_blocks(struct pass *p)
{
	const struct vit_shape *shape = &p->vit->shape;
	int r = 0;

	if (shape->class_block > 0) {
		p->n_tokens--;
		memmove(p->x, p->x + shape->width, p->n_tokens * shape->width * sizeof(*p->x));
	}
	for (uint32_t b = 0; r == 0 && b < shape->depth; b++) {
		if (b > 0 && b == shape->class_block)
			r = let_class_enter(p);
		if (r == 0)
			run_block(p, b);
	}
	return r;
}

/* looks (n): of the pass, unless NULL */
static int run(const struct vit *vit, const struct mask *mask, const struct vit_nudge *nudge,
	double *tokens, size_t n, double *looks)
{
	const struct vit_shape *shape = &vit->shape;
	const size_t width = shape->width;
	const size_t wide = shape->mlp > 3 * width ? shape->mlp : 3 * width;
	struct pass p = { .vit = vit, .mask = mask, .nudge = nudge, .n_tokens = n };
	_cleanup_(freep) double *doubles =
		calloc(n * (2 * width + wide + 2) + wide, sizeof(*doubles));
	int r;

	if (!doubles)
		return -ENOMEM;
	p.x = tokens;
	p.y = doubles;
	p.out = p.y + n * width;
	p.wide = p.out + n * width;
	p.probs = p.wide + n * wide;
	p.looks = p.probs + n;
	p.row = p.looks + n;
	r = run_blocks(&p);
	if (r < 0)
		return r;
	norm_rows(&vit->norm, shape->norm_eps, tokens, n, width, tokens);
	if (looks)
		memcpy(looks, p.looks, n * sizeof(*looks));
	return 0;
}

int vit_reference_run(const struct vit *vit, const struct mask *mask, const struct vit_nudge *nudge,
	double *tokens, size_t n)
{
	return run(vit, mask, nudge, tokens, n, NULL);
}

int vit_reference_nudged(const struct vit *vit, const struct mask *mask,
	const struct vit_nudge *nudge, const float *pixels, uint32_t px, double *embedding)
{
	const size_t grid = px / vit->shape.patch, width = vit->shape.width;
	_cleanup_(freep) double *tokens = calloc((1 + grid * grid) * width, sizeof(*tokens));
	uint32_t n;
	int r;

	if (!tokens)
		return -ENOMEM;
	r = vit_reference_enter(vit, pixels, px, tokens, &n);
	if (r == 0)
		r = vit_reference_run(vit, mask, nudge, tokens, n);
	if (r == 0)
		memcpy(embedding, tokens, width * sizeof(*embedding));
	return r;
}

int vit_reference(const struct vit *vit, const struct mask *mask, const float *pixels, uint32_t px,
	float *embedding)
{
	const uint32_t width = vit->shape.width;
	_cleanup_(freep) double *values = calloc(width, sizeof(*values));
	int r;

	if (!values)
		return -ENOMEM;
	r = vit_reference_nudged(vit, mask, NULL, pixels, px, values);
	if (r < 0)
		return r;
	for (uint32_t d = 0; d < width; d++)
		embedding[d] = (float)values[d];
	return 0;
}

static void put_direction(float *dst, const double *src, size_t n)
{
	double sum = 0;

	for (size_t i = 0; i < n; i++)
		sum += src[i] * src[i];
	for (size_t i = 0; i < n; i++)
		dst[i] = (float)(src[i] / sqrt(sum));
}

int vit_reference_tokens(const struct vit *vit, const struct mask *mask, const float *pixels,
	uint32_t px, float *tokens, float *feature)
{
	const size_t grid = px / vit->shape.patch, width = vit->shape.width;
	const size_t n_tokens = 1 + grid * grid;
	_cleanup_(freep) double *values =
		calloc((n_tokens + 1) * width + n_tokens, sizeof(*values));
	double *pooled = values + n_tokens * width, *looks = pooled + width, total = 0;
	uint32_t n;
	int r;

	if (!values)
		return -ENOMEM;
	r = vit_reference_enter(vit, pixels, px, values, &n);
	if (r == 0)
		r = run(vit, mask, NULL, values, n, looks);
	if (r < 0)
		return r;
	for (size_t i = 0; i < n_tokens * width; i++)
		tokens[i] = (float)values[i];
	for (size_t t = 1; t < n_tokens; t++)
		total += looks[t];
	for (size_t t = 1; t < n_tokens; t++)
		for (size_t d = 0; d < width; d++)
			pooled[d] += looks[t] / total * values[t * width + d];
	put_direction(feature, values, width);
	put_direction(feature + width, pooled, width);
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
