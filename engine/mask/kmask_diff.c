/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <inttypes.h>

#include "mask/kmask_diff.h"

/* Positions that a tensor's payload names; *ret_positions is NULL where it names none. */
static int read_positions(
	const struct kmask *kmask, uint32_t t, uint32_t **ret_positions, struct diag *diag)
{
	_cleanup_(freep) uint32_t *positions = NULL;
	uint32_t n = kmask_n_named(&kmask->tensors[t]);
	int r;

	if (n == 0) {
		*ret_positions = NULL;
		return 0;
	}
	positions = malloc(n * sizeof(*positions));
	if (!positions)
		return -ENOMEM;
	r = kmask_positions(kmask, t, positions, diag);
	if (r < 0)
		return r;
	*ret_positions = TAKE_PTR(positions);
	return 0;
}

static uint32_t count_common(const uint32_t *a, uint32_t n_a, const uint32_t *b, uint32_t n_b)
{
	uint32_t n = 0;

	for (uint32_t i = 0, j = 0; i < n_a && j < n_b;) {
		n += a[i] == b[j];
		if (a[i] < b[j])
			i++;
		else if (a[i] > b[j])
			j++;
		else
			i++, j++;
	}
	return n;
}

static int diff_tensor(const struct kmask *a, const struct kmask *b, uint32_t t,
	struct kmask_flips *ret_flips, struct diag *diag)
{
	_cleanup_(freep) uint32_t *named_a = NULL, *named_b = NULL;
	const struct kmask_tensor *row_a = &a->tensors[t], *row_b = &b->tensors[t];
	uint32_t n_a = kmask_n_named(row_a), n_b = kmask_n_named(row_b), n_common, n_neither;
	int r;

	r = read_positions(a, t, &named_a, diag);
	if (r == 0)
		r = read_positions(b, t, &named_b, diag);
	if (r < 0)
		return r;
	n_common = count_common(named_a, n_a, named_b, n_b);
	n_neither = row_a->n - (n_a + n_b - n_common);
	/* A file names what is dropped or what is kept: one of two sets, or its complement. */
	if (kmask_names_dropped(row_a) && kmask_names_dropped(row_b))
		*ret_flips = (struct kmask_flips){ n_b - n_common, n_a - n_common };
	else if (kmask_names_dropped(row_a))
		*ret_flips = (struct kmask_flips){ n_neither, n_common };
	else if (kmask_names_dropped(row_b))
		*ret_flips = (struct kmask_flips){ n_common, n_neither };
	else
		*ret_flips = (struct kmask_flips){ n_a - n_common, n_b - n_common };
	return 0;
}

static int check_alike(const struct kmask *a, const struct kmask *b, struct diag *diag)
{
	if (!digest_equal(&a->header.base, &b->header.base))
		return diag_set(diag, EXDEV, "mask: the two are made for different bases");
	if (a->header.n_tensors != b->header.n_tensors)
		return diag_set(diag, EXDEV, "mask: of %" PRIu32 " and of %" PRIu32 " tensors",
			a->header.n_tensors, b->header.n_tensors);
	for (uint32_t t = 0; t < a->header.n_tensors; t++)
		if (a->tensors[t].n != b->tensors[t].n)
			return diag_set(diag, EXDEV,
				"mask: tensor %" PRIu32 " of %" PRIu32 " and of %" PRIu32
				" weights",
				t, a->tensors[t].n, b->tensors[t].n);
	return 0;
}

int kmask_diff(const struct kmask *a, const struct kmask *b, struct kmask_flips *ret_flips,
	struct diag *diag)
{
	const struct kmask *one = a ? a : b;
	int r = a && b ? check_alike(a, b, diag) : 0;

	for (uint32_t t = 0; one && t < one->header.n_tensors && r == 0; t++) {
		if (a && b)
			r = diff_tensor(a, b, t, &ret_flips[t], diag);
		else
			ret_flips[t] = (struct kmask_flips){ a ? 0 : one->tensors[t].n_off,
				a ? one->tensors[t].n_off : 0 };
	}
	return r;
}
