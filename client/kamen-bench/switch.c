/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <omp.h>
#include <string.h>

#include "base/blob.h"
#include "bench.h"
#include "mask/kmask.h"
#include "mask/rest.h"
#include "random_mask.h"
#include "subject.h"

#define MAX_MASKS OPTION_MAX_REPEATS
#define MAX_MASK_BYTES ((size_t)1 << 30)
#define LEAST_TURNS 20

struct switch_options {
	const char *model, *random, *precision, *density, *threads, *size, *seconds;
	const char *masks[OPTION_MAX_REPEATS];
	unsigned n_masks;
};

/* What takes turns in the one slot, as the daemon holds it, and what a site costs that waits for its
 * turn. */
struct turns {
	struct mask *masks[MAX_MASKS], *room;
	struct mask_rest *rests[MAX_MASKS];
	unsigned n;
	size_t rest_bytes, coded_bytes; /* of all of them */
};

static void turns_done(struct turns *turns)
{
	for (unsigned i = 0; i < turns->n; i++) {
		mask_free(turns->masks[i]);
		mask_rest_free(turns->rests[i]);
	}
	mask_free(turns->room);
}

static int read_mask(
	struct mask **ret_mask, const struct subject *s, const char *path, struct diag *diag)
{
	_cleanup_(freep) void *data = NULL;
	struct kmask_header header;
	size_t n_bytes;
	int r = blob_read(AT_FDCWD, path, MAX_MASK_BYTES, &data, &n_bytes);

	if (r < 0)
		return diag_set(diag, -r, "%s: %s", path, strerror(-r));
	return kmask_decode(
		ret_mask, &header, vit_layout(s->vit), base_digest(s->base), data, n_bytes, diag);
}

/* What the daemon holds of it, and what the file has. */
static int lay_down(struct turns *turns, unsigned i)
{
	const struct kmask_header header = { .steps = 1 };
	_cleanup_(freep) void *data = NULL;
	size_t n_bytes;
	int r = mask_rest_new(&turns->rests[i], turns->masks[i]);

	if (r == 0)
		r = kmask_encode(turns->masks[i], &header, &data, &n_bytes);
	if (r < 0)
		return r;
	turns->rest_bytes += mask_rest_bytes(turns->rests[i]);
	turns->coded_bytes += n_bytes;
	return 0;
}

static int turns_init(struct turns *turns, const struct subject *s, const struct switch_options *o,
	double density, struct diag *diag)
{
	const unsigned n = o->n_masks ? o->n_masks : 2;
	int r = mask_new(&turns->room, vit_layout(s->vit));

	for (unsigned i = 0; i < n && r == 0; i++) {
		struct mask **mask = &turns->masks[turns->n];

		r = o->n_masks ? read_mask(mask, s, o->masks[i], diag)
			       : random_mask(mask, vit_layout(s->vit), i, density);
		if (r < 0)
			break;
		r = lay_down(turns, turns->n++);
	}
	return r;
}

/* Switch and forward pass by turns, as they come when every request is of another site: what a
 * switch finds in the caches is what a forward pass left there. */
static int measure(struct subject *s, const struct turns *turns, uint64_t n_ns,
	struct samples *switches, struct samples *passes)
{
	uint64_t begin = bench_now_ns(), now = begin;
	int r = 0;

	for (unsigned i = 0; r == 0 && (i < LEAST_TURNS || now - begin < n_ns); i++) {
		uint64_t before = bench_now_ns();

		r = slot_apply_rest(s->slot, turns->rests[i % turns->n], turns->room);
		now = bench_now_ns();
		/* The first ones come from the base, and to plain memory. */
		if (r == 0 && i >= turns->n)
			r = samples_add(switches, (double)(now - before) * 1e-6);
		before = now;
		if (r == 0)
			r = subject_run(s);
		now = bench_now_ns();
		if (r == 0 && i >= turns->n)
			r = samples_add(passes, (double)(now - before) * 1e-6);
	}
	return r;
}

static double mean_density(const struct turns *turns)
{
	double sum = 0;

	for (unsigned i = 0; i < turns->n; i++)
		sum += mask_density(turns->masks[i]);
	return sum / turns->n;
}

static double mean_flips(const struct turns *turns)
{
	double sum = 0;

	for (unsigned i = 0; i < turns->n; i++)
		sum += (double)mask_distance(turns->masks[i], turns->masks[(i + 1) % turns->n]);
	return sum / turns->n;
}

static json_t *row_of(const struct subject *s, const char *model, const struct turns *turns,
	struct samples *switches, struct samples *passes)
{
	double switch_ms = samples_percentile(switches, .5);
	double infer_ms = samples_percentile(passes, .5);
	json_t *row = json_object();

