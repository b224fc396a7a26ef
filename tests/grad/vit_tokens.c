/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <math.h>
#include <cmocka.h>

#include "fixture/random_vit.h"
#include "model/vit.h"
#include "model/vit_internal.h"

/*
 * The tape where not every patch enters as it is, or not the class token alone leaves: outputs against
 * the plain C twin in double, gradients of a weighted sum of the outputs against its central
 * differences, along random directions of each tensor and of what enters the first block.
 */
#define SEED 2306
#define TOLERANCE 2e-5 /* of the gradient's norm */
#define STEP 1e-4
#define ENTRY_STEP 1e-5 /* the entry is small, and the first norm bends */
#define KEEP .85F

enum { BATCH = 3, PX = 24, WIDTH = 24, N_PATCHES = 9, N_KEPT = 4, MAX_TOKENS = 1 + N_PATCHES };

static const struct vit_shape shape = {
	.width = WIDTH,
	.depth = 3,
	.n_heads = 3,
	.mlp = 40,
	.patch = 8,
	.grid = 4,
};

struct model {
	struct base *base;
	struct vit *vit;
	struct slot *slot;
	struct mask *mask;
	float pixels[BATCH * 3 * PX * PX];
	float weight[BATCH * MAX_TOKENS * WIDTH]; /* of the outputs in the loss */
	uint32_t kept[BATCH * N_KEPT];
	bool replaced[BATCH * N_PATCHES];
	float vector[WIDTH];
};

static int setup(void **state)
{
	struct model *model = calloc(1, sizeof(*model));
	struct rng rng = rng_stream(SEED, 0, 0, 0);

	model->base = random_base(&shape, SEED);
	model->vit = random_vit(model->base);
	model->mask = random_mask(vit_layout(model->vit), SEED, KEEP);
	random_pixels(model->pixels, ARRAY_SIZE(model->pixels), SEED);
	random_pixels(model->weight, ARRAY_SIZE(model->weight), SEED + 1);
	random_pixels(model->vector, ARRAY_SIZE(model->vector), SEED + 2);
	for (int i = 0; i < BATCH; i++) {
		uint32_t order[N_PATCHES];

		rng_permutation(&rng, order, N_PATCHES);
		memcpy(model->kept + i * N_KEPT, order, N_KEPT * sizeof(*order));
	}
	for (int i = 0; i < BATCH * N_PATCHES; i++)
		model->replaced[i] = rng_below(&rng, 2);
	assert_int_equal(vit_slot_new(&model->slot, model->vit, SLOT_LEARN), 0);
	assert_int_equal(slot_apply(model->slot, model->mask), 0);
	*state = model;
	return 0;
}

static int teardown(void **state)
{
	struct model *model = *state;

	slot_free(model->slot);
	mask_free(model->mask);
	vit_free(model->vit);
	base_free(model->base);
	free(model);
	return 0;
}

/* Which of the tape's ways a case takes. */
struct way {
	const char *name;
	bool kept, replaced, all_out, tokens;
};

static const struct way ways[] = {
	{ "all, class token", false, false, false, false },
	{ "all, all out", false, false, true, false },
	{ "kept", true, false, false, false },
	{ "kept, all out", true, false, true, false },
	{ "replaced", false, true, false, false },
	{ "replaced, all out", false, true, true, false },
	{ "kept and replaced", true, true, true, false },
	{ "tokens", false, false, false, true },
	{ "tokens, all out", false, false, true, true },
};

static struct vit_tape_options options_of(const struct way *way, enum precision precision)
{
	return (struct vit_tape_options){
		.batch = BATCH,
		.px = way->tokens ? 0 : PX,
		.n_tokens = way->tokens ? MAX_TOKENS : 0,
		.precision = precision,
		.n_kept = way->kept ? N_KEPT : 0,
		.all_out = way->all_out,
	};
}

