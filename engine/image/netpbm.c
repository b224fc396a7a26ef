/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "image/codec.h"

struct reader {
	const uint8_t *p, *end;
};

static bool is_space(uint8_t c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

/* White space and comments, then a number of at most six digits, then one more white space. */
static int read_number(struct reader *in, uint32_t *ret_number)
{
	uint32_t number = 0;
	unsigned n_digits = 0;

	while (in->p < in->end && (is_space(*in->p) || *in->p == '#')) {
		if (*in->p++ != '#')
			continue;
		while (in->p < in->end && *in->p != '\n')
			in->p++;
	}
	for (; in->p < in->end && *in->p >= '0' && *in->p <= '9'; n_digits++) {
		if (n_digits == 6)
			return -EBADMSG;
		number = 10 * number + (*in->p++ - '0');
	}
	if (n_digits == 0 || in->p == in->end || !is_space(*in->p))
		return -EBADMSG;
	*ret_number = number;
	return 0;
}

static int copy_pixels(struct image *image, const uint8_t *src, uint32_t max, struct diag *diag)
{
	size_t n = (size_t)image->width * image->height * image->n_channels;

	if (max == 255) {
		memcpy(image->pixels, src, n);
		return 0;
	}
	for (size_t i = 0; i < n; i++) {
		if (src[i] > max)
			return diag_set(
				diag, EBADMSG, "netpbm: a value above the maximum of %u", max);
		image->pixels[i] = (uint8_t)((src[i] * 255u + max / 2) / max);
	}
	return 0;
}

int netpbm_decode(struct image **ret_image, const void *data, size_t n_bytes, struct diag *diag)
{
	_cleanup_(image_freep) struct image *image = NULL;
	struct reader in = { (const uint8_t *)data + 2, (const uint8_t *)data + n_bytes };
	uint32_t n_channels = ((const char *)data)[1] == '6' ? 3 : 1;
	uint32_t width, height, max;
	int r;

	if (read_number(&in, &width) < 0 || read_number(&in, &height) < 0 ||
		read_number(&in, &max) < 0)
		return diag_set(diag, EBADMSG, "netpbm: damaged header");
	if (max == 0 || max > 255)
		return diag_set(diag, EBADMSG, "netpbm: maximum %u is not in 1..255", max);
	r = image_check_size(width, height, diag);
	if (r < 0)
		return r;
	in.p++; /* the white space after the maximum */
	if ((size_t)(in.end - in.p) < (size_t)width * height * n_channels)
		return diag_set(diag, EBADMSG, "netpbm: truncated");
	r = image_new(&image, width, height, n_channels);
	if (r == 0)
		r = copy_pixels(image, in.p, max, diag);
	if (r < 0)
		return r;
	*ret_image = TAKE_PTR(image);
	return 0;
}
