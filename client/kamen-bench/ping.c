/* SPDX-License-Identifier: Apache-2.0 */
#include "ping.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include "bench.h"

struct line {
	_Alignas(64) _Atomic uint32_t value; /* odd: the other side's turn */
	uint32_t end;
	int cpu;
};

static int keep_to(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET((unsigned)cpu, &set);
	return -pthread_setaffinity_np(pthread_self(), sizeof(set), &set);
}

static void *answer(void *data)
{
	struct line *line = data;

	(void)keep_to(line->cpu);
	for (uint32_t next = 1; next < line->end; next += 2) {
		while (atomic_load_explicit(&line->value, memory_order_acquire) != next)
			;
		atomic_store_explicit(&line->value, next + 1, memory_order_release);
	}
	return NULL;
}

static int ask(struct line *line, struct samples *samples)
{
	uint32_t next = 1;
	int r = 0;

	while (next < line->end) {
		uint64_t begin = bench_now_ns();

		for (unsigned i = 0; i < PING_TRIPS; i++, next += 2) {
			atomic_store_explicit(&line->value, next, memory_order_release);
			while (atomic_load_explicit(&line->value, memory_order_acquire) == next)
				;
		}
		/* Also after a failure: the other side counts on every trip. */
		if (r == 0)
			r = samples_add(
				samples, (double)(bench_now_ns() - begin) * 1e-3 / PING_TRIPS);
	}
	return r;
}

bool ping_cpus(int ret_cpus[2])
{
	cpu_set_t allowed;
	int n = 0;

	if (sched_getaffinity(0, sizeof(allowed), &allowed) < 0)
		return false;
	for (int cpu = 0; cpu < CPU_SETSIZE && n < 2; cpu++)
		if (CPU_ISSET((unsigned)cpu, &allowed))
			ret_cpus[n++] = cpu;
	return n == 2;
}

int ping_run(uint32_t n_samples, struct samples *samples)
{
	struct line line = { .end = 2 * PING_TRIPS * n_samples + 1 };
	cpu_set_t allowed;
	pthread_t thread;
	int cpus[2], r;

	if (!ping_cpus(cpus) || sched_getaffinity(0, sizeof(allowed), &allowed) < 0)
		return -ENODEV;
	line.cpu = cpus[1];
	r = keep_to(cpus[0]);
	if (r == 0)
		r = -pthread_create(&thread, NULL, answer, &line);
	if (r == 0) {
		r = ask(&line, samples);
		(void)pthread_join(thread, NULL);
	}
	(void)pthread_setaffinity_np(pthread_self(), sizeof(allowed), &allowed);
	return r;
}
