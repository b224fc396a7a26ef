/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include <turbojpeg.h>

#include "image/codec.h"

/* A truncated or corrupt stream is only a warning to libjpeg, which fills up with grey; a flood of
 * progressive scans is a way to burn hours with a small file. */
#define DECODE_FLAGS (TJFLAG_STOPONWARNING | TJFLAG_LIMITSCANS)

static void tj_destroyp(tjhandle *tj)
{
	if (*tj)
		(void)tjDestroy(*tj);
}

/* Adobe's CMYK is stored inverted, and every writer follows Adobe. */
static void cmyk_to_rgb(uint8_t *rgb, const uint8_t *cmyk, size_t n_pixels)
{
	for (size_t i = 0; i < n_pixels; i++)
		for (unsigned c = 0; c < 3; c++)
			rgb[3 * i + c] = (uint8_t)((cmyk[4 * i + c] * cmyk[4 * i + 3] + 127) / 255);
}

static int decode_cmyk(struct image *image, tjhandle tj, const void *data, size_t n_bytes)
{
	size_t n_pixels = (size_t)image->width * image->height;
	_cleanup_(freep) uint8_t *cmyk = malloc(4 * n_pixels);

	if (!cmyk)
		return -ENOMEM;
	if (tjDecompress2(tj, data, n_bytes, cmyk, (int)image->width, 0, (int)image->height,
		    TJPF_CMYK, DECODE_FLAGS) < 0)
		return -EBADMSG;
	cmyk_to_rgb(image->pixels, cmyk, n_pixels);
	return 0;
}

int jpeg_decode(struct image **ret_image, const void *data, size_t n_bytes, struct diag *diag)
{
	_cleanup_(tj_destroyp) tjhandle tj = tjInitDecompress();
	_cleanup_(image_freep) struct image *image = NULL;
	/* Zero, because a stream of tables without a picture leaves them alone and succeeds. */
	int width = 0, height = 0, sampling, space = TJCS_RGB, r;

	if (!tj)
		return -ENOMEM;
	if (tjDecompressHeader3(tj, data, n_bytes, &width, &height, &sampling, &space) < 0)
		return diag_set(diag, EBADMSG, "JPEG: %s", tjGetErrorStr2(tj));
	if (width <= 0 || height <= 0)
		return diag_set(diag, EBADMSG, "JPEG: no picture");
	r = image_check_size((uint64_t)width, (uint64_t)height, diag);
	if (r < 0)
		return r;
	r = image_new(&image, (uint32_t)width, (uint32_t)height, space == TJCS_GRAY ? 1 : 3);
	if (r < 0)
		return r;
	if (space == TJCS_CMYK || space == TJCS_YCCK)
		r = decode_cmyk(image, tj, data, n_bytes);
	else if (tjDecompress2(tj, data, n_bytes, image->pixels, width, 0, height,
			 space == TJCS_GRAY ? TJPF_GRAY : TJPF_RGB, DECODE_FLAGS) < 0)
		r = -EBADMSG;
	if (r == -EBADMSG)
		return diag_set(diag, EBADMSG, "JPEG: %s", tjGetErrorStr2(tj));
	if (r < 0)
		return r;
	*ret_image = TAKE_PTR(image);
	return 0;
}

int image_encode_jpeg(
	const struct image_view *view, int quality, void **ret_data, size_t *ret_n_bytes)
{
	_cleanup_(tj_destroyp) tjhandle tj = tjInitCompress();
	int sampling = view->n_channels == 1 ? TJSAMP_GRAY : TJSAMP_444;
	_cleanup_(freep) uint8_t *data = NULL;
	unsigned long n_bytes;

	if (!tj)
		return -ENOMEM;
	if ((view->n_channels != 1 && view->n_channels != 3) || quality < 1 || quality > 100 ||
		image_check_size(view->width, view->height, NULL) < 0)
		return -EINVAL;
	n_bytes = tjBufSize((int)view->width, (int)view->height, sampling);
	data = malloc(n_bytes);
	if (!data)
		return -ENOMEM;
	if (tjCompress2(tj, view->pixels, (int)view->width, (int)view->stride, (int)view->height,
		    view->n_channels == 1 ? TJPF_GRAY : TJPF_RGB, &data, &n_bytes, sampling,
		    quality, TJFLAG_NOREALLOC) < 0)
		return -EIO;
	*ret_n_bytes = n_bytes;
	*ret_data = TAKE_PTR(data);
	return 0;
}