	(void)json_object_set_new(row, "model", json_string(model));
	(void)json_object_set_new(row, "precision", json_string(precision_name(s->precision)));
	(void)json_object_set_new(row, "px", json_integer(s->prep.input_px));
	(void)json_object_set_new(row, "density", json_real(mean_density(turns)));
	(void)json_object_set_new(row, "flips", json_real(mean_flips(turns)));
	(void)json_object_set_new(row, "switch_ms_p50", json_real(switch_ms));
	(void)json_object_set_new(row, "infer_ms_p50", json_real(infer_ms));
	(void)json_object_set_new(row, "ratio", json_real(switch_ms / infer_ms));
	(void)json_object_set_new(
		row, "bytes_per_cold_site", json_real((double)turns->rest_bytes / turns->n));
	(void)json_object_set_new(
		row, "bytes_coded", json_real((double)turns->coded_bytes / turns->n));
	(void)json_object_set_new(row, "threads", json_integer(omp_get_max_threads()));
	(void)json_object_set_new(row, "isa", json_string(vit_isa(s->vit)));
	bench_put_machine(row);
	return row;
}

static int bench(struct ctl *ctl, const struct subject_options *options,
	const struct switch_options *o, double density, uint64_t n_ns)
{
	_cleanup_(samples_done) struct samples switches = { 0 }, passes = { 0 };
	_cleanup_(subject_done) struct subject s = { 0 };
	_cleanup_(turns_done) struct turns turns = { 0 };
	const char *model = options->file ? options->file : options->random;
	struct diag diag = { 0 };
	int r = subject_init(&s, options, &diag);

	if (r == 0)
		r = turns_init(&turns, &s, o, density, &diag);
	if (r == 0)
		r = measure(&s, &turns, n_ns, &switches, &passes);
	if (r < 0)
		return ctl_fail(
			ctl, EXIT_FAILED, "%s: %s", model, *diag.text ? diag.text : strerror(-r));
	return output_row(ctl, row_of(&s, model, &turns, &switches, &passes), true);
}

static bool density_parse(const char *text, double *ret_density)
{
	char *end;

	if (!text)
		return true;
	*ret_density = strtod(text, &end);
	return end != text && *end == '\0' && *ret_density >= 0 && *ret_density <= 1;
}

int switch_run(struct ctl *ctl, int argc, char **argv)
{
	struct switch_options o = { 0 };
	const struct option_spec specs[] = {
		{ "model", "FILE", "safetensors file of a ViT", &o.model, NULL },
		{ "random", "NAME", "untrained: vit_t, vit_s (default), vit_b, vit_demo", &o.random,
			NULL },
		{ "mask", "FILE", "a .kmask of the model, twice or more; else random ones", o.masks,
			&o.n_masks },
		{ "density", "D", "share of weights that a random mask keeps, .998", &o.density,
			NULL },
		{ "precision", "NAME", "f32 (default), bf16 or int8", &o.precision, NULL },
		{ "threads", "N", "of oneDNN and of a switch; else one a processor", &o.threads,
			NULL },
		{ "size", "PX", "else the model's own", &o.size, NULL },
		{ "seconds", "N", "of measuring, about, 8", &o.seconds, NULL },
	};
	unsigned long long threads, px, seconds;
	struct subject_options options;
	double density = .998;
	int first, status;

	if (!options_parse(ctl, argc, argv, specs, ARRAY_SIZE(specs), 0, 0, &first, &status))
		return status;
	if (!bench_number(ctl, "threads", o.threads, 1, 256, 0, &threads) ||
		!bench_number(ctl, "size", o.size, 16, 1024, 0, &px) ||
		!bench_number(ctl, "seconds", o.seconds, 0, 3600, 8, &seconds))
		return EXIT_USAGE;
	if (o.model && o.random)
		return ctl_fail(ctl, EXIT_USAGE, "--model or --random, not both");
	if (o.n_masks == 1)
		return ctl_fail(ctl, EXIT_USAGE, "--mask: one alone has no other to switch to");
	if (!density_parse(o.density, &density))
		return ctl_fail(ctl, EXIT_USAGE, "--density %s: not in 0 to 1", o.density);
	options = (struct subject_options){
		.file = o.model,
		.random = o.random || o.model ? o.random : "vit_s",
		.batch = 1,
		.px = (uint32_t)px,
	};
	if (o.precision && precision_parse(&options.precision, o.precision) < 0)
		return ctl_fail(
			ctl, EXIT_USAGE, "--precision %s: not f32, bf16 or int8", o.precision);
	if (threads)
		omp_set_num_threads((int)threads);
	return bench(ctl, &options, &o, density, seconds * UINT64_C(1000000000));
}
