/* SPDX-License-Identifier: Apache-2.0 */
#include "neighbours.h"

#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

/* Until it stands: 5 s. */
#define LOOK_NS 20000000
#define MOST_LOOKS 250u

struct neighbours {
	pid_t learner;
	_Atomic bool stop;
	_Atomic int error; /* a negative errno of a spinner */
	unsigned n_spinners, n_processors;
	pthread_t spinners[];
};

static void *spin(void *data)
{
	struct neighbours *neighbours = data;
	const struct sched_param param = { 0 };
	const int r = -pthread_setschedparam(pthread_self(), SCHED_IDLE, &param);

	/* With more right to the processor it would be another neighbour. */
	if (r < 0) {
		atomic_store(&neighbours->error, r);
		return NULL;
	}
	while (!atomic_load_explicit(&neighbours->stop, memory_order_relaxed))
		;
	return NULL;
}

static int spinners_stop(struct neighbours *neighbours)
{
	atomic_store(&neighbours->stop, true);
	while (neighbours->n_spinners > 0)
		(void)pthread_join(neighbours->spinners[--neighbours->n_spinners], NULL);
	return atomic_load(&neighbours->error);
}

static int spinners_start(struct neighbours *neighbours)
{
	atomic_store(&neighbours->stop, false);
	while (neighbours->n_spinners < neighbours->n_processors) {
		int r = -pthread_create(
			&neighbours->spinners[neighbours->n_spinners], NULL, spin, neighbours);

		if (r < 0)
			return r;
		neighbours->n_spinners++;
	}
	return 0;
}

static int learner_signal(const struct neighbours *neighbours, int signal)
{
	return kill(neighbours->learner, signal) < 0 ? -errno : 0;
}

static bool is_task_stopped(pid_t pid, const char *task)
{
	char path[64], state = 0;
	FILE *f;

	(void)snprintf(path, sizeof(path), "/proc/%d/task/%.20s/stat", (int)pid, task);
	f = fopen(path, "re");
	if (f && fscanf(f, "%*d (%*[^)]) %c", &state) != 1)
		state = 0;
	if (f)
		(void)fclose(f);
	return state == 'T';
}

/* Every thread: until then it goes on as if nothing had been, if it is continued. */
static bool is_stopped(pid_t pid)
{
	char path[32];
	const struct dirent *entry;
	bool stopped = true;
	DIR *tasks;

	(void)snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	tasks = opendir(path);
	if (!tasks)
		return false;
	while (stopped && (entry = readdir(tasks)))
		stopped = entry->d_name[0] == '.' || is_task_stopped(pid, entry->d_name);
	(void)closedir(tasks);
	return stopped;
}

/* The daemon itself stops and continues it beside batches, but not one that it finds stopped: no batch may
 * begin before it is. The last one's answers come before the daemon lets it go on, which undoes our stop: so
 * it is stopped again, until it stood at two looks. */
static int learner_stop(const struct neighbours *neighbours)
{
	const struct timespec moment = { .tv_nsec = LOOK_NS };
	unsigned n_stood = 0;
	int r = 0;

	for (unsigned i = 0; i < MOST_LOOKS && r == 0 && n_stood < 2; i++) {
		r = learner_signal(neighbours, SIGSTOP);
		(void)nanosleep(&moment, NULL);
		n_stood = is_stopped(neighbours->learner) ? n_stood + 1 : 0;
	}
	return r < 0 || n_stood == 2 ? r : -EBUSY;
}

int neighbours_new(struct neighbours **ret_neighbours, pid_t learner)
{
	const long n = sysconf(_SC_NPROCESSORS_ONLN);
	const unsigned n_processors = n > 0 ? (unsigned)n : 1;
	struct neighbours *neighbours;

	/* 0 would be all of us. */
	if (learner <= 0)
		return -ESRCH;
	neighbours = calloc(1, sizeof(*neighbours) + n_processors * sizeof(*neighbours->spinners));
	if (!neighbours)
		return -ENOMEM;
	neighbours->learner = learner;
	neighbours->n_processors = n_processors;
	*ret_neighbours = neighbours;
	return 0;
}

int neighbours_let(struct neighbours *neighbours, enum neighbour neighbour)
{
	int r = spinners_stop(neighbours);

	if (r == 0)
		r = neighbour == NEIGHBOUR_LEARNER ? learner_signal(neighbours, SIGCONT)
						   : learner_stop(neighbours);
	return r == 0 && neighbour == NEIGHBOUR_SPINNERS ? spinners_start(neighbours) : r;
}

double neighbours_learner_cpu_s(const struct neighbours *neighbours)
{
	struct timespec t;
	clockid_t clock;

	if (clock_getcpuclockid(neighbours->learner, &clock) != 0 || clock_gettime(clock, &t) < 0)
		return NAN;
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

void neighbours_free(struct neighbours *neighbours)
{
	if (!neighbours)
		return;
	(void)spinners_stop(neighbours);
	(void)learner_signal(neighbours, SIGCONT);
	free(neighbours);
}
