/* SPDX-License-Identifier: Apache-2.0 */
#include "report.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "liar.h"
#include "load.h"

/* What allocators keep of a storm; a leak of a hundred bytes a fault is more after 10,000. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
/* They keep what was freed; of leaks the first tells at the end. */
#define MAX_GROWTH UINT32_MAX
#else
#define MAX_GROWTH (16u << 20)
#endif

static const char *const kind_names[N_HONEST_KINDS] = { "echo", "infer", "encoded" };
static const char *const violation_names[N_VIOLATIONS] = { "wrong", "lost", "hangs", "breaches" };

static int by_size(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

static uint32_t n_samples(const struct samples *samples)
{
	uint32_t n = atomic_load(&samples->n);

	return n < WORLD_MAX_SAMPLES ? n : WORLD_MAX_SAMPLES;
}

/* In microseconds, of sorted ones. */
static double quantile(const struct samples *samples, double q)
{
	uint32_t n = n_samples(samples);

	return n > 0 ? samples->ns[(uint32_t)(q * (n - 1) + .5)] / 1e3 : 0;
}

enum { QUIET, BARE, STORM, N_COLUMNS };

static const char *const column_names[N_COLUMNS] = { "quiet", "bare", "storm" };

struct line {
	double p50[N_COLUMNS], p99[N_COLUMNS], ratio, over_bare; /* of storms' p99 */
	uint32_t n[N_COLUMNS];
};

static struct line line_of(struct world *world, enum honest_kind kind)
{
	static const enum phase phases[] = { PHASE_QUIET, PHASE_BARE, PHASE_STORM };
	struct line line = { 0 };

	for (unsigned i = 0; i < N_COLUMNS; i++) {
		struct samples *samples = &world->samples[kind][phases[i]];

		line.n[i] = n_samples(samples);
		qsort(samples->ns, line.n[i], sizeof(samples->ns[0]), by_size);
		line.p50[i] = quantile(samples, .5);
		line.p99[i] = quantile(samples, .99);
	}
	line.ratio = line.p99[QUIET] > 0 ? line.p99[STORM] / line.p99[QUIET] : 0;
	line.over_bare = line.p99[BARE] > 0 ? line.p99[STORM] / line.p99[BARE] : 0;
	return line;
}

static double cpus_of(const struct load *loads, unsigned n)
{
	double sum = 0;

	for (unsigned i = 0; i < n; i++)
		sum += load_cpus(&loads[i]);
	return sum;
}

static void print_text(
	struct world *world, const struct outcome *outcome, const struct line *lines, bool holds)
{
	(void)printf("seed %llu: %llu faults in %.1f s, %llu honest answers\n",
		(unsigned long long)world->seed, (unsigned long long)atomic_load(&world->n_done),
		outcome->seconds, (unsigned long long)atomic_load(&world->n_answers));
	(void)printf("deaths %d", outcome->is_dead);
	for (unsigned i = 0; i < N_VIOLATIONS; i++)
		(void)printf(", %s %llu", violation_names[i],
			(unsigned long long)atomic_load(&world->n_of_violation[i]));
	(void)printf("; descriptors %u -> %u, memory %.1f -> %.1f MiB\n", outcome->before.n_fds,
		outcome->after.n_fds, (double)outcome->before.anonymous / (1 << 20),
		(double)outcome->after.anonymous / (1 << 20));
	(void)printf("liars are %s; their CPUs: %.2f in storms, %.2f bare\n",
		!world->is_other     ? "the same user"
		: world->is_ordinary ? "another user"
				     : "root",
		cpus_of(world->storm_load, outcome->n_liars),
		cpus_of(world->bare_load, outcome->n_liars));
	for (unsigned i = 0; i < N_HONEST_KINDS; i++)
		(void)printf("%-8s quiet, bare, storm: p50 %.0f, %.0f, %.0f us; p99 %.0f, %.0f, "
			     "%.0f us: x %.2f, over bare x %.2f\n",
			kind_names[i], lines[i].p50[QUIET], lines[i].p50[BARE], lines[i].p50[STORM],
			lines[i].p99[QUIET], lines[i].p99[BARE], lines[i].p99[STORM],
			lines[i].ratio, lines[i].over_bare);
	for (uint32_t i = 0; i < atomic_load(&world->n_notes) && i < WORLD_N_NOTES; i++)
		(void)printf("note: %s\n", world->notes[i]);
	(void)printf("%s\n", holds ? "everything held" : "NOT everything held");
}

static json_t *line_json(const struct line *line)
{
	json_t *object =
		json_pack("{s:f, s:f}", "p99_ratio", line->ratio, "p99_over_bare", line->over_bare);

	for (unsigned i = 0; i < N_COLUMNS; i++)
		(void)json_object_set_new(object, column_names[i],
			json_pack("{s:i, s:f, s:f}", "n", (int)line->n[i], "p50_us", line->p50[i],
				"p99_us", line->p99[i]));
	return object;
}

static void print_json(
	struct world *world, const struct outcome *outcome, const struct line *lines, bool holds)
{
	json_t *root = json_pack(
		"{s:I, s:I, s:I, s:f, s:f, s:b, s:b, s:i, s:b, s:i, s:i, s:f, s:f, s:f, s:f, s:b}",
		"seed", (json_int_t)world->seed, "faults", (json_int_t)atomic_load(&world->n_done),
		"answers", (json_int_t)atomic_load(&world->n_answers), "seconds", outcome->seconds,
		"storm_seconds", outcome->storm_seconds, "other_user", world->is_other, "ordinary",
		world->is_ordinary, "deaths", (int)outcome->is_dead, "unsound", outcome->is_unsound,
		"fds_before", (int)outcome->before.n_fds, "fds_after", (int)outcome->after.n_fds,
		"mib_before", (double)outcome->before.anonymous / (1 << 20), "mib_after",
		(double)outcome->after.anonymous / (1 << 20), "liar_cpus_storm",
		cpus_of(world->storm_load, outcome->n_liars), "liar_cpus_bare",
		cpus_of(world->bare_load, outcome->n_liars), "held", holds);
	json_t *faults = json_object(), *notes = json_array();
	const struct fault *fault;

	for (unsigned i = 0; i < N_VIOLATIONS; i++)
		(void)json_object_set_new(root, violation_names[i],
			json_integer((json_int_t)atomic_load(&world->n_of_violation[i])));
	for (unsigned i = 0; i < N_HONEST_KINDS; i++)
		(void)json_object_set_new(root, kind_names[i], line_json(&lines[i]));
	for (unsigned i = 0; (fault = liar_fault(i)); i++)
		(void)json_object_set_new(faults, fault->name,
			json_integer((json_int_t)atomic_load(&world->n_of_fault[i])));
	for (uint32_t i = 0; i < atomic_load(&world->n_notes) && i < WORLD_N_NOTES; i++)
		(void)json_array_append_new(notes, json_string(world->notes[i]));
	(void)json_object_set_new(root, "by_fault", faults);
	(void)json_object_set_new(root, "notes", notes);
	(void)json_dumpf(root, stdout, JSON_COMPACT | JSON_REAL_PRECISION(6));
	(void)putchar('\n');
	json_decref(root);
}

bool report(struct world *world, const struct outcome *outcome, bool as_json)
{
	struct line lines[N_HONEST_KINDS];
	bool holds = !outcome->is_dead && !outcome->is_unsound && outcome->exit_status == 0;

	for (unsigned i = 0; i < N_VIOLATIONS; i++)
		holds &= atomic_load(&world->n_of_violation[i]) == 0;
	holds &= outcome->after.n_fds <= outcome->before.n_fds;
	holds &= outcome->after.anonymous <= outcome->before.anonymous + MAX_GROWTH;
	for (unsigned i = 0; i < N_HONEST_KINDS; i++) {
		lines[i] = line_of(world, i);
		holds &= outcome->max_ratio <= 0 || lines[i].ratio <= outcome->max_ratio;
		holds &=
			outcome->max_over_bare <= 0 || lines[i].over_bare <= outcome->max_over_bare;
	}
	if (as_json)
		print_json(world, outcome, lines, holds);
	else
		print_text(world, outcome, lines, holds);
	return holds;
}
