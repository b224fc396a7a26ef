/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "base/arena.h"
#include "mask/flips.h"
#include "mask/quantise.h"
#include "mask/slot_internal.h"
#include "mask/tiles.h"

/* A tensor of which more than one weight in so many changes, with values from the base, is packed
 * anew: measured on ViT-S, where a flip takes 20 ns and packing 1.3 a weight. */
#define FLIP_CROSSOVER 16

/* A chunk of a tensor that a thread masks at a time: whole words. */
#define CHUNK ((size_t)1 << 16)

/* Up to one weight in so many dropped, its value is kept at hand; flips between two such masks are
 * faster than packing, 9 to 18 ns each. */
#define POCKET_SHARE 16

/* Where two masks together drop no more than one weight in so many, going by places is faster than
 * looking for what differs: measured on ViT-S in f32, 2.6 ms beside 6.2 at this share, .65 beside 1.7
 * where they drop one in 250. */
#define PLACES_SHARE 48

/* The mask to come. */
struct coming {
	const struct mask *mask;
	/* NULL: it is awake. Else mask is room, in which a tensor is woken before it is looked at */
	const struct mask_rest *rest;
	struct mask *room;
};

/* What changes a layer in place; NULL where the layout is not understood. */
struct turn {
	const struct packed_map *forward, *backward;
	struct pocket pocket;
	bool tiles; /* the copy is of tiles: mask/tiles.h */
};

struct slot {
	struct slot_layer *layers;
	struct slot_entry *entries;
	struct turn *turns;       /* (n_layers) borrow from maps */
	struct packed_map **maps; /* (n_maps) one a shape and direction */
	unsigned n_layers, n_maps;
	enum slot_use use;
	struct arena *arena; /* of everything packed */
	struct mask *mask;   /* now applied */
	struct mask *blank;  /* all kept, for slot_apply(NULL) */
	bool *stale;         /* (n_tensors) to be rewritten whatever the masks say */
	bool *untold;        /* (n_tensors) mask does not say it, but its pocket's places */
	float *scratch;      /* of the largest weight */
	int8_t *rounded;     /* int8 only, likewise */
	size_t n_bytes;
	kern_mask_row_fn *mask_row;
	const struct kern_tiles_impl *tiles;
};

static enum precision precision_of(enum slot_use use)
{
	return use & SLOT_INT8 ? PRECISION_INT8 : use & SLOT_BF16 ? PRECISION_BF16 : PRECISION_F32;
}

static int steps_init(struct slot_entry *entry, const struct slot_layer *layer)
{
	entry->steps = calloc(layer->n_out, sizeof(*entry->steps));
	entry->inverses = calloc(layer->n_out, sizeof(*entry->inverses));
	entry->sums = calloc(layer->n_out, sizeof(*entry->sums));
	entry->offsets = calloc(layer->n_out, sizeof(*entry->offsets));
	entry->shifts = calloc(layer->n_out, sizeof(*entry->shifts));
	if (!entry->steps || !entry->inverses || !entry->sums || !entry->offsets || !entry->shifts)
		return -ENOMEM;
#pragma omp parallel for schedule(static)
	for (uint32_t o = 0; o < layer->n_out; o++) {
		entry->inverses[o] = quantise_inverse(
			layer->weight_values + (size_t)o * layer->n_in, layer->n_in);
		entry->steps[o] = quantise_step(entry->inverses[o]);
	}
	return 0;
}

static int entry_init(struct slot_entry *entry, struct onednn *onednn,
	const struct slot_layer *layer, enum slot_use use)
{
	const enum precision precision = precision_of(use);
	int r = 0;

	entry->bias = calloc(layer->n_out, sizeof(float));
	if (!entry->bias)
		return -ENOMEM;
	if (precision == PRECISION_INT8)
		r = steps_init(entry, layer);
	if (r < 0)
		return r;
	r = packed_new(
		&entry->forward, onednn, layer->n_in, layer->n_out, PACKED_N_BY_K, precision);
	if (r < 0 || !(use & SLOT_LEARN))
		return r;
	return packed_new(
		&entry->backward, onednn, layer->n_out, layer->n_in, PACKED_K_BY_N, precision);
}

static size_t room_for(const struct packed *packed)
{
	return packed ? arena_round(packed_bytes(packed)) : 0;
}

static int place(struct slot *slot, struct packed *packed)
{
	return packed ? packed_place(packed, arena_take(slot->arena, packed_bytes(packed))) : 0;
}

