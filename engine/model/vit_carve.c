/* SPDX-License-Identifier: Apache-2.0 */
#include "model/vit_internal.h"

void *vit_carve_bytes(struct vit_carver *carver, size_t n_bytes)
{
	carver->n_bytes += arena_round(n_bytes);
	return carver->arena ? arena_take(carver->arena, n_bytes) : NULL;
}

float *vit_carve(struct vit_carver *carver, size_t n)
{
	return vit_carve_bytes(carver, n * sizeof(float));
}

void *vit_carve_in(struct vit_carver *carver, size_t n, enum precision precision)
{
	return vit_carve_bytes(carver, n * precision_bytes(precision));
}

struct vit_heads vit_carve_heads(
	struct vit_carver *carver, size_t n, size_t n_keys, enum precision precision, bf16 *out)
{
	if (precision == PRECISION_F32)
		return (struct vit_heads){ NULL, NULL, NULL, NULL };
	return (struct vit_heads){
		.q = vit_carve_in(carver, n, precision),
		.k = vit_carve_in(carver, n_keys, precision),
		.v = vit_carve_in(carver, n_keys, precision),
		.out = out,
	};
}
