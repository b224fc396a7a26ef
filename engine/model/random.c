/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/arena.h"
#include "base/rng.h"
#include "model/random.h"

enum { PER_BLOCK = 12, AROUND = 8, MAX_NAME = 48 };

/* Collects tensors; each is filled from a stream of its own, so that one says nothing of another. */
struct writer {
	struct tensor_out *tensors;
	size_t n;
	uint64_t seed;
	struct arena *arena;
	int error;
};

static void add(struct writer *w, const char *name, unsigned n_dims, const uint64_t *dims,
	float mean, float std)
{
	struct rng rng = rng_stream(w->seed, (uint32_t)w->n, 0, 0);
	struct tensor_out *tensor = &w->tensors[w->n++];
	char *copy = arena_take(w->arena, MAX_NAME);
	size_t n = 1;
	float *data;

	for (unsigned i = 0; i < n_dims; i++)
		n *= dims[i];
	data = arena_take(w->arena, n * sizeof(float));
	if (!copy || !data) {
		w->error = -ENOMEM;
		return;
	}
	(void)snprintf(copy, MAX_NAME, "%s", name);
	for (size_t i = 0; i < n; i++)
		data[i] = mean + std * rng_normal(&rng);
	*tensor = (struct tensor_out){ .name = copy, .n_dims = n_dims, .data = data };
	memcpy(tensor->dims, dims, n_dims * sizeof(*dims));
}

static void add_linear(struct writer *w, const char *name, uint64_t n_out, uint64_t n_in)
{
	char full[MAX_NAME];

	(void)snprintf(full, sizeof(full), "%s.weight", name);
	add(w, full, 2, (uint64_t[]){ n_out, n_in }, 0, 1 / sqrtf((float)n_in));
	(void)snprintf(full, sizeof(full), "%s.bias", name);
	add(w, full, 1, &n_out, 0, .02F);
}

static void add_norm(struct writer *w, const char *name, uint64_t n)
{
	char full[MAX_NAME];

	(void)snprintf(full, sizeof(full), "%s.weight", name);
	add(w, full, 1, &n, 1, .1F);
	(void)snprintf(full, sizeof(full), "%s.bias", name);
	add(w, full, 1, &n, 0, .02F);
}

static void add_block(struct writer *w, const struct vit_shape *shape, uint32_t block)
{
	char name[MAX_NAME];

	(void)snprintf(name, sizeof(name), "blocks.%" PRIu32 ".norm1", block);
	add_norm(w, name, shape->width);
	(void)snprintf(name, sizeof(name), "blocks.%" PRIu32 ".attn.qkv", block);
	add_linear(w, name, (uint64_t)3 * shape->width, shape->width);
	(void)snprintf(name, sizeof(name), "blocks.%" PRIu32 ".attn.proj", block);
	add_linear(w, name, shape->width, shape->width);
	(void)snprintf(name, sizeof(name), "blocks.%" PRIu32 ".norm2", block);
	add_norm(w, name, shape->width);
	(void)snprintf(name, sizeof(name), "blocks.%" PRIu32 ".mlp.fc1", block);
	add_linear(w, name, shape->mlp, shape->width);
	(void)snprintf(name, sizeof(name), "blocks.%" PRIu32 ".mlp.fc2", block);
	add_linear(w, name, shape->width, shape->mlp);
}

static void add_all(struct writer *w, const struct vit_shape *shape)
{
	const uint64_t width = shape->width, patch = shape->patch;
	const uint64_t n_positions = 1 + (uint64_t)shape->grid * shape->grid;
	const float patch_std = 1 / sqrtf((float)(3 * patch * patch));

	add(w, "cls_token", 3, (uint64_t[]){ 1, 1, width }, 0, .02F);
	add(w, "pos_embed", 3, (uint64_t[]){ 1, n_positions, width }, 0, .02F);
	add(w, "patch_embed.proj.weight", 4, (uint64_t[]){ width, 3, patch, patch }, 0, patch_std);
	add(w, "patch_embed.proj.bias", 1, &width, 0, .02F);
	for (uint32_t b = 0; b < shape->depth; b++)
		add_block(w, shape, b);
	add_norm(w, "norm", width);
	if (shape->n_classes)
		add_linear(w, "head", shape->n_classes, width);
}

/* Generous: values, names and the rounding of each. */
static size_t bytes_of(const struct vit_shape *shape, size_t n_tensors)
{
	const size_t width = shape->width, mlp = shape->mlp;
	const size_t a_block = 4 * width * width + 2 * width * mlp + 9 * width + mlp;
	const size_t stem = width * (8 + (size_t)3 * shape->patch * shape->patch +
					    (size_t)shape->grid * shape->grid);
	const size_t head = (width + 1) * shape->n_classes;

	return (a_block * shape->depth + stem + head) * sizeof(float) +
	       n_tensors * 2 * (ARENA_ALIGN + MAX_NAME);
}

int random_vit_encode(
	const struct vit_shape *shape, uint64_t seed, void **ret_data, size_t *ret_n_bytes)
{
	const size_t n_max = (size_t)PER_BLOCK * shape->depth + AROUND;
	_cleanup_(freep) struct tensor_out *tensors = calloc(n_max, sizeof(*tensors));
	_cleanup_(arena_freep) struct arena *arena = NULL;
	struct writer writer = { .tensors = tensors, .seed = seed };
	char heads[16];
	const char *metadata[] = { "num_heads", heads, NULL };
	int r;

	if (!tensors)
		return -ENOMEM;
	if (shape->n_heads == 0 || shape->width % shape->n_heads || shape->depth == 0)
		return -EINVAL;
	r = arena_new(&arena, bytes_of(shape, n_max));
	if (r < 0)
		return r;
	writer.arena = arena;
	add_all(&writer, shape);
	if (writer.error < 0)
		return writer.error;
	(void)snprintf(heads, sizeof(heads), "%" PRIu32, shape->n_heads);
	return safetensors_encode(tensors, writer.n, metadata, ret_data, ret_n_bytes);
}

int random_vit_shape(struct vit_shape *ret_shape, const char *name)
{
	static const struct {
		const char *name;
		uint32_t width, depth, n_heads, grid, n_classes;
	} shapes[] = {
		{ "vit_t", 192, 12, 3, 14, 1000 },
		{ "vit_s", 384, 12, 6, 14, 1000 },
		{ "vit_b", 768, 12, 12, 14, 1000 },
		{ "vit_demo", 96, 4, 3, 6, 0 },
	};

	for (size_t i = 0; i < ARRAY_SIZE(shapes); i++) {
		if (strcmp(shapes[i].name, name) != 0)
			continue;
		*ret_shape = (struct vit_shape){
			.width = shapes[i].width,
			.depth = shapes[i].depth,
			.n_heads = shapes[i].n_heads,
			.mlp = 4 * shapes[i].width,
			.patch = 16,
			.grid = shapes[i].grid,
			.n_classes = shapes[i].n_classes,
			.norm_eps = 1e-6F,
		};
		return 0;
	}
	return -EINVAL;
}