/* One mapping for all of them: large pages fit, and freeing gives it back whole. */
static int entries_place(struct slot *slot)
{
	size_t n_bytes = 0;
	int r;

	for (unsigned i = 0; i < slot->n_layers; i++)
		n_bytes += room_for(slot->entries[i].forward) + room_for(slot->entries[i].backward);
	r = arena_new_huge(&slot->arena, n_bytes);
	slot->n_bytes += n_bytes;
	for (unsigned i = 0; i < slot->n_layers && r == 0; i++) {
		r = place(slot, slot->entries[i].forward);
		if (r == 0)
			r = place(slot, slot->entries[i].backward);
	}
	return r;
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
	slot->n_bytes += n_max * sizeof(float);
	if (slot->use & SLOT_INT8) {
		slot->rounded = malloc(n_max ? n_max : 1);
		slot->n_bytes += n_max;
		if (!slot->rounded)
			return -ENOMEM;
	}
	return slot->scratch ? entries_place(slot) : -ENOMEM;
}

/* A layout that is not understood is no error: then there is no map. */
static int map_for(struct slot *slot, struct packed *packed, const struct packed_map **ret_map)
{
	int r;

	if (!packed)
		return 0;
	r = packed_map_new(&slot->maps[slot->n_maps], packed);
	if (r < 0)
		return r == -EOPNOTSUPP ? 0 : r;
	*ret_map = slot->maps[slot->n_maps++];
	return 0;
}

/* Of what is turned place by place: no mask drops more. */
static int places_init(struct slot *slot, struct turn *turn)
{
	const size_t n = (size_t)turn->forward->n_rows * turn->forward->n_columns;
	const size_t share = turn->tiles ? slot->tiles->share : PLACES_SHARE;
	const size_t n_bytes = (n / share + 1) * sizeof(*turn->pocket.places);

	turn->pocket.places = malloc(n_bytes);
	slot->n_bytes += n_bytes;
	return turn->pocket.places ? 0 : -ENOMEM;
}

static int turn_init(struct slot *slot, unsigned i)
{
	const struct slot_layer *layer = &slot->layers[i];
	const size_t room = (size_t)layer->n_out * layer->n_in / POCKET_SHARE;
	struct turn *turn = &slot->turns[i];
	unsigned same = 0;
	int r;

	r = pocket_init(&turn->pocket, room, slot_precision(slot));
	slot->n_bytes += 2 * room * precision_bytes(slot_precision(slot)) +
			 layer->n_out * sizeof(float) * (slot->use & SLOT_INT8 ? 6 : 1);
	if (r < 0)
		return r;
	while (slot->layers[same].n_out != layer->n_out || slot->layers[same].n_in != layer->n_in)
		same++;
	turn->forward = slot->turns[same].forward;
	turn->backward = slot->turns[same].backward;
	if (same == i)
		r = map_for(slot, slot->entries[i].forward, &turn->forward);
	if (same == i && r == 0)
		r = map_for(slot, slot->entries[i].backward, &turn->backward);
	/* int8 has sums to correct. */
	if (r < 0 || slot->entries[i].backward || !turn->forward || (slot->use & SLOT_INT8))
		return r;
	turn->tiles = tiles_fit(turn->forward);
	return places_init(slot, turn);
}

static int turns_init(struct slot *slot)
{
	int r = 0;

	for (unsigned i = 0; i < slot->n_layers && r == 0; i++)
		r = turn_init(slot, i);
	return r;
}

