/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "model/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

/* What was accepted must be readable to its last byte, and found under its own name. */
static void read_tensor(const struct safetensors *st, const struct tensor *tensor)
{
	float *wide = malloc((tensor->n_elements + 1) * sizeof(*wide));

	if (!wide || safetensors_find(st, tensor->name) != tensor)
		abort();
	tensor_to_f32(wide, tensor);
	free(wide);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
	struct safetensors *st;
	struct diag diag = { "" };

	int r = safetensors_open(&st, data, n_bytes, &diag);

	if (r < 0) {
		if (r != -ENOMEM && diag.text[0] == 0)
			abort();
		return 0;
	}
	for (size_t i = 0; i < safetensors_count(st); i++)
		read_tensor(st, safetensors_at(st, i));
	(void)safetensors_metadata(st, "num_heads");
	safetensors_free(st);
	return 0;
}
