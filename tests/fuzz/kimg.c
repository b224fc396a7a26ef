/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "ingest/kimg.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
	_cleanup_(image_freep) struct image *image = NULL;
	_cleanup_(freep) void *again = NULL;
	struct image_view view;
	struct diag diag;
	size_t n_again;

	if (kimg_decode(&image, data, n_bytes, &diag) < 0)
		return 0;
	view = image_view(image);
	/* What is accepted has exactly one encoding. */
	if (kimg_encode(&view, &again, &n_again) < 0 || n_again != n_bytes ||
		memcmp(again, data, n_bytes) != 0)
		abort();
	return 0;
}
