/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <math.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "bench.h"

int samples_add(struct samples *samples, double value)
{
	if (samples->n == samples->room) {
		size_t room = samples->room ? 2 * samples->room : 1024;
		double *values = realloc(samples->values, room * sizeof(*values));

		if (!values)
			return -ENOMEM;
		samples->values = values;
		samples->room = room;
	}
	samples->values[samples->n++] = value;
	return 0;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

double samples_percentile(struct samples *samples, double p)
{
	size_t rank;

	if (samples->n == 0)
		return NAN;
	qsort(samples->values, samples->n, sizeof(*samples->values), compare);
	rank = (size_t)ceil(p * (double)samples->n);
	return samples->values[rank ? rank - 1 : 0];
}

void samples_done(struct samples *samples)
{
	free(samples->values);
	*samples = (struct samples){ 0 };
}

uint64_t bench_now_ns(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

void bench_put_machine(json_t *row)
{
	char line[256], name[128] = "unknown";
	FILE *f = fopen("/proc/cpuinfo", "re");
	cpu_set_t set;

	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "model name : %127[^\n]", name) == 1)
			break;
	if (f)
		(void)fclose(f);
	(void)json_object_set_new(row, "machine", json_string(name));
	(void)json_object_set_new(row, "cpus",
		json_integer(sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 0));
}

int bench_each(const char *names, int (*run)(void *data, const char *name), void *data)
{
	_cleanup_(freep) char *copy = strdup(names);
	int status = EXIT_DONE;
	char *rest = NULL;

	for (char *name = copy ? strtok_r(copy, ",", &rest) : NULL; name && status == EXIT_DONE;
		name = strtok_r(NULL, ",", &rest))
		status = run(data, name);
	return copy ? status : EXIT_FAILED;
}

bool bench_number(const struct ctl *ctl, const char *option, const char *text,
	unsigned long long min, unsigned long long max, unsigned long long fallback,
	unsigned long long *ret_number)
{
	*ret_number = fallback;
	if (!text || (number_parse(text, max, ret_number) && *ret_number >= min))
		return true;
	(void)ctl_fail(ctl, EXIT_USAGE, "--%s %s: not in %llu to %llu", option, text, min, max);
	return false;
}
