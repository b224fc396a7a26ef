/* SPDX-License-Identifier: Apache-2.0 */
#include "classify/reference.h"

struct digest space_digest(const struct digest *base, const struct digest *mask,
	const struct digest *prep, const char *precision, const char *layer)
{
	static const char domain[] = "kamen space 1";
	const struct digest none = { 0 };
	struct digest_state state;

	digest_init(&state);
	/* With their final NULs, so that no two lists of fields give the same bytes. */
	digest_update(&state, domain, sizeof(domain));
	digest_update(&state, base->bytes, DIGEST_BYTES);
	digest_update(&state, (mask ? mask : &none)->bytes, DIGEST_BYTES);
	digest_update(&state, prep->bytes, DIGEST_BYTES);
	digest_update(&state, precision, strlen(precision) + 1);
	digest_update(&state, layer, strlen(layer) + 1);
	return digest_final(&state);
}
