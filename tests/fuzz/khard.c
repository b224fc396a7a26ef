/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <stdint.h>
#include <string.h>

#include "learn/hardness_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

/* What is taken encodes to what is taken again as the same. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
	_cleanup_(freep) float *values = NULL, *again_values = NULL;
	_cleanup_(freep) void *encoded = NULL;
	struct hardness_info info, again;
	struct diag diag = { "" };
	size_t n_encoded;

	if (hardness_decode(&info, &values, data, n_bytes, &diag) < 0) {
		assert(diag.text[0]);
		return 0;
	}
	if (hardness_encode(&info, values, &encoded, &n_encoded) < 0)
		return 0;
	assert(hardness_decode(&again, &again_values, encoded, n_encoded, &diag) == 0);
	assert(memcmp(&info, &again, sizeof(info)) == 0);
	assert(memcmp(values, again_values, hardness_n_values(&info) * sizeof(*values)) == 0);
	return 0;
}
