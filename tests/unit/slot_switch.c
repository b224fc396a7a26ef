/* SPDX-License-Identifier: Apache-2.0 */
/* What lies packed after switches is what a new slot would hold, byte for byte. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <malloc.h>
#include <math.h>
#include <stdio.h>
#include <cmocka.h>

#include "fixture/random_vit.h"
#include "mask/slot_internal.h"
#include "onednn/packed_map.h"

#define SEED 20261122

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED true
#else
#define SANITIZED false
#endif

/* Of a ViT's kind, and ragged ones: blocks of 16 and 64 that are not full, a single row. */
static const uint32_t sizes[][2] = { { 192, 64 }, { 64, 256 }, { 5, 7 }, { 96, 33 }, { 100, 70 },
	{ 1, 129 }, { 130, 1 }, { 64, 256 }, { 257, 48 } };

enum { N_LAYERS = ARRAY_SIZE(sizes), N_TENSORS = 2 * N_LAYERS };

struct bench {
	struct onednn *onednn;
	struct mask_layout *layout;
	struct slot_layer layers[N_LAYERS];
	float *values[N_TENSORS];
	uint64_t seed;
};

/* Normal ones, ties between two bf16, ones below the normal, zeros of both signs. */
static float some_value(struct rng *rng)
{
	uint32_t kind = rng_u32(rng) % 16, bits = rng_u32(rng);
	float value = rng_range(rng, -1, 1);

	if (kind == 0)
		bits &= 0x807fffff;
	else if (kind == 1)
		bits &= 0x80000000;
	else if (kind == 2)
		bits = (bits & 0x8fff0000) | 0x30008000;
	else
		return value;
	memcpy(&value, &bits, sizeof(value));
	return value;
}

static int setup(void **state)
{
	struct bench *bench = calloc(1, sizeof(*bench));
	struct rng rng = rng_stream(SEED, 0, 0, 0);
	const char *names[N_TENSORS];
	size_t n[N_TENSORS];

	for (unsigned i = 0; i < N_LAYERS; i++) {
		n[2 * i] = (size_t)sizes[i][0] * sizes[i][1];
		n[2 * i + 1] = sizes[i][0];
	}
	for (unsigned t = 0; t < N_TENSORS; t++) {
		names[t] = "tensor";
		bench->values[t] = malloc(n[t] * sizeof(float));
		for (size_t i = 0; i < n[t]; i++)
			bench->values[t][i] = some_value(&rng);
	}
	for (unsigned i = 0; i < N_LAYERS; i++)
		bench->layers[i] = (struct slot_layer){
			.weight = 2 * i,
			.bias = 2 * i + 1,
			.n_out = sizes[i][0],
			.n_in = sizes[i][1],
			.weight_values = bench->values[2 * i],
			.bias_values = bench->values[2 * i + 1],
		};
	assert_int_equal(onednn_new(&bench->onednn), 0);
	assert_int_equal(mask_layout_new(&bench->layout, N_TENSORS, names, n), 0);
	bench->seed = SEED;
	*state = bench;
	return 0;
}

static int teardown(void **state)
{
	struct bench *bench = *state;

	for (unsigned t = 0; t < N_TENSORS; t++)
		free(bench->values[t]);
	mask_layout_free(bench->layout);
	onednn_free(bench->onednn);
	free(bench);
	return 0;
}

static struct slot *new_slot(const struct bench *bench, enum slot_use use)
{
	struct slot *slot;

	assert_int_equal(
		slot_new(&slot, bench->onednn, bench->layout, bench->layers, N_LAYERS, use), 0);
	return slot;
}

static void assert_same_packed(const struct packed *a, const struct packed *b)
{
	assert_int_equal(!a, !b);
	if (a)
		assert_memory_equal(packed_data(a), packed_data(b), packed_bytes(a));
}

static void assert_same(const struct slot *a, const struct slot *b)
{
	for (unsigned i = 0; i < N_LAYERS; i++) {
		const struct slot_entry *x = slot_entry(a, i), *y = slot_entry(b, i);

		assert_same_packed(x->forward, y->forward);
		assert_same_packed(x->backward, y->backward);
		assert_memory_equal(x->bias, y->bias, sizes[i][0] * sizeof(float));
		if (!x->sums)
			continue;
		assert_memory_equal(x->sums, y->sums, sizes[i][0] * sizeof(*x->sums));
		assert_memory_equal(x->offsets, y->offsets, sizes[i][0] * sizeof(float));
		assert_memory_equal(x->shifts, y->shifts, sizes[i][0] * sizeof(float));
		assert_memory_equal(&x->scale, &y->scale, sizeof(x->scale));
	}
}

