/* SPDX-License-Identifier: Apache-2.0 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "site/manifest.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

/* What is read and written is read as the same: a version is known by the digest of it. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	_cleanup_(manifest_done) struct manifest manifest = { 0 }, again = { 0 };
	_cleanup_(freep) char *text = NULL;
	struct diag diag = { "" };
	struct digest was, is;
	size_t n_chars;

	if (manifest_read(&manifest, (const char *)data, n, &diag) < 0) {
		if (!diag.text[0])
			abort();
		return 0;
	}
	if (manifest_write(&manifest, &text, &n_chars) < 0 ||
		manifest_read(&again, text, n_chars, &diag) < 0)
		abort();
	was = manifest_digest(&manifest);
	is = manifest_digest(&again);
	if (!digest_equal(&was, &is))
		abort();
	return 0;
}