/* The twin's entry of one image: (T', D). @return T' */
static uint32_t enter(const struct model *model, const struct way *way, int image, double *tokens)
{
	double all[MAX_TOKENS * WIDTH];
	float positions[MAX_TOKENS * WIDTH];
	uint32_t n;

	assert_int_equal(vit_reference_enter(model->vit,
				 model->pixels + (size_t)image * 3 * PX * PX, PX, all, &n),
		0);
	vit_positions(model->vit, PX / shape.patch, positions);
	for (int t = 0; way->replaced && t < N_PATCHES; t++)
		for (int d = 0; model->replaced[image * N_PATCHES + t] && d < WIDTH; d++)
			all[(1 + t) * WIDTH + d] =
				(double)model->vector[d] + positions[(1 + t) * WIDTH + d];
	if (!way->kept) {
		memcpy(tokens, all, sizeof(all));
		return n;
	}
	memcpy(tokens, all, WIDTH * sizeof(*all));
	for (uint32_t t = 0; t < N_KEPT; t++)
		memcpy(tokens + (1 + t) * WIDTH,
			all + (1 + model->kept[image * N_KEPT + t]) * WIDTH, WIDTH * sizeof(*all));
	return 1 + N_KEPT;
}

/* Entries with `step` times direction (BATCH, T', D) on top, through the twin: out like the tape's. */
static void run_twin(const struct model *model, const struct way *way,
	const struct vit_nudge *nudge, const float *direction, double step, double *out)
{
	for (int i = 0; i < BATCH; i++) {
		double tokens[MAX_TOKENS * WIDTH];
		uint32_t n = enter(model, way, i, tokens), n_out = way->all_out ? n : 1;

		for (uint32_t j = 0; direction && j < n * WIDTH; j++)
			tokens[j] += step * direction[i * n * WIDTH + j];
		assert_int_equal(vit_reference_run(model->vit, model->mask, nudge, tokens, n), 0);
		memcpy(out + i * n_out * WIDTH, tokens, n_out * WIDTH * sizeof(*out));
	}
}

static size_t n_out(const struct way *way)
{
	size_t n_tokens = way->kept ? 1 + N_KEPT : MAX_TOKENS;

	return BATCH * (way->all_out ? n_tokens : 1) * WIDTH;
}

static size_t n_entry(const struct way *way)
{
	return (size_t)BATCH * (way->kept ? 1 + N_KEPT : MAX_TOKENS) * WIDTH;
}

static double loss(const struct model *model, const struct way *way, const struct vit_nudge *nudge,
	const float *direction, double step)
{
	double out[BATCH * MAX_TOKENS * WIDTH], sum = 0;

	run_twin(model, way, nudge, direction, step, out);
	for (size_t i = 0; i < n_out(way); i++)
		sum += out[i] * model->weight[i];
	return sum;
}

static void fill(const struct model *model, const struct way *way, struct vit_tape *tape)
{
	double tokens[MAX_TOKENS * WIDTH];

	if (way->tokens)
		for (int i = 0; i < BATCH; i++) {
			enter(model, way, i, tokens);
			for (int j = 0; j < MAX_TOKENS * WIDTH; j++)
				vit_tape_input(tape)[i * MAX_TOKENS * WIDTH + j] = (float)tokens[j];
		}
	else
		memcpy(vit_tape_input(tape), model->pixels, sizeof(model->pixels));
	if (way->kept)
		memcpy(vit_tape_kept(tape), model->kept, sizeof(model->kept));
	if (way->replaced)
		vit_tape_replace(tape, model->replaced, model->vector);
}

static void open_tape(struct vit_tape **ret_tape, const struct model *model, const struct way *way,
	const struct vit_tape_options *options)
{
	assert_int_equal(vit_tape_open(ret_tape, model->vit, options), 0);
	assert_int_equal(vit_tape_n_tokens(*ret_tape), way->kept ? 1 + N_KEPT : MAX_TOKENS);
	fill(model, way, *ret_tape);
}

