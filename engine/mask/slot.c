/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "mask/slot_internal.h"

struct slot {
	struct slot_layer *layers;
	struct slot_entry *entries;
	unsigned n_layers;
	enum slot_use use;
	struct mask *mask;  /* now applied */
	struct mask *blank; /* all kept, for slot_apply(NULL) */
	bool *stale;        /* (n_tensors) to be rewritten whatever the masks say */
	float *scratch;     /* of the largest weight */
	kern_mask_row_fn *mask_row;
};

static int entry_init(struct slot_entry *entry, struct onednn *onednn,
	const struct slot_layer *layer, enum slot_use use)
{
	const enum precision precision = use & SLOT_BF16 ? PRECISION_BF16 : PRECISION_F32;
	int r;

	entry->bias = calloc(layer->n_out, sizeof(float));
	if (!entry->bias)
		return -ENOMEM;
	r = packed_new(
		&entry->forward, onednn, layer->n_in, layer->n_out, PACKED_N_BY_K, precision);
	if (r < 0 || !(use & SLOT_LEARN))
		return r;
	return packed_new(
		&entry->backward, onednn, layer->n_out, layer->n_in, PACKED_K_BY_N, precision);
}

static int entries_init(struct slot *slot, struct onednn *onednn)
{
	size_t n_max = 0;
	int r;

	for (unsigned i = 0; i < slot->n_layers; i++) {
		const struct slot_layer *layer = &slot->layers[i];
		size_t n = (size_t)layer->n_out * layer->n_in;

		n_max = n > n_max ? n : n_max;
		r = entry_init(&slot->entries[i], onednn, layer, slot->use);
		if (r < 0)
			return r;
	}
	slot->scratch = malloc((n_max ? n_max : 1) * sizeof(float));
	return slot->scratch ? 0 : -ENOMEM;
}

int slot_new(struct slot **ret_slot, struct onednn *onednn, const struct mask_layout *layout,
	const struct slot_layer *layers, unsigned n_layers, enum slot_use use)
{
	_cleanup_(slot_freep) struct slot *slot = calloc(1, sizeof(*slot));
	int r;

	if (!slot)
		return -ENOMEM;
	slot->use = use;
	slot->mask_row = kern_mask_row();
	slot->layers = calloc(n_layers + 1, sizeof(*slot->layers));
	slot->entries = calloc(n_layers + 1, sizeof(*slot->entries));
	slot->stale = malloc(layout->n_tensors + 1);
	if (!slot->layers || !slot->entries || !slot->stale)
		return -ENOMEM;
	slot->n_layers = n_layers;
	memcpy(slot->layers, layers, n_layers * sizeof(*layers));
	memset(slot->stale, true, layout->n_tensors);
	r = mask_new(&slot->mask, layout);
	if (r < 0)
		return r;
	r = mask_new(&slot->blank, layout);
	if (r < 0)
		return r;
	r = entries_init(slot, onednn);
	if (r < 0)
		return r;
	r = slot_apply(slot, NULL);
	if (r < 0)
		return r;

	*ret_slot = TAKE_PTR(slot);
	return 0;
}

void slot_free(struct slot *slot)
{
	if (!slot)
		return;
	for (unsigned i = 0; i < slot->n_layers; i++) {
		packed_free(slot->entries[i].forward);
		packed_free(slot->entries[i].backward);
		free(slot->entries[i].bias);
	}
	free(slot->layers);
	free(slot->entries);
	free(slot->stale);
	mask_free(slot->mask);
	mask_free(slot->blank);
	free(slot->scratch);
	free(slot);
}

static size_t tensor_words(const struct mask_layout *layout, unsigned tensor)
{
	return (layout->tensors[tensor].n + 63) / 64;
}

/* Whether the slot's tensor is not what the mask asks for. */
static bool differs(const struct slot *slot, const struct mask *mask, unsigned tensor)
{
	size_t word = mask->layout->tensors[tensor].word;

	return slot->stale[tensor] ||
	       memcmp(&slot->mask->words[word], &mask->words[word],
		       tensor_words(mask->layout, tensor) * sizeof(uint64_t)) != 0;
}

static void remember(struct slot *slot, const struct mask *mask, unsigned tensor)
{
	size_t word = mask->layout->tensors[tensor].word;

	memcpy(&slot->mask->words[word], &mask->words[word],
		tensor_words(mask->layout, tensor) * sizeof(uint64_t));
	slot->mask->n_on[tensor] = mask->n_on[tensor];
	slot->stale[tensor] = false;
}

static int write_weight(struct slot *slot, unsigned i, const struct mask *mask)
{
	const struct slot_layer *layer = &slot->layers[i];
	const struct mask_tensor *tensor = &mask->layout->tensors[layer->weight];
	struct slot_entry *entry = &slot->entries[i];
	const float *values = layer->weight_values;
	int r;

	if (mask->n_on[layer->weight] < tensor->n) {
		slot->mask_row(
			slot->scratch, layer->weight_values, &mask->words[tensor->word], tensor->n);
		values = slot->scratch;
	}
	/* From here on the packed copy is neither mask's until all of it is written. */
	slot->stale[layer->weight] = true;
	r = packed_write(entry->forward, values);
	if (r == 0 && entry->backward)
		r = packed_write(entry->backward, values);
	if (r < 0)
		return r;
	entry->scale = 1 / mask_alpha(mask, layer->weight);
	return 0;
}

static void write_bias(struct slot *slot, unsigned i, const struct mask *mask)
{
	const struct slot_layer *layer = &slot->layers[i];
	const struct mask_tensor *tensor = &mask->layout->tensors[layer->bias];
	struct slot_entry *entry = &slot->entries[i];
	float factor = mask_alpha(mask, layer->weight) / mask_alpha(mask, layer->bias);

	slot->mask_row(entry->bias, layer->bias_values, &mask->words[tensor->word], tensor->n);
	for (uint32_t o = 0; o < layer->n_out; o++)
		entry->bias[o] *= factor;
}

int slot_apply(struct slot *slot, const struct mask *mask)
{
	int r;

	if (!mask)
		mask = slot->blank;
	for (unsigned i = 0; i < slot->n_layers; i++) {
		const struct slot_layer *layer = &slot->layers[i];
		bool weight = differs(slot, mask, layer->weight);

		/* The weight's density is part of the bias as well. */
		if (weight || differs(slot, mask, layer->bias))
			write_bias(slot, i, mask);
		if (weight) {
			r = write_weight(slot, i, mask);
			if (r < 0)
				return r;
			remember(slot, mask, layer->weight);
		}
		remember(slot, mask, layer->bias);
	}
	return 0;
}

enum precision slot_precision(const struct slot *slot)
{
	return slot->use & SLOT_BF16 ? PRECISION_BF16 : PRECISION_F32;
}

const struct slot_entry *slot_entry(const struct slot *slot, unsigned layer)
{
	return &slot->entries[layer];
}