int slot_new(struct slot **ret_slot, struct onednn *onednn, const struct mask_layout *layout,
	const struct slot_layer *layers, unsigned n_layers, enum slot_use use)
{
	_cleanup_(slot_freep) struct slot *slot = calloc(1, sizeof(*slot));
	int r;

	if (!slot)
		return -ENOMEM;
	/* There are no gradients through steps. */
	if ((use & SLOT_INT8) && (use & (SLOT_LEARN | SLOT_BF16)))
		return -EINVAL;
	slot->use = use;
	slot->mask_row = kern_mask_row();
	slot->tiles = kern_tiles_fastest();
	slot->layers = calloc(n_layers + 1, sizeof(*slot->layers));
	slot->entries = calloc(n_layers + 1, sizeof(*slot->entries));
	slot->turns = calloc(n_layers + 1, sizeof(*slot->turns));
	slot->maps = calloc(2 * n_layers + 1, sizeof(struct packed_map *));
	slot->stale = malloc(layout->n_tensors + 1);
	slot->untold = calloc(layout->n_tensors + 1, sizeof(*slot->untold));
	if (!slot->layers || !slot->entries || !slot->turns || !slot->maps || !slot->stale ||
		!slot->untold)
		return -ENOMEM;
	slot->n_layers = n_layers;
	memcpy(slot->layers, layers, n_layers * sizeof(*layers));
	memset(slot->stale, true, layout->n_tensors);
	slot->n_bytes = 2 * layout->n_words * sizeof(uint64_t);
	r = mask_new(&slot->mask, layout);
	if (r == 0)
		r = mask_new(&slot->blank, layout);
	if (r == 0)
		r = entries_init(slot, onednn);
	if (r == 0)
		r = turns_init(slot);
	if (r == 0)
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
		free(slot->entries[i].steps);
		free(slot->entries[i].inverses);
		free(slot->entries[i].sums);
		free(slot->entries[i].offsets);
		free(slot->entries[i].shifts);
		pocket_done(&slot->turns[i].pocket);
	}
	for (unsigned i = 0; i < slot->n_maps; i++)
		packed_map_free(slot->maps[i]);
	free(slot->layers);
	free(slot->entries);
	free(slot->turns);
	free(slot->maps);
	free(slot->stale);
	free(slot->untold);
	mask_free(slot->mask);
	mask_free(slot->blank);
	free(slot->scratch);
	free(slot->rounded);
	arena_free(slot->arena);
	free(slot);
}

static size_t tensor_words(const struct mask_layout *layout, unsigned tensor)
{
	return (layout->tensors[tensor].n + 63) / 64;
}

/* Whether the slot's tensor is not what the mask asks for, as far as its bits are told. */
static bool differs(const struct slot *slot, const struct mask *mask, unsigned tensor)
{
	size_t word = mask->layout->tensors[tensor].word;

	return slot->stale[tensor] || slot->untold[tensor] ||
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
	slot->untold[tensor] = false;
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
	entry->scale = 1 / mask_alpha(mask, layer->weight);
	remember(slot, mask, layer->bias);
}

/* ---- in place */

/* Where no value comes from the base it is always faster than packing: see POCKET_SHARE. Else as many
 * differ at most as both drop; to count them exactly takes a look at every word. */
static bool few_differ(const struct slot *slot, const struct pocket *pocket,
	const struct mask *mask, unsigned tensor)
{
	const struct mask_tensor *t = &mask->layout->tensors[tensor];
	size_t most = 2 * t->n - slot->mask->n_on[tensor] - mask->n_on[tensor];

	return (pocket->valid && t->n - mask->n_on[tensor] <= pocket->room) ||
	       most <= t->n / FLIP_CROSSOVER ||
	       flips_count(&slot->mask->words[t->word], &mask->words[t->word],
		       tensor_words(mask->layout, tensor)) <= t->n / FLIP_CROSSOVER;
}

static struct tile_job tile_job(const struct slot *slot, unsigned i, const struct mask *mask)
{
	const unsigned weight = slot->layers[i].weight;
	const struct mask_tensor *tensor = &mask->layout->tensors[weight];
	struct turn *turn = &slot->turns[i];

	return (struct tile_job){
		.data = packed_data(slot->entries[i].forward),
		.map = turn->forward,
		.pocket = &turn->pocket,
		.now = &slot->mask->words[tensor->word],
		.next = &mask->words[tensor->word],
		.blank = &slot->blank->words[tensor->word],
		.n_dropped = (uint32_t)(tensor->n - mask->n_on[weight]),
	};
}

static void write_tiles(
	struct slot *slot, unsigned i, const struct mask *mask, const struct tile_job *job)
{
	const unsigned weight = slot->layers[i].weight;

	tiles_write(job, slot->tiles);
	slot->mask->n_on[weight] = mask->n_on[weight];
	slot->untold[weight] = !job->pocket->in_order;
}

/* False: what it drops is not at hand. */
static bool turn_tiles(struct slot *slot, unsigned i, const struct mask *mask)
{
	const struct tile_job job = tile_job(slot, i, mask);

	if (!job.pocket->valid)
		return false;
	write_tiles(slot, i, mask, &job);
	return true;
}