static void every_way_gives_what_the_twin_gives(void **state)
{
	const struct model *model = *state;

	for (size_t w = 0; w < ARRAY_SIZE(ways); w++) {
		struct vit_tape_options options = options_of(&ways[w], PRECISION_F32);
		_cleanup_(vit_tape_freep) struct vit_tape *tape = NULL, *short_one = NULL;
		float out[BATCH * MAX_TOKENS * WIDTH], again[ARRAY_SIZE(out)],
			want[ARRAY_SIZE(out)];
		double twin[ARRAY_SIZE(out)];

		open_tape(&tape, model, &ways[w], &options);
		assert_int_equal(vit_tape_forward(tape, model->slot, out), 0);
		run_twin(model, &ways[w], NULL, NULL, 0, twin);
		for (size_t i = 0; i < n_out(&ways[w]); i++)
			want[i] = (float)twin[i];
		if (!(relative_difference(out, want, n_out(&ways[w])) <= 1e-5))
			fail_msg("%s: differs by %g", ways[w].name,
				relative_difference(out, want, n_out(&ways[w])));
		/* And what keeps nothing for the way back, in less memory. */
		options.forward_only = true;
		open_tape(&short_one, model, &ways[w], &options);
		assert_int_equal(vit_tape_forward(short_one, model->slot, again), 0);
		assert_memory_equal(again, out, n_out(&ways[w]) * sizeof(*out));
	}
}

static void assert_close(const char *way, const char *what, double got, double want, double norm)
{
	if (!(norm > 0 && fabs(got - want) <= TOLERANCE * norm))
		fail_msg("%s, %s: %.8g, differences say %.8g, norm %.3g", way, what, got, want,
			norm);
}

static double along(const float *grad, const float *direction, size_t n, double *ret_norm)
{
	double sum = 0, norm = 0;

	for (size_t i = 0; i < n; i++) {
		sum += (double)grad[i] * direction[i];
		norm += (double)grad[i] * grad[i];
	}
	*ret_norm = sqrt(norm);
	return sum;
}

static void check_tensors(
	const struct model *model, const struct way *way, const float *grad, float *direction)
{
	const struct mask_layout *layout = vit_layout(model->vit);

	for (unsigned t = 0; t < layout->n_tensors; t++) {
		const struct mask_tensor *tensor = &layout->tensors[t];
		struct vit_nudge nudge = { .tensor = t, .direction = direction, .step = STEP };
		struct rng rng = rng_stream(SEED, t, 0, 3);
		double got, norm, above;

		for (size_t i = 0; i < tensor->n; i++)
			direction[i] = rng_normal(&rng);
		got = along(grad + tensor->offset, direction, tensor->n, &norm);
		above = loss(model, way, &nudge, NULL, 0);
		nudge.step = -STEP;
		assert_close(way->name, tensor->name, got,
			(above - loss(model, way, &nudge, NULL, 0)) / (2 * STEP), norm);
	}
}

static void check_entry(
	const struct model *model, const struct way *way, const float *d_entry, float *direction)
{
	struct rng rng = rng_stream(SEED, 0, 0, 4);
	double got, norm, above;

	for (size_t i = 0; i < n_entry(way); i++)
		direction[i] = rng_normal(&rng);
	got = along(d_entry, direction, n_entry(way), &norm);
	above = loss(model, way, NULL, direction, ENTRY_STEP);
	assert_close(way->name, "entry", got,
		(above - loss(model, way, NULL, direction, -ENTRY_STEP)) / (2 * ENTRY_STEP), norm);
}

static void every_way_agrees_with_differences_down_to_its_entry(void **state)
{
	const struct model *model = *state;
	const size_t n = vit_layout(model->vit)->n_elements;
	_cleanup_(freep) float *grad = calloc(n, sizeof(*grad));
	_cleanup_(freep) float *direction = calloc(n, sizeof(*direction));

	for (size_t w = 0; w < ARRAY_SIZE(ways); w++) {
		const struct vit_tape_options options = options_of(&ways[w], PRECISION_F32);
		_cleanup_(vit_tape_freep) struct vit_tape *tape = NULL;
		float out[BATCH * MAX_TOKENS * WIDTH], d_entry[ARRAY_SIZE(out)];

		open_tape(&tape, model, &ways[w], &options);
		assert_int_equal(vit_tape_forward(tape, model->slot, out), 0);
		memset(grad, 0, n * sizeof(*grad));
		assert_int_equal(
			vit_tape_backward(tape, model->slot, model->weight, grad, d_entry), 0);
		check_tensors(model, &ways[w], grad, direction);
		check_entry(model, &ways[w], d_entry, direction);
	}
}

