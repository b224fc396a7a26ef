/* SPDX-License-Identifier: Apache-2.0 */
#include "subject.h"

#include <errno.h>
#include <stdlib.h>

#include "base/rng.h"
#include "untrained.h"

void subject_done(struct subject *s)
{
	vit_plan_free(s->plan);
	slot_free(s->slot);
	vit_free(s->vit);
	base_free(s->base);
	image_free(s->image);
	resize_scratch_free(s->scratch);
	free(s->embeddings);
}

static int image_fill(struct subject *s)
{
	struct rng rng = rng_stream(1, 0, 0, 0);
	uint32_t side = s->prep.input_px + s->prep.input_px / 7;
	int r = image_new(&s->image, side, side, 3);

	if (r < 0)
		return r;
	for (size_t i = 0; i < (size_t)side * side * 3; i++)
		s->image->pixels[i] = (uint8_t)rng_u32(&rng);
	return 0;
}

int subject_open(struct base **base, struct vit **vit, const char *file, const char *random,
	enum precision precision, struct diag *diag)
{
	int r = file ? base_load(base, file, diag) : untrained_load(base, random, diag);

	if (r == 0)
		r = vit_new(vit, *base, NULL, diag);
	if (r < 0 || vit_has(*vit, precision))
		return r;
	return diag_set(diag, EOPNOTSUPP, "%s: this CPU (%s) has not", precision_name(precision),
		vit_isa(*vit));
}

int subject_init(struct subject *s, const struct subject_options *options, struct diag *diag)
{
	int r = subject_open(
		&s->base, &s->vit, options->file, options->random, options->precision, diag);

	if (r < 0)
		return r;
	s->batch = options->batch;
	s->precision = options->precision;
	s->prep = vit_native_prep(s->vit);
	if (options->px)
		s->prep.input_px = options->px;
	r = prep_check(&s->prep, vit_shape(s->vit)->patch, diag);
	if (r == 0)
		r = vit_slot_new(&s->slot, s->vit, slot_use_in(SLOT_INFER, s->precision));
	if (r == 0)
		r = slot_apply(s->slot, NULL);
	if (r == 0)
		r = vit_plan_new(&s->plan, s->vit, s->batch, s->prep.input_px, s->precision);
	if (r == 0)
		r = resize_scratch_new(&s->scratch);
	if (r == 0)
		r = image_fill(s);
	s->embeddings = malloc((size_t)s->batch * vit_shape(s->vit)->width * sizeof(float));
	return r == 0 && !s->embeddings ? -ENOMEM : r;
}

int subject_run(struct subject *s)
{
	const size_t n = 3 * (size_t)s->prep.input_px * s->prep.input_px;
	const struct image_view view = image_view(s->image);
	int r = 0;

	for (uint32_t i = 0; i < s->batch && r == 0; i++)
		r = prep_apply(&s->prep, &view, vit_plan_input(s->plan) + i * n, s->scratch);
	return r < 0 ? r : vit_forward(s->plan, s->slot, s->embeddings);
}
