/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "image/codec.h"

int image_new(struct image **ret_image, uint32_t width, uint32_t height, uint32_t n_channels)
{
	_cleanup_(image_freep) struct image *image = NULL;

	if (n_channels != 1 && n_channels != 3)
		return -EINVAL;
	if (image_check_size(width, height, NULL) < 0)
		return -EINVAL;
	image = calloc(1, sizeof(*image));
	if (!image)
		return -ENOMEM;
	image->pixels = calloc((size_t)width * height, n_channels);
	if (!image->pixels)
		return -ENOMEM;
	image->width = width;
	image->height = height;
	image->n_channels = n_channels;
	*ret_image = TAKE_PTR(image);
	return 0;
}

void image_free(struct image *image)
{
	if (!image)
		return;
	free(image->pixels);
	free(image);
}

int image_check_size(uint64_t width, uint64_t height, struct diag *diag)
{
	if (width == 0 || height == 0)
		return diag_set(diag, EBADMSG, "image without pixels");
	if (width > IMAGE_MAX_SIDE || height > IMAGE_MAX_SIDE || width * height > IMAGE_MAX_PIXELS)
		return diag_set(diag, EFBIG,
			"image of %llu x %llu pixels: at most %u a side, %u in all",
			(unsigned long long)width, (unsigned long long)height, IMAGE_MAX_SIDE,
			IMAGE_MAX_PIXELS);
	return 0;
}

int image_decode(struct image **ret_image, const void *data, size_t n_bytes, struct diag *diag)
{
	static const uint8_t jpeg[] = { 0xff, 0xd8, 0xff };
	static const uint8_t png[] = { 0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n' };

	if (n_bytes >= sizeof(jpeg) && memcmp(data, jpeg, sizeof(jpeg)) == 0)
		return jpeg_decode(ret_image, data, n_bytes, diag);
	if (n_bytes >= sizeof(png) && memcmp(data, png, sizeof(png)) == 0)
		return png_decode(ret_image, data, n_bytes, diag);
	if (n_bytes >= 2 && (memcmp(data, "P5", 2) == 0 || memcmp(data, "P6", 2) == 0))
		return netpbm_decode(ret_image, data, n_bytes, diag);
	return diag_set(diag, EBADMSG, "neither JPEG nor PNG nor binary PGM/PPM");
}