static void the_entry_is_reached_wherever_gradients_end(void **state)
{
	const struct model *model = *state;
	const struct mask_layout *layout = vit_layout(model->vit);
	const size_t n = layout->n_elements, above = layout->tensors[layout->n_tensors / 3].offset;
	_cleanup_(freep) float *whole = calloc(n, sizeof(*whole));
	_cleanup_(freep) float *grad = calloc(n, sizeof(*grad));

	for (size_t w = 0; w < ARRAY_SIZE(ways); w++) {
		const struct vit_tape_options options = options_of(&ways[w], PRECISION_F32);
		_cleanup_(vit_tape_freep) struct vit_tape *tape = NULL;
		float out[BATCH * MAX_TOKENS * WIDTH], d_entry[2][ARRAY_SIZE(out)];

		open_tape(&tape, model, &ways[w], &options);
		memset(whole, 0, n * sizeof(*whole));
		memset(grad, 0, n * sizeof(*grad));
		assert_int_equal(vit_tape_forward(tape, model->slot, out), 0);
		assert_int_equal(
			vit_tape_backward(tape, model->slot, model->weight, whole, d_entry[0]), 0);
		vit_tape_end_at(tape, 1);
		assert_int_equal(vit_tape_forward(tape, model->slot, out), 0);
		assert_int_equal(
			vit_tape_backward(tape, model->slot, model->weight, grad, d_entry[1]), 0);
		assert_memory_equal(d_entry[0], d_entry[1], n_entry(&ways[w]) * sizeof(float));
		for (size_t i = 0; i < above; i++)
			assert_true(grad[i] == 0);
		assert_memory_equal(grad + above, whole + above, (n - above) * sizeof(*grad));
	}
}

static double cosine(const float *a, const float *b, size_t n)
{
	double ab = 0, aa = 0, bb = 0;

	for (size_t i = 0; i < n; i++) {
		ab += (double)a[i] * b[i];
		aa += (double)a[i] * a[i];
		bb += (double)b[i] * b[i];
	}
	return ab / sqrt(aa * bb);
}

/* Forward and back: out, gradients and entry of one way in one precision. */
static void run_way(const struct model *model, const struct way *way, const struct slot *slot,
	enum precision precision, float *out, float *grad, float *d_entry)
{
	const struct vit_tape_options options = options_of(way, precision);
	_cleanup_(vit_tape_freep) struct vit_tape *tape = NULL;

	open_tape(&tape, model, way, &options);
	assert_int_equal(vit_tape_forward(tape, slot, out), 0);
	memset(grad, 0, vit_layout(model->vit)->n_elements * sizeof(*grad));
	assert_int_equal(vit_tape_backward(tape, slot, model->weight, grad, d_entry), 0);
}

static void bf16_points_where_f32_does(void **state)
{
	const struct model *model = *state;
	const size_t n = vit_layout(model->vit)->n_elements;
	_cleanup_(freep) float *grad = NULL, *rounded = NULL;
	_cleanup_(slot_freep) struct slot *slot = NULL;

	if (!vit_has(model->vit, PRECISION_BF16))
		skip();
	grad = calloc(n, sizeof(*grad));
	rounded = calloc(n, sizeof(*rounded));
	assert_int_equal(vit_slot_new(&slot, model->vit, SLOT_LEARN | SLOT_BF16), 0);
	assert_int_equal(slot_apply(slot, model->mask), 0);
	for (size_t w = 0; w < ARRAY_SIZE(ways); w++) {
		float out[2][BATCH * MAX_TOKENS * WIDTH], entry[2][BATCH * MAX_TOKENS * WIDTH];

		run_way(model, &ways[w], model->slot, PRECISION_F32, out[0], grad, entry[0]);
		run_way(model, &ways[w], slot, PRECISION_BF16, out[1], rounded, entry[1]);
		assert_true(relative_difference(out[1], out[0], n_out(&ways[w])) <= 2e-2);
		assert_true(cosine(grad, rounded, n) >= .999);
		assert_true(cosine(entry[0], entry[1], n_entry(&ways[w])) >= .999);
	}
}

