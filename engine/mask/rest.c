/* SPDX-License-Identifier: Apache-2.0 */
#include "mask/rest.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

/* Bits that a gap is written in. The longest has no bit at its end: it goes on with the next one. */
enum { LEAST_WIDTH = 2, MOST_WIDTH = 16 };

struct tensor_rest {
	uint32_t n_on;
	uint32_t n_gaps; /* 0 where there are words, or nothing is dropped */
	uint32_t width;  /* of each gap, in bits */
	uint32_t begin;  /* of its data */
};

struct mask_rest {
	size_t n_bytes;
	struct tensor_rest *tensors; /* (n_tensors) */
	uint8_t data[];              /* of one tensor after the other, and room to read a word */
};

static size_t longest_gap(unsigned width)
{
	return ((size_t)1 << width) - 1;
}

static size_t word_bytes(const struct mask_tensor *tensor)
{
	return (tensor->n + 63) / 64 * sizeof(uint64_t);
}

static size_t gap_bytes(const struct tensor_rest *rest)
{
	return ((size_t)rest->n_gaps * rest->width + 7) / 8;
}

/* All bits of a word that belong to the tensor. */
static uint64_t whole(const struct mask_tensor *tensor, size_t w)
{
	size_t n = tensor->n - w * 64;

	return n < 64 ? (UINT64_C(1) << n) - 1 : UINT64_MAX;
}

/* How many gaps of each width a tensor's dropped bits take. */
static void count_gaps(size_t *counts, const struct mask *mask, unsigned t)
{
	const struct mask_tensor *tensor = &mask->layout->tensors[t];
	size_t at = 0;

	for (size_t w = 0; w < (tensor->n + 63) / 64; w++) {
		uint64_t dropped = ~mask->words[tensor->word + w] & whole(tensor, w);

		for (; dropped; dropped &= dropped - 1) {
			size_t position = w * 64 + (unsigned)__builtin_ctzll(dropped);

			for (unsigned width = LEAST_WIDTH; width <= MOST_WIDTH; width++)
				counts[width] += 1 + (position - at) / longest_gap(width);
			at = position + 1;
		}
	}
}

/* In what width the gaps take least room. */
static struct tensor_rest plan(const struct mask *mask, unsigned t)
{
	const struct mask_tensor *tensor = &mask->layout->tensors[t];
	struct tensor_rest rest = { .n_on = (uint32_t)mask->n_on[t] };
	size_t counts[MOST_WIDTH + 1] = { 0 }, least = word_bytes(tensor) * 8;

	count_gaps(counts, mask, t);
	for (unsigned width = LEAST_WIDTH; width <= MOST_WIDTH; width++) {
		if (counts[width] * width >= least)
			continue;
		least = counts[width] * width;
		rest.n_gaps = (uint32_t)counts[width];
		rest.width = width;
	}
	return rest;
}

/* Where all bits are on there is nothing; where the gaps are more there are the words. */
static bool has_words(const struct tensor_rest *rest, const struct mask_tensor *tensor)
{
	return rest->n_gaps == 0 && rest->n_on < tensor->n;
}

static size_t size_of(const struct tensor_rest *rest, const struct mask_tensor *tensor)
{
	return has_words(rest, tensor) ? word_bytes(tensor) : gap_bytes(rest);
}

/* `to` is zeroed, and has room for a word behind its end. */
static void write_gap(uint8_t *to, size_t i, unsigned width, size_t gap)
{
	size_t bit = i * width;
	uint64_t word;

	memcpy(&word, to + bit / 8, sizeof(word));
	word |= htole64((uint64_t)gap << bit % 8);
	memcpy(to + bit / 8, &word, sizeof(word));
}

static size_t read_gap(const uint8_t *from, size_t i, unsigned width)
{
	size_t bit = i * width;
	uint64_t word;

	memcpy(&word, from + bit / 8, sizeof(word));
	return le64toh(word) >> bit % 8 & longest_gap(width);
}

static void write_gaps(uint8_t *to, const struct mask *mask, unsigned t, unsigned width)
{
	const struct mask_tensor *tensor = &mask->layout->tensors[t];
	size_t n = 0, at = 0;

	for (size_t w = 0; w < (tensor->n + 63) / 64; w++) {
		uint64_t dropped = ~mask->words[tensor->word + w] & whole(tensor, w);

		for (; dropped; dropped &= dropped - 1) {
			size_t position = w * 64 + (unsigned)__builtin_ctzll(dropped);

			for (; position - at >= longest_gap(width); at += longest_gap(width))
				write_gap(to, n++, width, longest_gap(width));
			write_gap(to, n++, width, position - at);
			at = position + 1;
		}
	}
}