static struct places places_of(const struct slot *slot, unsigned i)
{
	struct turn *turn = &slot->turns[i];

	return (struct places){ packed_data(slot->entries[i].forward), turn->forward,
		&turn->pocket };
}

/* Of a copy that is not of tiles; false: too many, or the mask has words. */
static bool turn_places(struct slot *slot, unsigned i, const struct coming *coming)
{
	const unsigned weight = slot->layers[i].weight;
	const struct mask_tensor *tensor = &coming->mask->layout->tensors[weight];
	const size_t n_next = tensor->n - coming->mask->n_on[weight];
	const struct places places = places_of(slot, i);
	struct pocket *pocket = places.pocket;
	struct mask_gaps gaps;

	if ((tensor->n - slot->mask->n_on[weight] + n_next) * PLACES_SHARE > tensor->n ||
		!mask_rest_gaps(&gaps, coming->rest, coming->mask->layout, weight))
		return false;
	if (!slot->untold[weight])
		places_find(&places, &slot->mask->words[tensor->word]);
	else if (pocket->n == n_next && places_are(&places, &gaps))
		return true;
	places_put_back(&places);
	places_take(&places, &gaps);
	slot->mask->n_on[weight] = coming->mask->n_on[weight];
	slot->untold[weight] = true;
	return true;
}

/* From places to the mask that drops nothing, as its bits then say. */
static void leave_places(struct slot *slot, unsigned i)
{
	const unsigned weight = slot->layers[i].weight;
	const struct places places = places_of(slot, i);

	if (!slot->untold[weight])
		return;
	places_put_back(&places);
	remember(slot, slot->blank, weight);
}

/* By what the mask drops alone; false: it must be woken. */
static bool turn_by_gaps(struct slot *slot, unsigned i, const struct coming *coming)
{
	const unsigned weight = slot->layers[i].weight;
	const struct turn *turn = &slot->turns[i];
	struct mask_gaps gaps;
	struct tile_job job;

	if (slot->stale[weight] || !turn->pocket.places || !turn->pocket.valid)
		return false;
	if (!turn->tiles)
		return turn_places(slot, i, coming);
	job = tile_job(slot, i, coming->mask);
	if (!tiles_are_few(&job, slot->tiles) ||
		!mask_rest_gaps(&gaps, coming->rest, coming->mask->layout, weight))
		return false;
	job.gaps = &gaps;
	write_tiles(slot, i, coming->mask, &job);
	return true;
}

/* False: it is to be written whole. */
static bool turn_weight(struct slot *slot, unsigned i, const struct mask *mask)
{
	const struct slot_layer *layer = &slot->layers[i];
	const struct slot_entry *entry = &slot->entries[i];
	const struct mask_tensor *tensor = &mask->layout->tensors[layer->weight];
	struct turn *turn = &slot->turns[i];

	if (slot->stale[layer->weight] || !turn->forward || (entry->backward && !turn->backward))
		return false;
	if (turn->tiles && tensor->n - mask->n_on[layer->weight] <= turn->pocket.room)
		return turn_tiles(slot, i, mask);
	if (turn->tiles)
		turn->pocket.valid = false;
	else
		leave_places(slot, i);
	if (slot->untold[layer->weight] || !few_differ(slot, &turn->pocket, mask, layer->weight))
		return false;
	flips_write(&(struct flip_job){
		.targets = { { packed_data(entry->forward), turn->forward },
			{ entry->backward ? packed_data(entry->backward) : NULL, turn->backward } },
		.n_targets = entry->backward ? 2 : 1,
		.values = layer->weight_values,
		.inverses = entry->inverses,
		.sums = entry->sums,
		.pocket = &turn->pocket,
		.now = &slot->mask->words[tensor->word],
		.next = &mask->words[tensor->word],
		.n = tensor->n,
		.n_dropped = tensor->n - mask->n_on[layer->weight],
		.n_flips =
			2 * tensor->n - mask->n_on[layer->weight] - slot->mask->n_on[layer->weight],
	});
	slot->mask->n_on[layer->weight] = mask->n_on[layer->weight];
	return true;
}

/* Of a layer whose weight and bias are the mask's. */
static void tell_worth(const struct slot *slot, unsigned i)
{
	struct slot_entry *entry = &slot->entries[i];

	for (uint32_t o = 0; o < slot->layers[i].n_out; o++) {
		entry->offsets[o] = (float)entry->sums[o] * entry->steps[o];
		entry->shifts[o] = entry->bias[o] * entry->scale;
	}
}