static void all_patches_in_their_order_are_no_subset(void **state)
{
	const struct model *model = *state;
	struct vit_tape_options options = options_of(&ways[1], PRECISION_F32);
	_cleanup_(vit_tape_freep) struct vit_tape *all = NULL, *kept = NULL;
	float want[BATCH * MAX_TOKENS * WIDTH], got[ARRAY_SIZE(want)];

	open_tape(&all, model, &ways[1], &options);
	assert_int_equal(vit_tape_forward(all, model->slot, want), 0);
	options.n_kept = N_PATCHES;
	options.borrows = true;
	assert_int_equal(vit_tape_open(&kept, model->vit, &options), 0);
	assert_null(vit_tape_input(kept));
	vit_tape_read(kept, model->pixels);
	for (uint32_t i = 0; i < BATCH * N_PATCHES; i++)
		vit_tape_kept(kept)[i] = i % N_PATCHES;
	assert_int_equal(vit_tape_forward(kept, model->slot, got), 0);
	assert_memory_equal(got, want, sizeof(got));
	vit_tape_kept(kept)[5] = N_PATCHES;
	assert_int_equal(vit_tape_forward(kept, model->slot, got), -EINVAL);
}

static void options_that_cannot_be_are_refused(void **state)
{
	const struct model *model = *state;
	const struct vit_tape_options bad[] = {
		{ .batch = 1, .px = PX, .n_kept = N_PATCHES + 1 },
		{ .batch = 1, .n_tokens = 5, .n_kept = 2 },
		{ .batch = 1 },
		{ .n_tokens = 5 },
		{ .batch = 1, .px = PX, .forward_only = true, .drops = true },
		{ .batch = 1, .px = PX, .precision = PRECISION_INT8 },
	};
	const struct vit_tape_options ends = { .batch = BATCH, .px = PX, .forward_only = true };
	_cleanup_(vit_tape_freep) struct vit_tape *tape = NULL;
	struct vit_tape *none = NULL;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		assert_int_equal(vit_tape_open(&none, model->vit, &bad[i]), -EINVAL);
		assert_int_equal(vit_tape_bytes(model->vit, &bad[i]), 0);
	}
	assert_int_equal(vit_tape_open(&tape, model->vit, &ends), 0);
	assert_int_equal(vit_tape_backward(tape, model->slot, model->weight, NULL, NULL), -EINVAL);
}

static void a_subset_takes_less_memory_and_no_way_back_less_yet(void **state)
{
	const struct model *model = *state;
	struct vit_tape_options options = { .batch = 8, .px = PX };
	size_t all = vit_tape_bytes(model->vit, &options), kept, out, forward, drops;

	options.n_kept = N_KEPT;
	kept = vit_tape_bytes(model->vit, &options);
	options.all_out = true;
	out = vit_tape_bytes(model->vit, &options);
	options.drops = true;
	drops = vit_tape_bytes(model->vit, &options);
	options.drops = false;
	options.forward_only = true;
	forward = vit_tape_bytes(model->vit, &options);
	assert_true(kept < all && kept > 0);
	assert_true(out > kept && drops > out);
	assert_true(forward < out);
}

/* Dropping: the tape of tokens, so that its entry can be moved. */

enum { N_IMAGES = 2 };