/* The next of a sequence: another one, or this one with a few bits more or fewer. */
static struct mask *next_mask(struct bench *bench, const struct mask *mask)
{
	static const float keeps[] = { 1, .998F, .995F, .97F, .95F, .93F, .7F, .02F, -1 };
	struct rng rng = rng_stream(bench->seed++, 3, 0, 0);
	struct mask *next;

	if (rng_u32(&rng) % 3 == 0)
		return random_mask(
			bench->layout, bench->seed, keeps[rng_u32(&rng) % ARRAY_SIZE(keeps)]);
	assert_int_equal(mask_new(&next, bench->layout), 0);
	mask_copy(next, mask);
	for (unsigned i = rng_u32(&rng) % 300; i > 0; i--) {
		unsigned t = rng_u32(&rng) % N_TENSORS;

		mask_put(next, t, rng_u32(&rng) % bench->layout->tensors[t].n, rng_u32(&rng) & 1);
	}
	return next;
}

static void apply_at_rest(struct slot *slot, const struct mask *mask, struct mask *room)
{
	_cleanup_(mask_rest_freep) struct mask_rest *rest = NULL;

	assert_int_equal(mask_rest_new(&rest, mask), 0);
	assert_int_equal(slot_apply_rest(slot, rest, room), 0);
}

/* What the room has of masks before is nobody's. */
static void switches(struct bench *bench, enum slot_use use)
{
	_cleanup_(mask_freep) struct mask *room = random_mask(bench->layout, SEED + 1, .5F);
	_cleanup_(slot_freep) struct slot *slot = NULL;
	const enum precision precision = use & SLOT_INT8   ? PRECISION_INT8
					 : use & SLOT_BF16 ? PRECISION_BF16
							   : PRECISION_F32;
	struct mask *mask = random_mask(bench->layout, SEED, .99F);

	if (!onednn_has(bench->onednn, precision)) {
		mask_free(mask);
		print_message("skipped: no %s here\n", precision_name(precision));
		return;
	}
	slot = new_slot(bench, use);
	for (int i = 0; i < 60; i++) {
		_cleanup_(slot_freep) struct slot *fresh = new_slot(bench, use);
		struct mask *next = next_mask(bench, mask);

		if (i % 5 < 3)
			apply_at_rest(slot, next, room);
		else
			assert_int_equal(slot_apply(slot, next), 0);
		/* Once more changes nothing. */
		if (i % 5 == 1)
			apply_at_rest(slot, next, room);
		if (i % 7 == 6 && !(use & SLOT_INT8))
			assert_int_equal(slot_reload(slot, next), 0);
		assert_int_equal(slot_apply(fresh, next), 0);
		assert_same(slot, fresh);
		mask_free(mask);
		mask = next;
	}
	mask_free(mask);
	assert_int_equal(slot_apply(slot, NULL), 0);
	{
		_cleanup_(slot_freep) struct slot *fresh = new_slot(bench, use);

		assert_same(slot, fresh);
	}
}

static void switched_is_as_fresh_in_f32(void **state)
{
	switches(*state, SLOT_INFER);
	switches(*state, SLOT_LEARN);
}

static void switched_is_as_fresh_in_bf16(void **state)
{
	switches(*state, SLOT_INFER | SLOT_BF16);
	switches(*state, SLOT_LEARN | SLOT_BF16);
}

static void switched_is_as_fresh_in_int8(void **state)
{
	switches(*state, SLOT_INFER | SLOT_INT8);
}

/* One output's weights in steps of the base's largest, said once more. */
static int8_t in_steps(const float *row, uint32_t n, float value)
{
	float largest = 0;

	for (uint32_t i = 0; i < n; i++)
		largest = fabsf(row[i]) > largest ? fabsf(row[i]) : largest;
	return largest > 0 ? (int8_t)lrint((double)value * (double)(127 / largest)) : 0;
}

static void int8_has_the_bases_steps_and_zeros_for_what_is_dropped(void **state)
{
	struct bench *bench = *state;
	_cleanup_(mask_freep) struct mask *mask = random_mask(bench->layout, SEED, .6F);
	_cleanup_(slot_freep) struct slot *slot = NULL;

	if (!onednn_has(bench->onednn, PRECISION_INT8)) {
		print_message("skipped: no int8 here\n");
		return;
	}
	slot = new_slot(bench, SLOT_INFER | SLOT_INT8);
	assert_int_equal(slot_apply(slot, mask), 0);
	for (unsigned i = 0; i < N_LAYERS; i++) {
		const struct slot_layer *layer = &bench->layers[i];
		const struct slot_entry *entry = slot_entry(slot, i);
		const uint32_t n_in = layer->n_in;
		_cleanup_(packed_freep) struct packed *packed = NULL;
		int8_t *values = malloc((size_t)layer->n_out * n_in);

		for (uint32_t o = 0; o < layer->n_out; o++) {
			const float *row = layer->weight_values + (size_t)o * n_in;
			int32_t sum = 0;

			for (uint32_t k = 0; k < n_in; k++) {
				bool kept = mask_get(mask, 2 * i, (size_t)o * n_in + k);
				int8_t value = kept ? in_steps(row, n_in, row[k]) : 0;

				values[(size_t)o * n_in + k] = value;
				sum += value;
			}
			assert_int_equal(entry->sums[o], sum);
		}
		assert_int_equal(packed_new(&packed, bench->onednn, n_in, layer->n_out,
					 PACKED_N_BY_K, PRECISION_INT8),
			0);
		assert_int_equal(packed_write(packed, values), 0);
		assert_same_packed(entry->forward, packed);
		free(values);
	}
}

