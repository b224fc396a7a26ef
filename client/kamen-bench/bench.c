/* SPDX-License-Identifier: Apache-2.0 */
#include "bench.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"

uint64_t bench_now_ns(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

void bench_sleep_until(uint64_t ns)
{
	struct timespec ts = { (time_t)(ns / 1000000000u), (long)(ns % 1000000000u) };

	(void)clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL);
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

bool bench_real(
	const struct ctl *ctl, const char *option, const char *text, double fallback, double *ret)
{
	char *end = NULL;

	*ret = fallback;
	if (!text)
		return true;
	*ret = strtod(text, &end);
	if (end != text && !*end && *ret >= 0 && *ret <= 1e6)
		return true;
	(void)ctl_fail(ctl, EXIT_USAGE, "--%s %s: not a number from 0", option, text);
	return false;
}

void bench_put_percentiles(json_t *row, const char *name, const char *unit, struct samples *samples)
{
	static const struct {
		const char *suffix;
		double p;
	} percentiles[] = { { "p50", .5 }, { "p90", .9 }, { "p99", .99 }, { "p999", .999 } };
	char key[64];

	for (unsigned i = 0; i < ARRAY_SIZE(percentiles); i++) {
		(void)snprintf(key, sizeof(key), "%s_%s_%s", name, unit, percentiles[i].suffix);
		(void)json_object_set_new(
			row, key, output_number(samples_percentile(samples, percentiles[i].p)));
	}
}
