/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include <spng.h>

#include "image/codec.h"

/* A colour profile may be large, the sum of all that is kept beside the pixels may not. */
#define MAX_CHUNK_BYTES (8u << 20)
#define MAX_CHUNKS_BYTES (16u << 20)
/* Half the time of zlib's default for a few per cent more bytes. */
#define COMPRESSION_LEVEL 3

DEFINE_CLEANUP(spng_ctx *, spng_ctx_free)

static int fail(int error, struct diag *diag)
{
	if (error == SPNG_EMEM)
		return -ENOMEM;
	return diag_set(diag, EBADMSG, "PNG: %s", spng_strerror(error));
}

/* Grey above 8 bits or with alpha: the high byte of the first of each pixel's samples. spng hands
 * out 16 bit in the machine's order. */
static int decode_wide_grey(struct image *image, spng_ctx *ctx, const struct spng_ihdr *ihdr)
{
	size_t n_pixels = (size_t)image->width * image->height;
	size_t n_samples = ihdr->color_type == SPNG_COLOR_TYPE_GRAYSCALE_ALPHA ? 2 : 1;
	size_t n_bytes = n_pixels * n_samples * (ihdr->bit_depth / 8);
	_cleanup_(freep) void *wide = malloc(n_bytes);
	int error;

	if (!wide)
		return SPNG_EMEM;
	error = spng_decode_image(ctx, wide, n_bytes, SPNG_FMT_PNG, 0);
	if (error)
		return error;
	for (size_t i = 0; i < n_pixels; i++)
		image->pixels[i] = ihdr->bit_depth == 16
					   ? (uint8_t)(((const uint16_t *)wide)[i * n_samples] >> 8)
					   : ((const uint8_t *)wide)[i * n_samples];
	return 0;
}

static int decode_pixels(struct image *image, spng_ctx *ctx, const struct spng_ihdr *ihdr)
{
	size_t n_bytes = (size_t)image->width * image->height * image->n_channels;

	if (image->n_channels == 3)
		return spng_decode_image(ctx, image->pixels, n_bytes, SPNG_FMT_RGB8, 0);
	if (ihdr->color_type == SPNG_COLOR_TYPE_GRAYSCALE && ihdr->bit_depth <= 8)
		return spng_decode_image(ctx, image->pixels, n_bytes, SPNG_FMT_G8, 0);
	return decode_wide_grey(image, ctx, ihdr);
}

int png_decode(struct image **ret_image, const void *data, size_t n_bytes, struct diag *diag)
{
	_cleanup_(spng_ctx_freep) spng_ctx *ctx = spng_ctx_new(0);
	_cleanup_(image_freep) struct image *image = NULL;
	struct spng_ihdr ihdr;
	int error, r, grey;

	if (!ctx)
		return -ENOMEM;
	error = spng_set_chunk_limits(ctx, MAX_CHUNK_BYTES, MAX_CHUNKS_BYTES);
	if (!error)
		error = spng_set_png_buffer(ctx, data, n_bytes);
	if (!error)
		error = spng_get_ihdr(ctx, &ihdr);
	if (error)
		return fail(error, diag);
	r = image_check_size(ihdr.width, ihdr.height, diag);
	if (r < 0)
		return r;
	grey = ihdr.color_type == SPNG_COLOR_TYPE_GRAYSCALE ||
	       ihdr.color_type == SPNG_COLOR_TYPE_GRAYSCALE_ALPHA;
	r = image_new(&image, ihdr.width, ihdr.height, grey ? 1 : 3);
	if (r < 0)
		return r;
	error = decode_pixels(image, ctx, &ihdr);
	/* To the end: a file that lost its tail after the last pixel is truncated all the same. */
	if (!error)
		error = spng_decode_chunks(ctx);
	if (error)
		return fail(error, diag);
	*ret_image = TAKE_PTR(image);
	return 0;
}

static int encode(spng_ctx *ctx, const struct image_view *view)
{
	struct spng_ihdr ihdr = {
		.width = view->width,
		.height = view->height,
		.bit_depth = 8,
		.color_type = view->n_channels == 1 ? SPNG_COLOR_TYPE_GRAYSCALE
						    : SPNG_COLOR_TYPE_TRUECOLOR,
	};
	int error = spng_set_option(ctx, SPNG_ENCODE_TO_BUFFER, 1);

	if (!error)
		error = spng_set_option(ctx, SPNG_IMG_COMPRESSION_LEVEL, COMPRESSION_LEVEL);
	if (!error)
		error = spng_set_ihdr(ctx, &ihdr);
	if (!error)
		error = spng_encode_image(
			ctx, NULL, 0, SPNG_FMT_PNG, SPNG_ENCODE_PROGRESSIVE | SPNG_ENCODE_FINALIZE);
	for (uint32_t y = 0; y < view->height && !error; y++)
		error = spng_encode_row(ctx, view->pixels + y * view->stride,
			(size_t)view->width * view->n_channels);
	return error == SPNG_EOI ? 0 : error;
}

int image_encode_png(const struct image_view *view, void **ret_data, size_t *ret_n_bytes)
{
	_cleanup_(spng_ctx_freep) spng_ctx *ctx = NULL;
	size_t n_bytes;
	void *data;
	int error;

	if ((view->n_channels != 1 && view->n_channels != 3) ||
		image_check_size(view->width, view->height, NULL) < 0)
		return -EINVAL;
	ctx = spng_ctx_new(SPNG_CTX_ENCODER);
	if (!ctx)
		return -ENOMEM;
	error = encode(ctx, view);
	if (error)
		return error == SPNG_EMEM ? -ENOMEM : -EIO;
	data = spng_get_png_buffer(ctx, &n_bytes, &error);
	if (!data)
		return error == SPNG_EMEM ? -ENOMEM : -EIO;
	*ret_n_bytes = n_bytes;
	*ret_data = data;
	return 0;
}
