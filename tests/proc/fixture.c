/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the process tests need from the engine, as a program: an untrained model, rendered images,
 * a canonical image checked, and an image's embedding computed without any daemon.
 */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "engine.h"
#include "ingest/kimg.h"
#include "model/safetensors.h"

#define SIDE 40u
#define MAX_WIDTH 64u
#define FLAW 10.f /* of a weight; the others have a deviation of .14 */

/* A grating; its direction, pitch, level and tint tell eight kinds apart. */
static void render(uint8_t *pixels, uint32_t number)
{
	struct rng kind = rng_stream(99, number % 8, 0, 0), rng = rng_stream(5, number, 0, 0);
	float angle = rng_range(&kind, 0, 3.14f), pitch = rng_range(&kind, .3f, 1.5f);
	float amplitude = rng_range(&kind, 30, 90), mean = rng_range(&kind, 80, 170);
	float tint = rng_range(&kind, -30, 30), phase = rng_range(&rng, 0, 6);

	for (uint32_t y = 0; y < SIDE; y++)
		for (uint32_t x = 0; x < SIDE; x++) {
			float at = (cosf(angle) * (float)x + sinf(angle) * (float)y) * pitch;
			float level = mean + amplitude * sinf(at + phase) + 12 * rng_normal(&rng);

			for (uint32_t c = 0; c < 3; c++)
				pixels[(y * SIDE + x) * 3 + c] = (uint8_t)fminf(
					fmaxf(level + tint * ((float)c - 1), 0), 255);
		}
}

/* images DIR FIRST N */
static int images(char **argv)
{
	unsigned long first = strtoul(argv[1], NULL, 10), n = strtoul(argv[2], NULL, 10);
	uint8_t pixels[SIDE * SIDE * 3];
	const struct image_view view = { pixels, SIDE, SIDE, 3, (size_t)SIDE * 3 };

	for (unsigned long i = first; i < first + n; i++) {
		_cleanup_(freep) void *png = NULL;
		char path[512];
		size_t n_bytes;

		render(pixels, (uint32_t)i);
		(void)snprintf(path, sizeof(path), "%s/%05lu.png", argv[0], i);
		if (image_encode_png(&view, &png, &n_bytes) < 0 ||
			blob_write(AT_FDCWD, path, png, n_bytes) < 0)
			return 1;
	}
	return 0;
}

static float *values_of(const struct safetensors *st, const char *name)
{
	/* The bytes are ours; an encoded file keeps every tensor aligned to its type. */
	return (float *)(uintptr_t)safetensors_find(st, name)->data;
}

/*
 * A flaw that a mask can mend, so that one mask is sure to pass the gate: a value channel of the
 * last block reads the patches in a direction that has nothing of their brightness, so that what
 * it finds is the phase of the grating, which every view has its own of; it is written into the
 * class token louder than all else.
 */
static int plant_flaw(void *data, size_t n_bytes, const struct vit_shape *shape)
{
	_cleanup_(safetensors_freep) struct safetensors *st = NULL;
	const uint32_t width = shape->width, n_patch = 3 * shape->patch * shape->patch;
	struct rng rng = rng_stream(3, 0, 0, 0);
	float brightness[MAX_WIDTH] = { 0 }, along = 0, length = 0;
	const float *patch, *norm;
	float *value, *proj;

	if (safetensors_open(&st, data, n_bytes, NULL) < 0 || width > MAX_WIDTH)
		return -EBADMSG;
	patch = values_of(st, "patch_embed.proj.weight");
	norm = values_of(st, "blocks.1.norm1.weight");
	value = values_of(st, "blocks.1.attn.qkv.weight") + (size_t)2 * width * width;
	proj = values_of(st, "blocks.1.attn.proj.weight");
	for (uint32_t i = 0; i < width; i++) {
		for (uint32_t j = 0; j < n_patch; j++)
			brightness[i] += patch[(size_t)i * n_patch + j];
		value[i] = rng_normal(&rng);
		along += value[i] * brightness[i];
		length += brightness[i] * brightness[i];
		proj[(size_t)i * width] = rng_uniform(&rng) < .5f ? -FLAW : FLAW;
	}
	for (uint32_t i = 0; i < width; i++)
		value[i] = (value[i] - along / length * brightness[i]) / norm[i];
	return 0;
}

/* model FILE SEED flawed|whole */
static int model(char **argv)
{
	const struct vit_shape shape = { .width = 48,
		.depth = 2,
		.n_heads = 3,
		.mlp = 96,
		.patch = 8,
		.grid = 4,
		.norm_eps = 1e-6f };
	_cleanup_(freep) void *data = NULL;
	size_t n_bytes;

	if (random_vit_encode(&shape, strtoull(argv[1], NULL, 10), &data, &n_bytes) < 0)
		return 1;
	if (strcmp(argv[2], "flawed") == 0 && plant_flaw(data, n_bytes, &shape) < 0)
		return 1;
	return blob_write(AT_FDCWD, argv[0], data, n_bytes) < 0;
}

