/* SPDX-License-Identifier: Apache-2.0 */
#include "kmask_file.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "base/blob.h"
#include "base/cleanup.h"
#include "mask/kmask.h"

int kmask_file_read(const char *path, void **ret_data, size_t *ret_n_bytes)
{
	return blob_read(AT_FDCWD, path, KMASK_FILE_MAX, ret_data, ret_n_bytes);
}

int kmask_file_write(const char *path, const void *data, size_t n_bytes)
{
	return blob_write(AT_FDCWD, path, data, n_bytes);
}

int kmask_file_verify(const char *path, struct kmask_said *ret_said, char *ret_why, size_t n_why)
{
	_cleanup_(freep) void *data = NULL;
	struct kmask_header header;
	struct diag diag = { 0 };
	size_t n_bytes;
	int r = kmask_file_read(path, &data, &n_bytes);

	if (r < 0) {
		(void)snprintf(ret_why, n_why, "%s", strerror(-r));
		return r;
	}
	r = kmask_verify(data, n_bytes, &header, &diag);
	if (r < 0) {
		(void)snprintf(ret_why, n_why, "%s", *diag.text ? diag.text : strerror(-r));
		return r;
	}
	*ret_said = (struct kmask_said){
		.seed = header.seed,
		.n_elements = header.n_elements,
		.n_kept = header.n_kept,
		.steps = header.steps,
		.n_tensors = header.n_tensors,
		.n_bytes = n_bytes,
	};
	memcpy(ret_said->base, header.base.bytes, sizeof(ret_said->base));
	memcpy(ret_said->prep, header.prep.bytes, sizeof(ret_said->prep));
	return 0;
}
