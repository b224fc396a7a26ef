/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <math.h>
#include <string.h>

#include "mask/bits.h"
#include "mask/scores.h"

static size_t n_words_of(size_t n)
{
	return n / 64 + (n % 64 != 0);
}

int mask_layout_new(struct mask_layout **ret_layout, unsigned n_tensors, const char *const *names,
	const size_t *sizes)
{
	_cleanup_(mask_layout_freep) struct mask_layout *layout = calloc(1, sizeof(*layout));

	if (!layout)
		return -ENOMEM;
	layout->tensors = calloc(n_tensors ? n_tensors : 1, sizeof(*layout->tensors));
	if (!layout->tensors)
		return -ENOMEM;

	layout->n_tensors = n_tensors;
	for (unsigned t = 0; t < n_tensors; t++) {
		if (sizes[t] == 0 || sizes[t] > SIZE_MAX / 8 - layout->n_elements)
			return -EINVAL;
		layout->tensors[t] = (struct mask_tensor){
			.name = names[t],
			.n = sizes[t],
			.offset = layout->n_elements,
			.word = layout->n_words,
		};
		layout->n_elements += sizes[t];
		layout->n_words += n_words_of(sizes[t]);
	}
	*ret_layout = TAKE_PTR(layout);
	return 0;
}

void mask_layout_free(struct mask_layout *layout)
{
	if (!layout)
		return;
	free(layout->tensors);
	free(layout);
}

int mask_new(struct mask **ret_mask, const struct mask_layout *layout)
{
	_cleanup_(mask_freep) struct mask *mask = calloc(1, sizeof(*mask));

	if (!mask)
		return -ENOMEM;
	mask->layout = layout;
	mask->words = malloc((layout->n_words + 1) * sizeof(*mask->words));
	mask->n_on = malloc((layout->n_tensors + 1) * sizeof(*mask->n_on));
	if (!mask->words || !mask->n_on)
		return -ENOMEM;

	mask_fill(mask);
	*ret_mask = TAKE_PTR(mask);
	return 0;
}

void mask_fill(struct mask *mask)
{
	const struct mask_layout *layout = mask->layout;

	memset(mask->words, 0xff, layout->n_words * sizeof(*mask->words));
	for (unsigned t = 0; t < layout->n_tensors; t++) {
		const struct mask_tensor *tensor = &layout->tensors[t];

		mask->n_on[t] = tensor->n;
		if (tensor->n % 64)
			mask->words[tensor->word + tensor->n / 64] =
				(UINT64_C(1) << (tensor->n % 64)) - 1;
	}
}

void mask_copy(struct mask *mask, const struct mask *from)
{
	memcpy(mask->words, from->words, from->layout->n_words * sizeof(*from->words));
	memcpy(mask->n_on, from->n_on, from->layout->n_tensors * sizeof(*from->n_on));
}

void mask_count(struct mask *mask)
{
	for (unsigned t = 0; t < mask->layout->n_tensors; t++) {
		const struct mask_tensor *tensor = &mask->layout->tensors[t];

		mask->n_on[t] = 0;
		for (size_t i = 0; i < n_words_of(tensor->n); i++)
			mask->n_on[t] +=
				(size_t)__builtin_popcountll(mask->words[tensor->word + i]);
	}
}

void mask_free(struct mask *mask)
{
	if (!mask)
		return;
	free(mask->words);
	free(mask->n_on);
	free(mask);
}

void mask_from_scores(struct mask *mask, const float *scores, float mu)
{
	for (unsigned t = 0; t < mask->layout->n_tensors; t++) {
		const struct mask_tensor *tensor = &mask->layout->tensors[t];

		mask->n_on[t] = kern_scores()->bits(
			mask->words + tensor->word, scores + tensor->offset, tensor->n, mu);
	}
}

void mask_put(struct mask *mask, unsigned tensor, size_t i, bool on)
{
	uint64_t *word = &mask->words[mask->layout->tensors[tensor].word + i / 64];
	uint64_t bit = UINT64_C(1) << (i % 64);

	if (((*word & bit) != 0) == on)
		return;
	*word ^= bit;
	if (on)
		mask->n_on[tensor]++;
	else
		mask->n_on[tensor]--;
}

double mask_density(const struct mask *mask)
{
	size_t n_on = 0;

	for (unsigned t = 0; t < mask->layout->n_tensors; t++)
		n_on += mask->n_on[t];
	return mask->layout->n_elements ? (double)n_on / (double)mask->layout->n_elements : 1;
}

double mask_tensor_density(const struct mask *mask, unsigned tensor)
{
	return (double)mask->n_on[tensor] / (double)mask->layout->tensors[tensor].n;
}

double mask_lowest_density(const struct mask *mask)
{
	double lowest = 1;

	for (unsigned t = 0; t < mask->layout->n_tensors; t++)
		lowest = fmin(lowest, mask_tensor_density(mask, t));
	return lowest;
}

float mask_alpha(const struct mask *mask, unsigned tensor)
{
	size_t n_on = mask->n_on[tensor] ? mask->n_on[tensor] : 1;

	return (float)sqrt((double)n_on / (double)mask->layout->tensors[tensor].n);
}

size_t mask_distance(const struct mask *a, const struct mask *b)
{
	size_t n = 0;

	for (size_t w = 0; w < a->layout->n_words; w++)
		n += (size_t)__builtin_popcountll(a->words[w] ^ b->words[w]);
	return n;
}

struct digest mask_digest(const struct mask *mask)
{
	const struct mask_layout *layout = mask->layout;
	struct digest_state state;

	digest_init(&state);
	digest_update_u64(&state, layout->n_tensors);
	for (unsigned t = 0; t < layout->n_tensors; t++)
		digest_update_u64(&state, layout->tensors[t].n);
	for (size_t w = 0; w < layout->n_words; w++)
		digest_update_u64(&state, mask->words[w]);
	return digest_final(&state);
}
