/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/submission.h"

#include <errno.h>

#include "engine.h"

void submission_complete(struct shm_request *wire)
{
	/* Strings of a client end where we say. */
	wire->site[SHM_SITE_CHARS - 1] = '\0';
	if (wire->stride == 0)
		wire->stride = wire->width * shm_n_channels(wire->format);
}

static const char *check_pixels(const struct shm_request *wire)
{
	if (wire->width > IMAGE_MAX_SIDE || wire->height > IMAGE_MAX_SIDE ||
		(uint64_t)wire->width * wire->height > IMAGE_MAX_PIXELS)
		return "the image is larger than the limits";
	return shm_pixels_wrong(
		wire->format, wire->width, wire->height, wire->stride, wire->n_bytes);
}

static const char *check_image(const struct shm_request *wire)
{
	if (wire->verb != SHM_INFER && wire->verb != SHM_PUSH)
		return "no such verb";
	if (wire->format > SHM_BGR8)
		return "no such format";
	if (wire->mask > SHM_MASK_VERSION)
		return "no such mask selector";
	if (wire->n_bytes == 0)
		return "an empty frame";
	return wire->format == SHM_ENCODED ? NULL : check_pixels(wire);
}

const char *submission_check(const struct shm_request *wire, uint64_t slot_bytes, int *ret_code)
{
	const char *wrong;

	if (wire->n_bytes > slot_bytes) {
		*ret_code = -EFBIG;
		return "n_bytes is more than a slot holds";
	}
	wrong = wire->verb == SHM_ECHO ? NULL : check_image(wire);
	if (wrong)
		*ret_code = -EINVAL;
	return wrong;
}
