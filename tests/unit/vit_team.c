/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <omp.h>
#include <string.h>
#include <cmocka.h>

#include "fixture/random_vit.h"
#include "model/vit_team.h"

#define SEED 47
#define WIDTH 192
#define PX 112
#define N_PIXELS ((size_t)3 * PX * PX)
#define N_IMAGES 6u

/* 50 tokens, 9, 3, 12 and 3 blocks of 64 columns and 3 heads: what three, four or five lanes do not
 * divide. */
static const struct vit_shape tiny = {
	.width = WIDTH,
	.depth = 3,
	.n_heads = 3,
	.mlp = 768,
	.patch = 16,
	.grid = 14,
};

static const double tolerances[] = { [PRECISION_F32] = 1e-5, [PRECISION_BF16] = 5e-2 };

struct fixture {
	struct base *base;
	struct vit *vit;
	enum precision precision;
	struct slot *slot;
	float *pixels; /* (N_IMAGES, N_PIXELS) */
};

static bool fixture_init(struct fixture *f, enum precision precision)
{
	f->base = random_base(&tiny, SEED);
	f->vit = random_vit(f->base);
	f->precision = precision;
	if (!vit_has(f->vit, precision))
		return false;
	assert_int_equal(vit_slot_new(&f->slot, f->vit, slot_use_in(SLOT_INFER, precision)), 0);
	f->pixels = calloc(N_IMAGES * N_PIXELS, sizeof(float));
	random_pixels(f->pixels, N_IMAGES * N_PIXELS, SEED);
	return true;
}

static void fixture_done(struct fixture *f)
{
	slot_free(f->slot);
	vit_free(f->vit);
	base_free(f->base);
	free(f->pixels);
}

/* Of the images from `first` on, made by so many lanes and run by so many threads. */
static void forward(const struct fixture *f, unsigned first, uint32_t n, int n_lanes, int n_threads,
	float *embeddings)
{
	_cleanup_(vit_plan_freep) struct vit_plan *plan = NULL;
	const int before = omp_get_max_threads();

	omp_set_num_threads(n_lanes);
	assert_int_equal(vit_plan_new(&plan, f->vit, n, PX, f->precision), 0);
	assert_int_equal(omp_get_max_threads(), n_lanes);
	memcpy(vit_plan_input(plan), f->pixels + first * N_PIXELS, n * N_PIXELS * sizeof(float));
	if (n_threads < n_lanes)
#pragma omp parallel num_threads(2)
	{
		/* A region inside a region has one thread. */
#pragma omp master
		assert_int_equal(vit_forward(plan, f->slot, embeddings), 0);
	} else
		assert_int_equal(vit_forward(plan, f->slot, embeddings), 0);
	omp_set_num_threads(before);
}

/* Products before AVX2 have no columns that lie together. */
static bool has_teams(const struct vit *vit)
{
	const char *isa = vit_isa(vit);

	return strncmp(isa, "avx2", 4) == 0 || strncmp(isa, "avx512", 6) == 0;
}

static void any_number_of_lanes_agrees_with_the_reference(void **state)
{
	(void)state;
	for (enum precision p = PRECISION_F32; p <= PRECISION_BF16; p++) {
		_cleanup_(fixture_done) struct fixture f = { 0 };

		if (!fixture_init(&f, p))
			continue;
		for (int n_lanes = 1; n_lanes <= 5; n_lanes++) {
			float got[3 * WIDTH], want[WIDTH];

			forward(&f, 0, 3, n_lanes, n_lanes, got);
			for (unsigned i = 0; i < 3; i++) {
				double off;

				assert_int_equal(vit_reference(f.vit, NULL, f.pixels + i * N_PIXELS,
							 PX, want),
					0);
				off = relative_difference(got + (size_t)i * WIDTH, want, WIDTH);
				if (!(off <= tolerances[p]))
					fail_msg("%d lanes, image %u: off by %g", n_lanes, i, off);
			}
		}
	}
}

/* Three images are shared by two lanes, four and six as images; by three lanes, three and six are. */
static void an_image_has_the_same_bits_in_any_batch(void **state)
{
	static const uint32_t batches[] = { 3, 4, N_IMAGES };

	(void)state;
	for (enum precision p = PRECISION_F32; p <= PRECISION_BF16; p++) {
		_cleanup_(fixture_done) struct fixture f = { 0 };
		float together[N_IMAGES * WIDTH], alone[N_IMAGES * WIDTH];

		if (!fixture_init(&f, p) || !has_teams(f.vit))
			continue;
		for (int l = 2; l <= 3; l++) {
			for (unsigned i = 0; i < N_IMAGES; i++)
				forward(&f, i, 1, l, l, alone + (size_t)i * WIDTH);
			for (size_t b = 0; b < ARRAY_SIZE(batches); b++) {
				forward(&f, 0, batches[b], l, l, together);
				assert_memory_equal(
					alone, together, batches[b] * WIDTH * sizeof(float));
			}
		}
	}
}

static void fewer_threads_than_lanes_give_the_same_bits(void **state)
{
	_cleanup_(fixture_done) struct fixture f = { 0 };
	float want[2 * WIDTH], got[2 * WIDTH];

	(void)state;
	assert_true(fixture_init(&f, PRECISION_F32));
	for (int n_lanes = 2; n_lanes <= 3; n_lanes++) {
		forward(&f, 0, 2, n_lanes, n_lanes, want);
		forward(&f, 0, 2, n_lanes, 1, got);
		assert_memory_equal(want, got, sizeof(want));
	}
}

static void a_real_models_pass_is_a_teams(void **state)
{
	static const char *const names[] = { "vit_t", "vit_s", "vit_b" };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		_cleanup_(base_freep) struct base *base = NULL;
		_cleanup_(vit_freep) struct vit *vit = NULL;
		struct vit_shape shape;

		assert_int_equal(random_vit_shape(&shape, names[i]), 0);
		shape.depth = 1;
		base = random_base(&shape, SEED);
		vit = random_vit(base);
		if (!has_teams(vit)) {
			print_message("skipped: %s\n", vit_isa(vit));
			continue;
		}
		for (enum precision p = PRECISION_F32; p <= PRECISION_BF16; p++) {
			_cleanup_(vit_team_freep) struct vit_team *team = NULL;
			struct vit_stem stem;

			assert_int_equal(vit_stem_size(&stem, vit, 1, 224, p), 0);
			if (vit_has(vit, p))
				assert_int_equal(vit_team_new(&team, vit, &stem, false), 0);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(any_number_of_lanes_agrees_with_the_reference),
		cmocka_unit_test(an_image_has_the_same_bits_in_any_batch),
		cmocka_unit_test(fewer_threads_than_lanes_give_the_same_bits),
		cmocka_unit_test(a_real_models_pass_is_a_teams),
	};

	print_message("seed %u\n", SEED);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
