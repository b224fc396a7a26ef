/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/embedding.h"

#include <errno.h>
#include <fcntl.h>

#include "ingest/kimg.h"

/* The largest image with its header. */
#define MAX_BLOB_BYTES (3u * IMAGE_MAX_PIXELS + 4096u)

uint32_t embedding_dim(const struct serving *serving)
{
	/* What a cascade's masks say is fused; the patches of several are not. */
	return serving->set->n_experts > 0 ? serving->set->n_out : 2 * serving->set->width;
}

struct feature_row *embedding_next(struct embedding *embedding, float **ret_values)
{
	struct features *features = embedding->features;

	while (embedding->at < features->n) {
		uint32_t at = embedding->at++;

		if (features->rows[at].is_known)
			continue;
		*ret_values = features->values + (size_t)at * features->dim;
		return &features->rows[at];
	}
	return NULL;
}

int embedding_read(const struct embedding *embedding, const struct feature_row *row,
	struct image **ret_image, struct diag *diag)
{
	_cleanup_(freep) void *data = NULL;
	char path[sizeof(embedding->replay) + sizeof(row->blob)];
	struct diag why = { .text = "" };
	size_t n_bytes;
	int r;

	(void)snprintf(path, sizeof(path), "%s/%s", embedding->replay, row->blob);
	r = blob_read(AT_FDCWD, path, MAX_BLOB_BYTES, &data, &n_bytes);
	if (r >= 0)
		r = kimg_decode(ret_image, data, n_bytes, &why);
	if (r < 0)
		return diag_set(diag, -r, "stored image %s: %s", row->blob,
			why.text[0] ? why.text : strerror(-r));
	return 0;
}