static void turn_layer(struct slot *slot, unsigned i, const struct coming *coming)
{
	const struct slot_layer *layer = &slot->layers[i];
	const struct mask *mask = coming->mask;

	if (coming->rest) {
		mask_rest_wake_tensor(coming->rest, coming->room, layer->bias);
		coming->room->n_on[layer->weight] = mask_rest_n_on(coming->rest, layer->weight);
	}
	/* The weight's density is part of the bias as well. */
	if (slot->stale[layer->weight] || differs(slot, mask, layer->bias) ||
		slot->mask->n_on[layer->weight] != mask->n_on[layer->weight])
		write_bias(slot, i, mask);
	if (coming->rest && turn_by_gaps(slot, i, coming))
		return;
	if (coming->rest)
		mask_rest_wake_tensor(coming->rest, coming->room, layer->weight);
	if (differs(slot, mask, layer->weight) && !turn_weight(slot, i, mask))
		slot->stale[layer->weight] = true;
	else if (slot->use & SLOT_INT8)
		tell_worth(slot, i);
}

/* ---- whole */

static void mask_values(struct slot *slot, const float *values, const uint64_t *words, size_t n)
{
#pragma omp parallel for schedule(static)
	for (size_t at = 0; at < n; at += CHUNK)
		slot->mask_row(slot->scratch + at, values + at, words + at / 64,
			n - at < CHUNK ? n - at : CHUNK);
}

static int write_weight(struct slot *slot, unsigned i, const struct mask *mask)
{
	const struct slot_layer *layer = &slot->layers[i];
	const struct mask_tensor *tensor = &mask->layout->tensors[layer->weight];
	struct slot_entry *entry = &slot->entries[i];
	const float *floats = layer->weight_values;
	const void *values = floats;
	/* What the mask drops is then taken from the copy, into the pocket. */
	const bool from_copy = slot->turns[i].tiles &&
			       tensor->n - mask->n_on[layer->weight] <= slot->turns[i].pocket.room;
	int r;

	if (mask->n_on[layer->weight] < tensor->n && !from_copy) {
		mask_values(slot, floats, &mask->words[tensor->word], tensor->n);
		values = floats = slot->scratch;
	}
	if (entry->sums) {
		quantise_rows(slot->rounded, floats, entry->inverses, entry->sums, layer->n_out,
			layer->n_in);
		values = slot->rounded;
		tell_worth(slot, i);
	}
	r = packed_write(entry->forward, values);
	if (r == 0 && entry->backward)
		r = packed_write(entry->backward, values);
	if (r < 0)
		return r;
	remember(slot, from_copy ? slot->blank : mask, layer->weight);
	slot->turns[i].pocket.valid = from_copy || mask->n_on[layer->weight] == tensor->n;
	slot->turns[i].pocket.n = 0;
	if (from_copy)
		(void)turn_tiles(slot, i, mask);
	return 0;
}

static int apply(struct slot *slot, const struct coming *coming)
{
	int r = 0;

#pragma omp parallel for schedule(dynamic)
	for (unsigned i = 0; i < slot->n_layers; i++)
		turn_layer(slot, i, coming);
	/* What failed stays stale: it is neither mask's. oneDNN's own threads pack. */
	for (unsigned i = 0; i < slot->n_layers && r == 0; i++)
		if (slot->stale[slot->layers[i].weight])
			r = write_weight(slot, i, coming->mask);
	return r;
}

int slot_apply(struct slot *slot, const struct mask *mask)
{
	return apply(slot, &(struct coming){ .mask = mask ? mask : slot->blank });
}

int slot_apply_rest(struct slot *slot, const struct mask_rest *rest, struct mask *room)
{
	return apply(slot, &(struct coming){ .mask = room, .rest = rest, .room = room });
}

int slot_reload(struct slot *slot, const struct mask *mask)
{
	if (slot->use & SLOT_INT8)
		return -EINVAL;
	memset(slot->stale, true, slot->blank->layout->n_tensors);
	return slot_apply(slot, mask);
}

size_t slot_bytes(const struct slot *slot)
{
	return slot->n_bytes;
}

enum precision slot_precision(const struct slot *slot)
{
	return precision_of(slot->use);
}

const struct slot_entry *slot_entry(const struct slot *slot, unsigned layer)
{
	return &slot->entries[layer];
}
