/* SPDX-License-Identifier: Apache-2.0 */
#include "metronome.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "bench.h"

struct metronome {
	pthread_t thread;
	uint64_t period_ns;
	struct samples late_ms;
	int r;
	_Atomic int stop;
};

static void *run(void *data)
{
	struct metronome *m = data;
	uint64_t due = bench_now_ns() + m->period_ns;

	while (!atomic_load(&m->stop)) {
		uint64_t now;

		bench_sleep_until(due);
		now = bench_now_ns();
		if (m->r == 0)
			m->r = samples_add(&m->late_ms, (double)(now - due) * 1e-6);
		/* What it slept through is not counted twice. */
		while (due <= now)
			due += m->period_ns;
	}
	return NULL;
}

int metronome_start(struct metronome **ret_metronome, uint64_t period_ns)
{
	struct metronome *m = calloc(1, sizeof(*m));
	int r;

	if (!m)
		return -ENOMEM;
	m->period_ns = period_ns > 0 ? period_ns : 1;
	r = -pthread_create(&m->thread, NULL, run, m);
	if (r < 0) {
		free(m);
		return r;
	}
	*ret_metronome = m;
	return 0;
}

int metronome_stop(struct metronome *metronome, struct samples *late_ms)
{
	int r;

	if (!metronome)
		return 0;
	atomic_store(&metronome->stop, 1);
	(void)pthread_join(metronome->thread, NULL);
	r = metronome->r < 0 ? metronome->r : samples_merge(late_ms, &metronome->late_ms);
	samples_done(&metronome->late_ms);
	free(metronome);
	return r;
}
