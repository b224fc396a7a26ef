/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "model/vit_internal.h"

void vit_class_leave(void *rows, const struct vit_shape *shape, uint32_t n, uint32_t n_tokens,
	enum precision precision)
{
	const size_t row = shape->width * precision_bytes(precision);
	const size_t patches = (n_tokens - 1) * row;

	for (uint32_t i = 0; i < n; i++)
		memmove((char *)rows + i * patches, (char *)rows + i * (patches + row) + row,
			patches);
}

void vit_class_return(float *rows, const struct vit_shape *shape, uint32_t n, uint32_t n_tokens)
{
	const size_t width = shape->width, patches = (n_tokens - 1) * width;

	/* From the last image on: what is not moved yet lies before what is written. */
	for (uint32_t i = n; i-- > 0;) {
		memmove(rows + i * (patches + width) + width, rows + i * patches,
			patches * sizeof(*rows));
		memset(rows + i * (patches + width), 0, width * sizeof(*rows));
	}
}

void vit_late_carve(struct vit_late *late, const struct vit_stem *stem, const struct vit *vit,
	struct vit_carver *carver)
{
	late->positions =
		vit_carve(carver, (1 + (size_t)stem->grid * stem->grid) * vit->shape.width);
}

void vit_late_init(const struct vit_late *late, const struct vit_stem *stem, const struct vit *vit)
{
	vit_positions_of(vit, vit->late_positions, stem->grid, late->positions);
}

void vit_late_enter(const struct vit_late *late, const struct vit_stem *stem, const struct vit *vit,
	float *tokens)
{
	if (vit->params)
		vit_late_init(late, stem, vit);
	vit_class_return(tokens, &vit->shape, stem->n, stem->n_tokens);
	vit_add_positions(
		&vit->shape, stem->n, stem->n_tokens, late->positions, stem->kept, tokens);
}

void vit_late_backward(const struct vit_late *late, const struct vit_stem *stem,
	const struct vit *vit, const float *d_tokens, float *grad)
{
	if (vit->params && grad)
		vit_places_grad(stem, vit, vit->late_positions, d_tokens, late->positions, grad);
}
