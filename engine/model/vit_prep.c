/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <string.h>

#include "model/vit_internal.h"

/* Up to n numbers apart by spaces or commas; true where there are exactly n. */
static bool read_numbers(const char *text, float *values, unsigned n)
{
	unsigned i = 0;

	while (text && *(text += strspn(text, " ,[]()"))) {
		char *end;
		float value = strtof(text, &end);

		if (end == text || i == n || !isfinite(value))
			return false;
		values[i++] = value;
		text = end;
	}
	return i == n;
}

/* NULL: the file has none, or there is no file. */
static const char *metadata(const struct vit *vit, const char *key)
{
	return vit->base ? safetensors_metadata(base_tensors(vit->base), key) : NULL;
}

/*
 * Metadata that a model file may carry, as text, named as timm names them:
 *   input_size  side in pixels: "224"
 *   crop_pct    share of the shorter side that the centre crop keeps: "0.9"
 *   crop_mode   "center" or "squash"
 *   mean, std   three numbers in 0..1: "0.485 0.456 0.406"
 * What is missing or makes no sense is left at the default.
 */
struct prep vit_native_prep(const struct vit *vit)
{
	const char *mode = metadata(vit, "crop_mode");
	struct prep prep = {
		.input_px = vit->shape.grid * vit->shape.patch,
		.resize = mode && strcmp(mode, "squash") == 0 ? PREP_SQUASH : PREP_CROP,
		.crop = 224.F / 248.F,
		.mean = { .5F, .5F, .5F },
		.std = { .5F, .5F, .5F },
	};
	float size, crop, mean[3], std[3];

	if (read_numbers(metadata(vit, "input_size"), &size, 1) && size >= 1 && size <= 4096 &&
		(uint32_t)size % vit->shape.patch == 0)
		prep.input_px = (uint32_t)size;
	if (read_numbers(metadata(vit, "crop_pct"), &crop, 1) && crop > 0 && crop <= 1)
		prep.crop = crop;
	if (read_numbers(metadata(vit, "mean"), mean, 3))
		memcpy(prep.mean, mean, sizeof(mean));
	if (read_numbers(metadata(vit, "std"), std, 3) && std[0] > 0 && std[1] > 0 && std[2] > 0)
		memcpy(prep.std, std, sizeof(std));
	return prep;
}