struct dropping {
	struct vit_tape *tape;
	const struct slot *slot;
	struct vit_drop drop;
};

static const uint32_t images[N_IMAGES] = { 17, 4 };

static void open_dropping(
	struct dropping *dropping, const struct model *model, float rate, float path)
{
	struct vit_tape_options options = options_of(&ways[8], PRECISION_F32);

	options.drops = true;
	open_tape(&dropping->tape, model, &ways[8], &options);
	dropping->slot = model->slot;
	dropping->drop = (struct vit_drop){
		.rate = rate,
		.path = path,
		.seed = SEED,
		.step = 3,
		.stream = 40,
		.images = images,
		.n_images = N_IMAGES,
	};
	vit_tape_drop(dropping->tape, &dropping->drop);
}

static double weighed(const struct dropping *dropping, const float *weight)
{
	float out[BATCH * MAX_TOKENS * WIDTH];
	double sum = 0;

	assert_int_equal(vit_tape_forward(dropping->tape, dropping->slot, out), 0);
	for (size_t i = 0; i < ARRAY_SIZE(out); i++)
		sum += (double)out[i] * weight[i];
	return sum;
}

/* Differences of the tape itself, in f32: a larger step, and good to a thousandth. */
static void what_is_dropped_has_no_gradient(void **state)
{
	const struct model *model = *state;
	const size_t n = vit_layout(model->vit)->n_elements;
	_cleanup_(freep) float *grad = calloc(n, sizeof(*grad));
	const float step = 4e-4f;
	static const struct {
		float rate, path;
	} kinds[] = { { .3f, 0 }, { 0, .4f }, { .2f, .2f } };

	for (size_t k = 0; k < ARRAY_SIZE(kinds); k++) {
		struct dropping dropping;
		float d_entry[BATCH * MAX_TOKENS * WIDTH], direction[ARRAY_SIZE(d_entry)];
		struct rng rng = rng_stream(SEED, 0, 0, 5);
		double got, norm, above, below;
		float *input;

		open_dropping(&dropping, model, kinds[k].rate, kinds[k].path);
		input = vit_tape_input(dropping.tape);
		(void)weighed(&dropping, model->weight);
		assert_int_equal(vit_tape_backward(dropping.tape, dropping.slot, model->weight,
					 grad, d_entry),
			0);
		for (size_t i = 0; i < ARRAY_SIZE(direction); i++)
			direction[i] = rng_normal(&rng) * step;
		got = along(d_entry, direction, ARRAY_SIZE(direction), &norm);
		for (size_t i = 0; i < ARRAY_SIZE(direction); i++)
			input[i] += direction[i];
		above = weighed(&dropping, model->weight);
		for (size_t i = 0; i < ARRAY_SIZE(direction); i++)
			input[i] -= 2 * direction[i];
		below = weighed(&dropping, model->weight);
		if (!(fabs(got - (above - below) / 2) <= 2e-3 * norm * step))
			fail_msg("rate %g path %g: %g, differences say %g, norm %g",
				(double)kinds[k].rate, (double)kinds[k].path, got,
				(above - below) / 2, norm * step);
		vit_tape_free(dropping.tape);
	}
}

static void dropping_is_a_function_of_seed_step_image_and_view(void **state)
{
	const struct model *model = *state;
	struct dropping dropping;
	double first, none;

	open_dropping(&dropping, model, .3f, .3f);
	first = weighed(&dropping, model->weight);
	assert_true(weighed(&dropping, model->weight) == first);
	dropping.drop.step++;
	vit_tape_drop(dropping.tape, &dropping.drop);
	assert_true(weighed(&dropping, model->weight) != first);
	dropping.drop.step--;
	dropping.drop.stream++;
	vit_tape_drop(dropping.tape, &dropping.drop);
	assert_true(weighed(&dropping, model->weight) != first);
	vit_tape_drop(dropping.tape, NULL);
	none = weighed(&dropping, model->weight);
	assert_true(none != first);
	/* Nothing to drop is not to drop, to the last rounding. */
	dropping.drop.rate = dropping.drop.path = 0;
	vit_tape_drop(dropping.tape, &dropping.drop);
	assert_true(fabs(weighed(&dropping, model->weight) - none) <= 1e-4 * fabs(none));
	vit_tape_free(dropping.tape);
}

