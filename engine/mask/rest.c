/* SPDX-License-Identifier: Apache-2.0 */
#include "mask/rest.h"

#include <errno.h>
#include <string.h>

/* A gap this long has no bit at its end: it goes on with the next one. */
#define LONGEST_GAP UINT16_MAX

enum { GAPS_A_WORD = sizeof(uint64_t) / sizeof(uint16_t) };

struct tensor_rest {
	uint32_t n_on;
	uint32_t n_gaps; /* 0 where there are words, or nothing is dropped */
};

struct mask_rest {
	size_t n_bytes;
	struct tensor_rest *tensors; /* (n_tensors) */
	uint16_t data[];             /* of one tensor after the other */
};

static size_t n_words_of(const struct mask_tensor *tensor)
{
	return (tensor->n + 63) / 64;
}

/* All bits of a word that belong to the tensor. */
static uint64_t whole(const struct mask_tensor *tensor, size_t w)
{
	size_t n = tensor->n - w * 64;

	return n < 64 ? (UINT64_C(1) << n) - 1 : UINT64_MAX;
}

/* gaps NULL: counts them. */
static size_t write_gaps(uint16_t *gaps, const struct mask *mask, unsigned t)
{
	const struct mask_tensor *tensor = &mask->layout->tensors[t];
	size_t n = 0, at = 0;

	for (size_t w = 0; w < n_words_of(tensor); w++) {
		uint64_t dropped = ~mask->words[tensor->word + w] & whole(tensor, w);

		for (; dropped; dropped &= dropped - 1) {
			size_t position = w * 64 + (unsigned)__builtin_ctzll(dropped);

			for (; position - at >= LONGEST_GAP; at += LONGEST_GAP, n++)
				if (gaps)
					gaps[n] = LONGEST_GAP;
			if (gaps)
				gaps[n] = (uint16_t)(position - at);
			n++;
			at = position + 1;
		}
	}
	return n;
}

/* Where all bits are on there is nothing; where the gaps are more there are the words. */
static bool has_words(const struct tensor_rest *rest, const struct mask_tensor *tensor)
{
	return rest->n_gaps == 0 && rest->n_on < tensor->n;
}

static struct tensor_rest plan(const struct mask *mask, unsigned t, size_t *n_data)
{
	const struct mask_tensor *tensor = &mask->layout->tensors[t];
	struct tensor_rest rest = { .n_on = (uint32_t)mask->n_on[t] };
	size_t n_gaps = write_gaps(NULL, mask, t);

	if (n_gaps < GAPS_A_WORD * n_words_of(tensor))
		rest.n_gaps = (uint32_t)n_gaps;
	*n_data += has_words(&rest, tensor) ? GAPS_A_WORD * n_words_of(tensor) : rest.n_gaps;
	return rest;
}

int mask_rest_new(struct mask_rest **ret_rest, const struct mask *mask)
{
	const struct mask_layout *layout = mask->layout;
	_cleanup_(freep) struct tensor_rest *tensors =
		calloc(layout->n_tensors + 1, sizeof(*tensors));
	struct mask_rest *rest;
	size_t n_data = 0;
	uint16_t *to;

	if (!tensors)
		return -ENOMEM;
	for (unsigned t = 0; t < layout->n_tensors; t++)
		tensors[t] = plan(mask, t, &n_data);
	rest = malloc(sizeof(*rest) + n_data * sizeof(*rest->data));
	if (!rest)
		return -ENOMEM;
	rest->n_bytes =
		sizeof(*rest) + n_data * sizeof(*rest->data) + layout->n_tensors * sizeof(*tensors);
	to = rest->data;
	for (unsigned t = 0; t < layout->n_tensors; t++) {
		const struct mask_tensor *tensor = &layout->tensors[t];

		if (has_words(&tensors[t], tensor)) {
			memcpy(to, &mask->words[tensor->word],
				n_words_of(tensor) * sizeof(uint64_t));
			to += GAPS_A_WORD * n_words_of(tensor);
		} else if (tensors[t].n_gaps > 0) {
			to += write_gaps(to, mask, t);
		}
	}
	rest->tensors = TAKE_PTR(tensors);
	*ret_rest = rest;
	return 0;
}

void mask_rest_free(struct mask_rest *rest)
{
	if (!rest)
		return;
	free(rest->tensors);
	free(rest);
}

size_t mask_rest_bytes(const struct mask_rest *rest)
{
	return rest->n_bytes;
}

static void drop(uint64_t *words, const uint16_t *gaps, size_t n_gaps)
{
	size_t at = 0;

	for (size_t i = 0; i < n_gaps; i++) {
		size_t is_bit = gaps[i] != LONGEST_GAP;

		at += gaps[i];
		words[at / 64] &= ~((uint64_t)is_bit << (at % 64));
		at += is_bit;
	}
}

void mask_rest_wake(const struct mask_rest *rest, struct mask *mask)
{
	const uint16_t *from = rest->data;

	mask_fill(mask);
	for (unsigned t = 0; t < mask->layout->n_tensors; t++) {
		const struct mask_tensor *tensor = &mask->layout->tensors[t];
		const struct tensor_rest *one = &rest->tensors[t];
		uint64_t *words = &mask->words[tensor->word];

		if (has_words(one, tensor)) {
			memcpy(words, from, n_words_of(tensor) * sizeof(*words));
			from += GAPS_A_WORD * n_words_of(tensor);
		} else {
			drop(words, from, one->n_gaps);
			from += one->n_gaps;
		}
		mask->n_on[t] = one->n_on;
	}
}