static void there_is_no_learning_in_int8(void **state)
{
	struct bench *bench = *state;
	struct slot *slot;

	assert_int_equal(slot_new(&slot, bench->onednn, bench->layout, bench->layers, N_LAYERS,
				 SLOT_LEARN | SLOT_INT8),
		-EINVAL);
}

/* A fresh slot takes the same road to its mask; this one is packed whole by oneDNN. */
static void a_turned_tensor_is_what_onednn_packs(void **state)
{
	struct bench *bench = *state;
	_cleanup_(mask_freep) struct mask *mask = random_mask(bench->layout, SEED, .97F);

	for (enum precision p = 0; p <= PRECISION_BF16; p++) {
		_cleanup_(slot_freep) struct slot *slot = NULL;

		if (!onednn_has(bench->onednn, p))
			continue;
		slot = new_slot(bench, slot_use_in(SLOT_LEARN, p));
		assert_int_equal(slot_apply(slot, mask), 0);
		for (unsigned i = 0; i < N_LAYERS; i++) {
			const struct slot_layer *layer = &bench->layers[i];
			size_t n = (size_t)layer->n_out * layer->n_in;
			_cleanup_(packed_freep) struct packed *forward = NULL, *backward = NULL;
			_cleanup_(freep) float *values = malloc(n * sizeof(float));

			for (size_t k = 0; k < n; k++)
				values[k] = mask_get(mask, 2 * i, k) ? layer->weight_values[k] : 0;
			assert_int_equal(packed_new(&forward, bench->onednn, layer->n_in,
						 layer->n_out, PACKED_N_BY_K, p),
				0);
			assert_int_equal(packed_new(&backward, bench->onednn, layer->n_out,
						 layer->n_in, PACKED_K_BY_N, p),
				0);
			assert_int_equal(packed_write(forward, values), 0);
			assert_int_equal(packed_write(backward, values), 0);
			assert_same_packed(slot_entry(slot, i)->forward, forward);
			assert_same_packed(slot_entry(slot, i)->backward, backward);
		}
	}
}

/* What oneDNN has for these must be understood: else every switch packs everything. */
static void a_switch_leaves_the_rest_alone(void **state)
{
	struct bench *bench = *state;
	_cleanup_(slot_freep) struct slot *slot = new_slot(bench, SLOT_INFER);
	_cleanup_(mask_freep) struct mask *mask = NULL;
	const float canary = 12345;
	uint8_t *data;

	if (strncmp(onednn_isa(bench->onednn), "avx", 3) != 0) {
		print_message("skipped: %s\n", onednn_isa(bench->onednn));
		return;
	}
	assert_int_equal(mask_new(&mask, bench->layout), 0);
	for (unsigned i = 0; i < 2; i++) {
		/* The first element is the first of the packed copy as well. */
		data = packed_data(slot_entry(slot, i)->forward);
		assert_memory_equal(data, &bench->values[2 * i][0], sizeof(canary));
		memcpy(data, &canary, sizeof(canary));
		mask_put(mask, 2 * i, 77, false);
		assert_int_equal(slot_apply(slot, mask), 0);
		assert_memory_equal(data, &canary, sizeof(canary));
		memcpy(data, &bench->values[2 * i][0], sizeof(canary));
	}
}

/* ---- memory */

static size_t n_allocations;
void *__real_malloc(size_t n);
void *__wrap_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__real_aligned_alloc(size_t align, size_t n);
void *__wrap_aligned_alloc(size_t align, size_t n);

void *__wrap_malloc(size_t n)
{
	n_allocations++;
	return __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t size)
{
	n_allocations++;
	return __real_calloc(n, size);
}

void *__wrap_aligned_alloc(size_t align, size_t n)
{
	n_allocations++;
	return __real_aligned_alloc(align, n);
}

