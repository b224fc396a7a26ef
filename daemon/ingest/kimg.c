/* SPDX-License-Identifier: Apache-2.0 */
#include <endian.h>
#include <errno.h>
#include <string.h>

#include "ingest/kimg.h"

enum { KIMG_VERSION = 1 };

/* As it lies on disk: little-endian, 32 bytes, no padding. */
struct kimg_header {
	char magic[4];
	uint32_t version, width, height, n_channels;
	uint32_t reserved; /* 0 */
	uint64_t checksum; /* XXH3 of the pixels */
};
_Static_assert(sizeof(struct kimg_header) == 32, "on-disk size");

static const char magic[4] = { 'K', 'I', 'M', 'G' };

static size_t row_bytes(uint32_t width, uint32_t n_channels)
{
	return (size_t)width * n_channels;
}

static int check_size(uint32_t width, uint32_t height, uint32_t n_channels, const char **ret_field)
{
	if (width == 0 || width > IMAGE_MAX_SIDE)
		*ret_field = "width";
	else if (height == 0 || height > IMAGE_MAX_SIDE ||
		 (uint64_t)width * height > IMAGE_MAX_PIXELS)
		*ret_field = "height";
	else if (n_channels != 1 && n_channels != 3)
		*ret_field = "channels";
	else
		return 0;
	return -EBADMSG;
}

int kimg_encode(const struct image_view *view, void **ret_data, size_t *ret_n_bytes)
{
	size_t n_row = row_bytes(view->width, view->n_channels);
	size_t n_pixels = n_row * view->height;
	_cleanup_(freep) uint8_t *data = NULL;
	struct kimg_header header;
	const char *field;

	if (check_size(view->width, view->height, view->n_channels, &field) < 0 ||
		view->stride < n_row)
		return -EINVAL;
	data = malloc(sizeof(header) + n_pixels);
	if (!data)
		return -ENOMEM;
	for (uint32_t y = 0; y < view->height; y++)
		memcpy(data + sizeof(header) + y * n_row, view->pixels + y * view->stride, n_row);

	header = (struct kimg_header){
		.version = htole32(KIMG_VERSION),
		.width = htole32(view->width),
		.height = htole32(view->height),
		.n_channels = htole32(view->n_channels),
		.checksum = htole64(digest_checksum(data + sizeof(header), n_pixels)),
	};
	memcpy(header.magic, magic, sizeof(magic));
	memcpy(data, &header, sizeof(header));
	*ret_n_bytes = sizeof(header) + n_pixels;
	*ret_data = TAKE_PTR(data);
	return 0;
}

static int check_header(const struct kimg_header *header, size_t n_bytes, struct diag *diag)
{
	uint32_t width = le32toh(header->width), height = le32toh(header->height);
	uint32_t n_channels = le32toh(header->n_channels);
	const char *field;

	if (memcmp(header->magic, magic, sizeof(magic)) != 0)
		return diag_set(diag, EBADMSG, "magic: not a canonical image");
	if (le32toh(header->version) != KIMG_VERSION)
		return diag_set(diag, EBADMSG, "version: %u, not %d", le32toh(header->version),
			KIMG_VERSION);
	if (header->reserved != 0)
		return diag_set(diag, EBADMSG, "reserved: not 0");
	if (check_size(width, height, n_channels, &field) < 0)
		return diag_set(diag, EBADMSG, "%s: %u x %u x %u is out of range", field, width,
			height, n_channels);
	if (n_bytes - sizeof(*header) != row_bytes(width, n_channels) * height)
		return diag_set(diag, EBADMSG, "length: %zu bytes do not hold %u x %u x %u",
			n_bytes, width, height, n_channels);
	return 0;
}

int kimg_decode(struct image **ret_image, const void *data, size_t n_bytes, struct diag *diag)
{
	_cleanup_(image_freep) struct image *image = NULL;
	const uint8_t *pixels = (const uint8_t *)data + sizeof(struct kimg_header);
	struct kimg_header header;
	size_t n_pixels;
	int r;

	if (n_bytes < sizeof(header))
		return diag_set(diag, EBADMSG, "length: %zu bytes are no header", n_bytes);
	memcpy(&header, data, sizeof(header));
	r = check_header(&header, n_bytes, diag);
	if (r < 0)
		return r;
	n_pixels = n_bytes - sizeof(header);
	if (digest_checksum(pixels, n_pixels) != le64toh(header.checksum))
		return diag_set(diag, EBADMSG, "checksum: the pixels are not what was written");
	r = image_new(
		&image, le32toh(header.width), le32toh(header.height), le32toh(header.n_channels));
	if (r < 0)
		return r;
	memcpy(image->pixels, pixels, n_pixels);
	*ret_image = TAKE_PTR(image);
	return 0;
}
