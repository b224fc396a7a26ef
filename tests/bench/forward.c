/* SPDX-License-Identifier: Apache-2.0 */

/*
 * One forward pass of given pixels, again and again: forward MODEL PIXELS EMBEDDINGS [--precision f32]
 * [--batch 1] [--seconds 1]. PIXELS holds (batch, 3, px, px) floats at the model's own size, EMBEDDINGS
 * receives (batch, width) of them. Prints the median in milliseconds. Beside it stands ort.mjs.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "base/blob.h"
#include "base/clock.h"
#include "model/vit.h"

#define N_WARM 5u
#define N_MOST 100000u

struct subject {
	struct base *base;
	struct vit *vit;
	struct slot *slot;
	struct vit_plan *plan;
	float *embeddings;
	size_t n; /* embeddings */
};

static void subject_done(struct subject *s)
{
	vit_plan_free(s->plan);
	slot_free(s->slot);
	vit_free(s->vit);
	base_free(s->base);
	free(s->embeddings);
}

static int fill(struct subject *s, const char *pixels, uint32_t batch, uint32_t px)
{
	const size_t n_bytes = (size_t)batch * 3 * px * px * sizeof(float);
	_cleanup_(freep) void *data = NULL;
	size_t n_read;
	int r = blob_read(AT_FDCWD, pixels, n_bytes, &data, &n_read);

	if (r < 0)
		return r;
	if (n_read != n_bytes)
		return -EMSGSIZE;
	memcpy(vit_plan_input(s->plan), data, n_bytes);
	return 0;
}

static int subject_init(struct subject *s, char **files, uint32_t batch, enum precision precision,
	struct diag *diag)
{
	uint32_t px;
	int r = base_load(&s->base, files[0], diag);

	if (r == 0)
		r = vit_new(&s->vit, s->base, NULL, diag);
	if (r == 0 && !vit_has(s->vit, precision))
		r = diag_set(
			diag, EOPNOTSUPP, "%s: this CPU has it not", precision_name(precision));
	if (r == 0)
		r = vit_slot_new(&s->slot, s->vit, slot_use_in(SLOT_INFER, precision));
	if (r == 0)
		r = slot_apply(s->slot, NULL);
	if (r < 0)
		return r;
	px = vit_shape(s->vit)->grid * vit_shape(s->vit)->patch;
	r = vit_plan_new(&s->plan, s->vit, batch, px, precision);
	if (r == 0)
		r = fill(s, files[1], batch, px);
	s->n = (size_t)batch * vit_shape(s->vit)->width;
	s->embeddings = calloc(s->n, sizeof(float));
	return r == 0 && !s->embeddings ? -ENOMEM : r;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static int measure(struct subject *s, double seconds)
{
	_cleanup_(freep) double *ms = calloc(N_MOST, sizeof(*ms));
	uint64_t begin = 0, now = 0;
	uint32_t n = 0;
	int r = 0;

	if (!ms)
		return -ENOMEM;
	for (uint32_t i = 0; i < N_WARM && r == 0; i++)
		r = vit_forward(s->plan, s->slot, s->embeddings);
	begin = clock_now_ns();
	while (r == 0 && n < N_MOST && (n == 0 || (double)(now - begin) < seconds * 1e9)) {
		uint64_t before = clock_now_ns();

		r = vit_forward(s->plan, s->slot, s->embeddings);
		now = clock_now_ns();
		ms[n++] = (double)(now - before) * 1e-6;
	}
	if (r < 0)
		return r;
	qsort(ms, n, sizeof(*ms), compare);
	printf("ms_p50 %.4f runs %u\n", ms[n / 2], n);
	return 0;
}

static int run(char **files, uint32_t batch, enum precision precision, double seconds)
{
	struct subject s = { 0 };
	struct diag diag = { "" };
	int r = subject_init(&s, files, batch, precision, &diag);

	if (r == 0)
		r = measure(&s, seconds);
	if (r == 0)
		r = blob_write(AT_FDCWD, files[2], s.embeddings, s.n * sizeof(float));
	if (r < 0)
		fprintf(stderr, "forward: %s\n", *diag.text ? diag.text : strerror(-r));
	subject_done(&s);
	return r < 0 ? 1 : 0;
}

int main(int argc, char **argv)
{
	static const struct option names[] = {
		{ "precision", required_argument, NULL, 'p' },
		{ "batch", required_argument, NULL, 'b' },
		{ "seconds", required_argument, NULL, 's' },
		{ NULL, 0, NULL, 0 },
	};
	enum precision precision = PRECISION_F32;
	uint32_t batch = 1;
	double seconds = 1;
	int c;

	while ((c = getopt_long(argc, argv, "", names, NULL)) != -1) {
		if (c == 'b')
			batch = (uint32_t)strtoul(optarg, NULL, 10);
		else if (c == 's')
			seconds = strtod(optarg, NULL);
		else if (c != 'p' || precision_parse(&precision, optarg) < 0)
			return 2;
	}
	if (argc - optind != 3 || batch == 0)
		return 2;
	return run(argv + optind, batch, precision, seconds);
}