int mask_rest_new(struct mask_rest **ret_rest, const struct mask *mask)
{
	const struct mask_layout *layout = mask->layout;
	_cleanup_(freep) struct tensor_rest *tensors =
		calloc(layout->n_tensors + 1, sizeof(*tensors));
	size_t n_data = sizeof(uint64_t), n_bytes;
	struct mask_rest *rest;

	if (!tensors)
		return -ENOMEM;
	for (unsigned t = 0; t < layout->n_tensors; t++) {
		tensors[t] = plan(mask, t);
		tensors[t].begin = (uint32_t)(n_data - sizeof(uint64_t));
		n_data += size_of(&tensors[t], &layout->tensors[t]);
	}
	if (n_data > UINT32_MAX)
		return -EFBIG;
	n_bytes = sizeof(*rest) + n_data;
	rest = calloc(1, n_bytes);
	if (!rest)
		return -ENOMEM;
	rest->n_bytes = n_bytes + layout->n_tensors * sizeof(*tensors);
	for (unsigned t = 0; t < layout->n_tensors; t++) {
		const struct mask_tensor *tensor = &layout->tensors[t];
		uint8_t *to = rest->data + tensors[t].begin;

		if (has_words(&tensors[t], tensor))
			memcpy(to, &mask->words[tensor->word], word_bytes(tensor));
		else
			write_gaps(to, mask, t, tensors[t].width);
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

size_t mask_rest_n_on(const struct mask_rest *rest, unsigned tensor)
{
	return rest->tensors[tensor].n_on;
}

static struct mask_gaps gaps_of(const struct mask_rest *rest, unsigned tensor)
{
	const struct tensor_rest *one = &rest->tensors[tensor];

	return (struct mask_gaps){
		.from = rest->data + one->begin,
		.n = one->n_gaps,
		.width = one->width,
	};
}

bool mask_rest_gaps(struct mask_gaps *ret_gaps, const struct mask_rest *rest,
	const struct mask_layout *layout, unsigned tensor)
{
	if (has_words(&rest->tensors[tensor], &layout->tensors[tensor]))
		return false;
	*ret_gaps = gaps_of(rest, tensor);
	return true;
}

uint32_t mask_gaps_read(struct mask_gaps *gaps, uint32_t *positions, uint32_t n)
{
	const uint8_t *from = gaps->from;
	const unsigned width = gaps->width;
	const uint32_t longest = (uint32_t)longest_gap(width), first = gaps->i;
	uint32_t at = gaps->at, n_found = 0;

	if (n > gaps->n - first)
		n = gaps->n - first;
	for (uint32_t i = first; i < first + n; i++) {
		uint32_t gap = (uint32_t)read_gap(from, i, width), is_bit = gap != longest;

		at += gap;
		positions[n_found] = at;
		n_found += is_bit;
		at += is_bit;
	}
	gaps->i = first + n;
	gaps->at = at;
	return n_found;
}

static void drop(uint64_t *words, const uint8_t *from, const struct tensor_rest *rest)
{
	const unsigned width = rest->width;
	size_t at = 0;

	for (size_t i = 0; i < rest->n_gaps; i++) {
		size_t gap = read_gap(from, i, width), is_bit = gap != longest_gap(width);

		at += gap;
		words[at / 64] &= ~((uint64_t)is_bit << (at % 64));
		at += is_bit;
	}
}

void mask_rest_wake_tensor(const struct mask_rest *rest, struct mask *mask, unsigned tensor)
{
	const struct mask_tensor *t = &mask->layout->tensors[tensor];
	const struct tensor_rest *one = &rest->tensors[tensor];
	uint64_t *words = &mask->words[t->word];

	if (has_words(one, t)) {
		memcpy(words, rest->data + one->begin, word_bytes(t));
	} else {
		memset(words, 0xff, word_bytes(t));
		words[(t->n - 1) / 64] = whole(t, (t->n - 1) / 64);
		drop(words, rest->data + one->begin, one);
	}
	mask->n_on[tensor] = one->n_on;
}

void mask_rest_wake(const struct mask_rest *rest, struct mask *mask)
{
	for (unsigned t = 0; t < mask->layout->n_tensors; t++)
		mask_rest_wake_tensor(rest, mask, t);
}