/* kimg FILE...: every one whole? */
static int kimg(char **argv)
{
	for (; *argv; argv++) {
		_cleanup_(image_freep) struct image *image = NULL;
		_cleanup_(freep) void *data = NULL;
		struct diag diag = { "" };
		size_t n_bytes;

		if (blob_read(AT_FDCWD, *argv, 1u << 30, &data, &n_bytes) < 0 ||
			kimg_decode(&image, data, n_bytes, &diag) < 0) {
			fprintf(stderr, "%s: %s\n", *argv, diag.text);
			return 1;
		}
	}
	return 0;
}

static int read_mask(struct mask **ret_mask, const struct vit *vit, const char *path)
{
	_cleanup_(freep) void *data = NULL;
	struct kmask_header header;
	struct diag diag = { "" };
	size_t n_bytes;
	int r;

	r = blob_read(AT_FDCWD, path, 64u << 20, &data, &n_bytes);
	if (r < 0)
		return r;
	r = kmask_decode(ret_mask, &header, vit_layout(vit), vit_digest(vit), data, n_bytes, &diag);
	if (r < 0)
		fprintf(stderr, "%s: %s\n", path, diag.text);
	return r;
}

static int embed(struct vit *vit, const struct mask *mask, const char *path, float *embedding)
{
	_cleanup_(resize_scratch_freep) struct resize_scratch *scratch = NULL;
	_cleanup_(vit_plan_freep) struct vit_plan *plan = NULL;
	_cleanup_(image_freep) struct image *image = NULL;
	_cleanup_(slot_freep) struct slot *slot = NULL;
	_cleanup_(freep) void *data = NULL;
	struct prep prep = vit_native_prep(vit);
	struct diag diag = { "" };
	struct image_view view;
	size_t n_bytes;

	if (blob_read(AT_FDCWD, path, 64u << 20, &data, &n_bytes) < 0 ||
		image_decode(&image, data, n_bytes, &diag) < 0 ||
		vit_slot_new(&slot, vit, SLOT_INFER) < 0 || slot_apply(slot, mask) < 0 ||
		vit_plan_new(&plan, vit, 1, prep.input_px, PRECISION_F32) < 0 ||
		resize_scratch_new(&scratch) < 0)
		return -EIO;
	view = image_view(image);
	if (prep_apply(&prep, &view, vit_plan_input(plan), scratch) < 0)
		return -EIO;
	return vit_forward(plan, slot, embedding);
}

/* forward MODEL MASK|- IMAGE: the embedding, a number a line */
static int forward(char **argv)
{
	_cleanup_(base_freep) struct base *base = NULL;
	_cleanup_(vit_freep) struct vit *vit = NULL;
	_cleanup_(mask_freep) struct mask *mask = NULL;
	struct diag diag = { "" };
	float embedding[1280];

	if (base_load(&base, argv[0], &diag) < 0 || vit_new(&vit, base, NULL, &diag) < 0) {
		fprintf(stderr, "%s: %s\n", argv[0], diag.text);
		return 1;
	}
	if (strcmp(argv[1], "-") != 0 && read_mask(&mask, vit, argv[1]) < 0)
		return 1;
	if (embed(vit, mask, argv[2], embedding) < 0)
		return 1;
	for (uint32_t i = 0; i < vit_shape(vit)->width; i++)
		printf("%.9g\n", (double)embedding[i]);
	return 0;
}

/* mend MODEL FILE: a mask without the weights through which the flaw is heard */
static int mend(char **argv)
{
	_cleanup_(base_freep) struct base *base = NULL;
	_cleanup_(vit_freep) struct vit *vit = NULL;
	_cleanup_(mask_freep) struct mask *mask = NULL;
	_cleanup_(freep) void *data = NULL;
	struct kmask_header header = { 0 };
	struct prep prep;
	size_t n_bytes;

	if (base_load(&base, argv[0], NULL) < 0 || vit_new(&vit, base, NULL, NULL) < 0 ||
		mask_new(&mask, vit_layout(vit)) < 0)
		return 1;
	for (unsigned t = 0; t < mask->layout->n_tensors; t++)
		if (strcmp(mask->layout->tensors[t].name, "blocks.1.attn.proj.weight") == 0)
			for (uint32_t i = 0; i < vit_shape(vit)->width; i++)
				mask_put(mask, t, (size_t)i * vit_shape(vit)->width, false);
	prep = vit_native_prep(vit);
	header.base = *vit_digest(vit);
	header.prep = prep_digest(&prep);
	if (kmask_encode(mask, &header, &data, &n_bytes) < 0)
		return 1;
	return blob_write(AT_FDCWD, argv[1], data, n_bytes) < 0;
}

int main(int argc, char **argv)
{
	if (argc == 5 && strcmp(argv[1], "images") == 0)
		return images(argv + 2);
	if (argc == 5 && strcmp(argv[1], "model") == 0)
		return model(argv + 2);
	if (argc >= 3 && strcmp(argv[1], "kimg") == 0)
		return kimg(argv + 2);
	if (argc == 5 && strcmp(argv[1], "forward") == 0)
		return forward(argv + 2);
	if (argc == 4 && strcmp(argv[1], "mend") == 0)
		return mend(argv + 2);
	fprintf(stderr, "usage: proc_fixture images DIR FIRST N | model FILE SEED flawed|whole | "
			"kimg FILE... | "
			"forward MODEL MASK|- IMAGE | mend MODEL FILE\n");
	return 2;
}
