/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the process tests need from the engine, as a program: an untrained model, rendered images,
 * a canonical image checked, and an image's embedding computed without any daemon.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "engine.h"
#include "fixture/flaw.h"
#include "ingest/kimg.h"

#define MAX_WIDTH 1280u

/* images DIR FIRST N */
static int images(char **argv)
{
	unsigned long first = strtoul(argv[1], NULL, 10), n = strtoul(argv[2], NULL, 10);
	uint8_t pixels[FLAW_SIDE * FLAW_SIDE * 3];
	const struct image_view view = { pixels, FLAW_SIDE, FLAW_SIDE, 3, (size_t)FLAW_SIDE * 3 };

	for (unsigned long i = first; i < first + n; i++) {
		_cleanup_(freep) void *png = NULL;
		char path[512];
		size_t n_bytes;

		flaw_render(pixels, (uint32_t)i);
		(void)snprintf(path, sizeof(path), "%s/%05lu.png", argv[0], i);
		if (image_encode_png(&view, &png, &n_bytes) < 0 ||
			blob_write(AT_FDCWD, path, png, n_bytes) < 0)
			return 1;
	}
	return 0;
}

/* model FILE SEED flawed|whole */
static int model(char **argv)
{
	_cleanup_(freep) void *data = NULL;
	size_t n_bytes;

	if (random_vit_encode(&flaw_shape, strtoull(argv[1], NULL, 10), &data, &n_bytes) < 0)
		return 1;
	if (strcmp(argv[2], "flawed") == 0 && flaw_plant(data, n_bytes) < 0)
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

static int read_set(struct mask_set **ret_set, const struct vit *vit, const char *path)
{
	_cleanup_(freep) void *data = NULL;
	struct mask_set_header header;
	struct diag diag = { "" };
	size_t n_bytes;
	int r;

	r = blob_read(AT_FDCWD, path, 64u << 20, &data, &n_bytes);
	if (r < 0)
		return r;
	r = mask_set_decode(ret_set, &header, vit_layout(vit), vit_digest(vit),
		vit_shape(vit)->width, data, n_bytes, &diag);
	if (r < 0)
		fprintf(stderr, "%s: %s\n", path, diag.text);
	return r;
}

static int get_view(void *owner, uint32_t i, struct image_view *ret_view)
{
	(void)i;
	*ret_view = image_view(owner);
	return 0;
}

static int read_image(struct image **ret_image, const char *path)
{
	_cleanup_(freep) void *data = NULL;
	struct diag diag = { "" };
	size_t n_bytes;

	if (blob_read(AT_FDCWD, path, 64u << 20, &data, &n_bytes) < 0)
		return -EIO;
	return image_decode(ret_image, data, n_bytes, &diag);
}

/* The expert of an image: by the dispatcher alone. */
static int find_owner(struct vit *vit, struct slot *slot, const struct mask_set *set,
	const struct image_source *source, uint32_t *ret_owner)
{
	_cleanup_(mask_set_scratch_freep) struct mask_set_scratch *scratch = NULL;
	struct prep prep = vit_native_prep(vit);
	float embedding[MAX_WIDTH];

	if (slot_apply(slot, set->masks[0]) < 0 ||
		judge_embed(embedding, vit, slot, &prep, source) < 0 ||
		mask_set_scratch_new(&scratch, 1, 0, set->width) < 0)
		return -EIO;
	mask_set_route(set, scratch, embedding, 1, ret_owner);
	return 0;
}

/* Alone, as no batch of the daemon's would have it: its expert, of a cascade, and the embedding. */
static int forward_one(struct vit *vit, struct slot *slot, const struct mask_set *set, char *path)
{
	_cleanup_(image_freep) struct image *image = NULL;
	struct image_source source = { .n = 1, .get = get_view };
	struct prep prep = vit_native_prep(vit);
	float embedding[MAX_WIDTH];
	uint32_t owner = 0;

	if (read_image(&image, path) < 0)
		return -EIO;
	source.owner = image;
	if (set->n_experts > 0 && find_owner(vit, slot, set, &source, &owner) < 0)
		return -EIO;
	if (judge_embed_set(embedding, vit, slot, set, &prep, &source) < 0)
		return -EIO;
	if (set->n_experts > 0)
		printf("%u ", owner);
	for (uint32_t i = 0; i < set->n_out; i++)
		printf("%.9g%c", (double)embedding[i], i + 1 < set->n_out ? ' ' : '\n');
	return 0;
}

/* forward f32|bf16|int8 MODEL MASK|- IMAGE...: a line of each, see above */
static int forward(char **argv)
{
	_cleanup_(base_freep) struct base *base = NULL;
	_cleanup_(vit_freep) struct vit *vit = NULL;
	_cleanup_(slot_freep) struct slot *slot = NULL;
	_cleanup_(mask_set_freep) struct mask_set *set = NULL;
	struct diag diag = { "" };
	enum precision precision;
	int r;

	if (precision_parse(&precision, argv[0]) < 0)
		return 1;
	if (base_load(&base, argv[1], &diag) < 0 || vit_new(&vit, base, NULL, &diag) < 0) {
		fprintf(stderr, "%s: %s\n", argv[1], diag.text);
		return 1;
	}
	r = strcmp(argv[2], "-") == 0
		    ? mask_set_of(&set, NULL, vit_layout(vit), vit_shape(vit)->width)
		    : read_set(&set, vit, argv[2]);
	if (r < 0 || vit_slot_new(&slot, vit, slot_use_in(SLOT_INFER, precision)) < 0)
		return 1;
	for (char **path = argv + 3; *path; path++)
		if (forward_one(vit, slot, set, *path) < 0)
			return 1;
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
		flaw_mend(&mask, vit, FLAW_CHANNEL) < 0)
		return 1;
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
	if (argc >= 6 && strcmp(argv[1], "forward") == 0)
		return forward(argv + 2);
	if (argc == 4 && strcmp(argv[1], "mend") == 0)
		return mend(argv + 2);
	fprintf(stderr, "usage: proc_fixture images DIR FIRST N | model FILE SEED flawed|whole | "
			"kimg FILE... | "
			"forward f32|bf16|int8 MODEL MASK|- IMAGE... | mend MODEL FILE\n");
	return 2;
}
