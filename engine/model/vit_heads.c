/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "model/vit_internal.h"

/* Of values: enough to be worth another thread. */
#define MANY ((size_t)1 << 15)

/* One part of a head's tokens, at places of a stride apart, into a dense matrix. */
static void gather(bf16 *dst, const bf16 *src, uint32_t rows, uint32_t head, size_t stride)
{
	for (uint32_t t = 0; t < rows; t++)
		memcpy(dst + (size_t)t * head, src + t * stride, head * sizeof(*dst));
}

static void scatter(bf16 *dst, const bf16 *src, uint32_t rows, uint32_t head, size_t stride)
{
	for (uint32_t t = 0; t < rows; t++)
		memcpy(dst + t * stride, src + (size_t)t * head, head * sizeof(*dst));
}

void vit_heads_split(const struct vit_shape *shape, struct vit_extent extent, const bf16 *qkv,
	const struct vit_heads *heads)
{
	const uint32_t h = shape->n_heads, head = shape->width / h, t = extent.n_tokens;
	const size_t row = 3 * (size_t)shape->width, n = (size_t)extent.n_keys * head;
	const size_t n_q = (size_t)extent.n_queries * head;

#pragma omp parallel for schedule(static) if (extent.n * t * row > MANY)
	for (size_t i = 0; i < (size_t)extent.n * h; i++) {
		const bf16 *src = qkv + i / h * t * row + i % h * head;

		gather(heads->q + i * n_q, src, extent.n_queries, head, row);
		gather(heads->k + i * n, src + shape->width, t, head, row);
		gather(heads->v + i * n, src + 2 * (size_t)shape->width, t, head, row);
	}
}

void vit_heads_join(const struct vit_shape *shape, struct vit_extent extent,
	const struct vit_heads *heads, bf16 *qkv)
{
	const uint32_t h = shape->n_heads, head = shape->width / h, t = extent.n_tokens;
	const size_t row = 3 * (size_t)shape->width, n = (size_t)extent.n_keys * head;
	const size_t n_q = (size_t)extent.n_queries * head;

#pragma omp parallel for schedule(static) if (extent.n * t * row > MANY)
	for (size_t i = 0; i < (size_t)extent.n * h; i++) {
		bf16 *dst = qkv + i / h * t * row + i % h * head;

		scatter(dst, heads->q + i * n_q, extent.n_queries, head, row);
		for (uint32_t q = extent.n_queries; q < t; q++)
			memset(dst + q * row, 0, head * sizeof(*dst));
		scatter(dst + shape->width, heads->k + i * n, t, head, row);
		scatter(dst + 2 * (size_t)shape->width, heads->v + i * n, t, head, row);
	}
}

void vit_heads_take(const struct vit_shape *shape, struct vit_extent extent, const bf16 *att,
	const struct vit_heads *heads)
{
	const uint32_t h = shape->n_heads, head = shape->width / h, rows = extent.n_queries;
	const size_t row = shape->width;

#pragma omp parallel for schedule(static) if (extent.n * rows * row > MANY)
	for (size_t i = 0; i < (size_t)extent.n * h; i++)
		gather(heads->out + i * rows * head, att + i / h * rows * row + i % h * head, rows,
			head, row);
}

void vit_heads_give(const struct vit_shape *shape, struct vit_extent extent,
	const struct vit_heads *heads, bf16 *att)
{
	const uint32_t h = shape->n_heads, head = shape->width / h, rows = extent.n_queries;
	const size_t row = shape->width;

#pragma omp parallel for schedule(static) if (extent.n * rows * row > MANY)
	for (size_t i = 0; i < (size_t)extent.n * h; i++)
		scatter(att + i / h * rows * row + i % h * head, heads->out + i * rows * head, rows,
			head, row);
}
