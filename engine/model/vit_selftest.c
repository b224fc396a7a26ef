/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <math.h>

#include "base/rng.h"
#include "model/vit_internal.h"

/* Far above rounding (1e-6, in bf16 1e-2, in int8 8e-2), far below what a wrong instruction or a
 * skipped primitive does. */
static const double tolerances[N_PRECISIONS] = { 1e-4, .1, .3 };
#define SELFTEST_KEEP 0.95F

struct selftest {
	struct vit *vit;
	struct vit_plan *plan;
	struct slot *slot;
	uint32_t px;
	enum precision precision;
	float *got, *want; /* (width) */
};

/* Largest difference as a share of the largest value. */
static double distance(const float *got, const float *want, size_t n)
{
	double most = 0, largest = 0;

	for (size_t i = 0; i < n; i++) {
		double d = fabs((double)got[i] - want[i]);

		/* Not fmax(): it would drop a NaN. */
		if (!(d <= most))
			most = d;
		largest = fmax(largest, fabs((double)want[i]));
	}
	return most / fmax(largest, 1e-30);
}

static int compare(
	const struct selftest *test, const struct mask *mask, const char *what, struct diag *diag)
{
	double off;
	int r;

	r = slot_apply(test->slot, mask);
	if (r == 0)
		r = vit_forward(test->plan, test->slot, test->got);
	if (r < 0)
		return diag_set(diag, EIO, "oneDNN fails on the %s model in %s", what,
			precision_name(test->precision));
	r = vit_reference(test->vit, mask, vit_plan_input(test->plan), test->px, test->want);
	if (r < 0)
		return r;
	off = distance(test->got, test->want, test->vit->shape.width);
	if (!(off <= tolerances[test->precision]))
		return diag_set(diag, EIO, "oneDNN is off by %.3g (relative) on the %s model in %s",
			off, what, precision_name(test->precision));
	return 0;
}

static int compare_both(struct selftest *test, struct diag *diag)
{
	_cleanup_(mask_freep) struct mask *mask = NULL;
	struct rng rng = rng_stream(1, 0, 0, 0);
	float *pixels = vit_plan_input(test->plan);
	int r;

	for (size_t i = 0; i < (size_t)3 * test->px * test->px; i++)
		pixels[i] = rng_range(&rng, -1, 1);
	r = mask_new(&mask, test->vit->layout);
	if (r < 0)
		return r;
	for (unsigned t = 0; t < test->vit->layout->n_tensors; t++)
		for (size_t i = 0; i < test->vit->layout->tensors[t].n; i++)
			if (rng_uniform(&rng) >= SELFTEST_KEEP)
				mask_put(mask, t, i, false);

	r = compare(test, NULL, "frozen", diag);
	if (r < 0)
		return r;
	return compare(test, mask, "masked", diag);
}

int vit_selftest(struct vit *vit, enum precision precision, struct diag *diag)
{
	_cleanup_(vit_plan_freep) struct vit_plan *plan = NULL;
	_cleanup_(slot_freep) struct slot *slot = NULL;
	_cleanup_(freep) float *values = calloc((size_t)2 * vit->shape.width, sizeof(float));
	struct selftest test = { .vit = vit, .px = 2 * vit->shape.patch, .precision = precision };
	int r;

	if (!values)
		return -ENOMEM;
	r = vit_plan_new(&plan, vit, 1, test.px, precision);
	if (r == 0)
		r = vit_slot_new(&slot, vit, slot_use_in(SLOT_INFER, precision));
	if (r < 0)
		return diag_set(diag, -r, "oneDNN refuses to make its primitives");
	test.plan = plan;
	test.slot = slot;
	test.got = values;
	test.want = values + vit->shape.width;
	return compare_both(&test, diag);
}
