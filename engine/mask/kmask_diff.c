/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <inttypes.h>

#include "mask/kmask_coder.h"
#include "mask/kmask_diff.h"

/* The positions that a tensor's payload names, one after the other: memory must not go by how many a
 * file promises. */
struct cursor {
	struct coder_reader reader;
	uint32_t positions[512];
	size_t at, n;
};

static void cursor_open(struct cursor *cursor, const struct kmask *kmask, uint32_t t)
{
	const struct kmask_tensor *row = &kmask->tensors[t];

	cursor->at = cursor->n = 0;
	if (kmask_n_named(row) > 0)
		coder_open(&cursor->reader, row->n, kmask_n_named(row), kmask->data + row->at,
			row->n_bytes);
	else
		cursor->reader = (struct coder_reader){ 0 };
}

/* UINT32_MAX, which is no position: there are no more. */
static uint32_t cursor_get(struct cursor *cursor)
{
	if (cursor->at == cursor->n) {
		cursor->n = coder_read(
			&cursor->reader, cursor->positions, ARRAY_SIZE(cursor->positions));
		cursor->at = 0;
	}
	return cursor->n > 0 ? cursor->positions[cursor->at] : UINT32_MAX;
}

/* @return false: a payload does not decode */
static bool count_common(struct cursor *a, struct cursor *b, uint32_t *ret_n)
{
	uint32_t n = 0;

	for (;;) {
		uint32_t in_a = cursor_get(a), in_b = cursor_get(b);

		if (in_a == UINT32_MAX && in_b == UINT32_MAX)
			break;
		n += in_a == in_b;
		a->at += in_a <= in_b;
		b->at += in_b <= in_a;
	}
	*ret_n = n;
	return coder_is_whole(&a->reader) && coder_is_whole(&b->reader);
}

static int diff_tensor(const struct kmask *a, const struct kmask *b, uint32_t t,
	struct kmask_flips *ret_flips, struct diag *diag)
{
	const struct kmask_tensor *row_a = &a->tensors[t], *row_b = &b->tensors[t];
	uint32_t n_a = kmask_n_named(row_a), n_b = kmask_n_named(row_b), n_common, n_neither;
	struct cursor from, to;

	cursor_open(&from, a, t);
	cursor_open(&to, b, t);
	if (!count_common(&from, &to, &n_common))
		return diag_set(
			diag, EBADMSG, "mask: payload of tensor %" PRIu32 " does not decode", t);
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