/* The same image and view draw the same wherever their row lies: parts of a batch do. */
static void a_part_of_a_batch_drops_what_the_whole_drops(void **state)
{
	const struct model *model = *state;
	struct vit_tape_options options = options_of(&ways[8], PRECISION_F32);
	_cleanup_(vit_tape_freep) struct vit_tape *part = NULL;
	struct dropping whole;
	float want[BATCH * MAX_TOKENS * WIDTH], got[MAX_TOKENS * WIDTH];

	open_dropping(&whole, model, .3f, .3f);
	assert_int_equal(vit_tape_forward(whole.tape, model->slot, want), 0);
	options.batch = 1;
	options.drops = true;
	assert_int_equal(vit_tape_open(&part, model->vit, &options), 0);
	for (uint32_t i = 0; i < BATCH; i++) {
		struct vit_drop drop = whole.drop;

		drop.first = i;
		vit_tape_drop(part, &drop);
		memcpy(vit_tape_input(part), vit_tape_input(whole.tape) + i * MAX_TOKENS * WIDTH,
			sizeof(got));
		assert_int_equal(vit_tape_forward(part, model->slot, got), 0);
		assert_true(relative_difference(got, want + i * MAX_TOKENS * WIDTH,
				    MAX_TOKENS * WIDTH) <= 1e-5);
	}
	vit_tape_free(whole.tape);
}

/* Over many steps: as many as said go, and what stays is scaled so that the mean does not move. */
static void shares_and_means_are_as_said(void **state)
{
	const struct vit_extent extent = { .n = 1, .n_tokens = 16, .n_queries = 16 };
	enum { N = 16 * WIDTH, N_STEPS = 400 };
	static const float zero[N];
	struct vit_drop drop = { .rate = .25f, .seed = SEED, .images = images, .n_images = 1 };
	size_t n_zero = 0;
	double sum = 0;

	(void)state;
	for (int path = 0; path < 2; path++) {
		if (path) {
			drop.path = drop.rate;
			drop.rate = 0;
		}
		n_zero = 0;
		sum = 0;
		for (drop.step = 0; drop.step < N_STEPS; drop.step++) {
			float branch[N];

			for (int i = 0; i < N; i++)
				branch[i] = 1;
			vit_drop_add(&drop, &shape, extent, 5, zero, 16, branch);
			for (int i = 0; i < N; i++) {
				n_zero += branch[i] == 0;
				sum += branch[i];
				assert_true(!path || branch[i] == branch[0]);
			}
		}
		assert_true(fabs((double)n_zero / (N * N_STEPS) - .25) <
			    (path ? 4 * sqrt(.25 * .75 / N_STEPS) : .005));
		assert_true(fabs(sum / (N * N_STEPS) - 1) < (path ? .12 : .007));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_way_gives_what_the_twin_gives),
		cmocka_unit_test(every_way_agrees_with_differences_down_to_its_entry),
		cmocka_unit_test(the_entry_is_reached_wherever_gradients_end),
		cmocka_unit_test(bf16_points_where_f32_does),
		cmocka_unit_test(all_patches_in_their_order_are_no_subset),
		cmocka_unit_test(options_that_cannot_be_are_refused),
		cmocka_unit_test(a_subset_takes_less_memory_and_no_way_back_less_yet),
		cmocka_unit_test(what_is_dropped_has_no_gradient),
		cmocka_unit_test(dropping_is_a_function_of_seed_step_image_and_view),
		cmocka_unit_test(a_part_of_a_batch_drops_what_the_whole_drops),
		cmocka_unit_test(shares_and_means_are_as_said),
	};

	print_message("seed %d\n", SEED);
	return cmocka_run_group_tests(tests, setup, teardown);
}