static void a_switch_allocates_nothing(void **state)
{
	struct bench *bench = *state;
	_cleanup_(slot_freep) struct slot *slot = new_slot(bench, SLOT_LEARN);
	_cleanup_(mask_freep) struct mask *few = random_mask(bench->layout, SEED, .998F);
	_cleanup_(mask_freep) struct mask *many = random_mask(bench->layout, SEED, .5F);
	_cleanup_(mask_freep) struct mask *room = random_mask(bench->layout, SEED, 1);
	_cleanup_(mask_rest_freep) struct mask_rest *rest = NULL;
	size_t before;

	assert_int_equal(mask_rest_new(&rest, few), 0);
	before = n_allocations;
	assert_true(before > 0);
	assert_int_equal(slot_apply(slot, few), 0);
	assert_int_equal(slot_apply(slot, many), 0);
	assert_int_equal(slot_apply_rest(slot, rest, room), 0);
	assert_int_equal(slot_apply(slot, NULL), 0);
	assert_int_equal(n_allocations, before);
}

/* The first weight's bits are not woken for it. */
static void nor_does_one_by_places(void **state)
{
	struct bench *bench = *state;
	_cleanup_(slot_freep) struct slot *slot = new_slot(bench, SLOT_INFER);
	_cleanup_(mask_freep) struct mask *few = random_mask(bench->layout, SEED, .998F);
	_cleanup_(mask_freep) struct mask *other = random_mask(bench->layout, SEED + 1, .998F);
	_cleanup_(mask_freep) struct mask *room = random_mask(bench->layout, SEED, .5F);
	_cleanup_(mask_freep) struct mask *was = random_mask(bench->layout, SEED, .5F);
	_cleanup_(mask_rest_freep) struct mask_rest *first = NULL, *second = NULL;
	const struct mask_tensor *weight = &bench->layout->tensors[0];
	size_t before;

	assert_int_equal(mask_rest_new(&first, few), 0);
	assert_int_equal(mask_rest_new(&second, other), 0);
	before = n_allocations;
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(slot_apply_rest(slot, i % 2 ? second : first, room), 0);
	if (strncmp(onednn_isa(bench->onednn), "avx", 3) == 0)
		assert_memory_equal(room->words + weight->word, was->words + weight->word,
			weight->n / 64 * sizeof(uint64_t));
	assert_int_equal(slot_apply(slot, other), 0);
	assert_int_equal(n_allocations, before);
}

static size_t resident_bytes(void)
{
	FILE *f = fopen("/proc/self/statm", "re");
	size_t n_pages = 0;

	assert_non_null(f);
	assert_int_equal(fscanf(f, "%*s %zu", &n_pages), 1);
	(void)fclose(f);
	return n_pages * (size_t)sysconf(_SC_PAGESIZE);
}

/* A model whose slot is large enough for large pages. */
static void a_thousand_slots_leave_nothing_behind(void **state)
{
	const struct vit_shape shape = {
		.width = 128, .depth = 3, .n_heads = 2, .mlp = 512, .patch = 16, .grid = 4
	};
	enum { WARM = 20, CYCLES = 1000, MB = 1 << 20 };
	struct base *base = random_base(&shape, SEED);
	struct vit *vit = random_vit(base);
	_cleanup_(mask_freep) struct mask *mask = random_mask(vit_layout(vit), SEED, .99F);
	size_t resident = 0, allocated = 0;

	(void)state;
	for (int i = 0; i < (SANITIZED ? WARM + 5 : CYCLES); i++) {
		struct slot *slot;

		if (i == WARM) {
			resident = resident_bytes();
			allocated = mallinfo2().uordblks;
		}
		assert_int_equal(vit_slot_new(&slot, vit, SLOT_LEARN), 0);
		assert_int_equal(slot_apply(slot, mask), 0);
		if (!SANITIZED && i == WARM)
			assert_true(resident_bytes() > resident + 3 * MB);
		slot_free(slot);
	}
	if (!SANITIZED) {
		print_message("%zd bytes resident, %zd allocated more after %d slots\n",
			(ssize_t)(resident_bytes() - resident),
			(ssize_t)(mallinfo2().uordblks - allocated), CYCLES);
		assert_true(resident_bytes() < resident + 2 * MB);
		assert_true(mallinfo2().uordblks < allocated + 65536);
	}
	vit_free(vit);
	base_free(base);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(switched_is_as_fresh_in_f32),
		cmocka_unit_test(switched_is_as_fresh_in_bf16),
		cmocka_unit_test(switched_is_as_fresh_in_int8),
		cmocka_unit_test(int8_has_the_bases_steps_and_zeros_for_what_is_dropped),
		cmocka_unit_test(there_is_no_learning_in_int8),
		cmocka_unit_test(a_turned_tensor_is_what_onednn_packs),
		cmocka_unit_test(a_switch_leaves_the_rest_alone),
		cmocka_unit_test(a_switch_allocates_nothing),
		cmocka_unit_test(nor_does_one_by_places),
		cmocka_unit_test(a_thousand_slots_leave_nothing_behind),
	};

	print_message("seed %d\n", SEED);
	return cmocka_run_group_tests(tests, setup, teardown);
}
