/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/hold.h"

#include <omp.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>

#include "engine.h"
#include "ops/cpus.h"

/* Batch upon batch, the learner still has to hear what it is told: it is let be during one of them that
 * often. A gap so long between two is enough for that. */
#define PATIENCE_NS (1000 * NS_PER_MS)
#define GAP_NS (10 * NS_PER_MS)

/* A worker that is bound to no CPUs has what OpenMP was told, which may be the user's word. */
static uint32_t n_threads(const struct config *config, const cpu_set_t *serving)
{
	if (!config->serve_cpus[0])
		return (uint32_t)omp_get_max_threads();
	return config->threads > 0 ? config->threads : (uint32_t)CPU_COUNT(serving);
}

bool hold_is_due(const struct config *config)
{
	cpu_set_t serving, learning;
	struct diag diag;

	if (strcmp(config->learner_cpu, "idle") != 0 || config->n_workers > 1)
		return false;
	if (cpus_allowed(config->serve_cpus, &serving, &diag) < 0)
		return false;
	/* The learner runs anywhere where it may use none of those. */
	if (cpus_allowed(config->learner_cpus, &learning, &diag) < 0 &&
		cpus_allowed("", &learning, &diag) < 0)
		return false;
	if (n_threads(config, &serving) < (uint32_t)CPU_COUNT(&serving))
		return false;
	CPU_AND(&serving, &serving, &learning);
	return CPU_EQUAL(&serving, &learning);
}

void hold_init(struct hold *hold)
{
	*hold = (struct hold){ 0 };
	(void)pthread_mutex_init(&hold->lock, NULL);
}

void hold_done(struct hold *hold)
{
	(void)pthread_mutex_destroy(&hold->lock);
}

static void go_on(struct hold *hold)
{
	uint64_t now = clock_now_ns();

	if (!hold->is_held)
		return;
	(void)kill(hold->pid, SIGCONT);
	atomic_fetch_add(&hold->total_ns, now - hold->changed_ns);
	hold->changed_ns = now;
	hold->is_held = false;
}

void hold_watch(struct hold *hold, pid_t pid)
{
	(void)pthread_mutex_lock(&hold->lock);
	hold->pid = pid;
	hold->changed_ns = hold->starved_ns = clock_now_ns();
	(void)pthread_mutex_unlock(&hold->lock);
}

void hold_let_go(struct hold *hold)
{
	(void)pthread_mutex_lock(&hold->lock);
	go_on(hold);
	hold->pid = 0;
	(void)pthread_mutex_unlock(&hold->lock);
}

/* By somebody else, who is to let it go on. */
static bool is_stopped(pid_t child)
{
	siginfo_t info = { 0 };

	return waitid(P_PID, (id_t)child, &info, WSTOPPED | WNOHANG | WNOWAIT) == 0 &&
	       info.si_pid == child;
}

static void stop(struct hold *hold)
{
	uint64_t now = clock_now_ns();

	if (is_stopped(hold->pid))
		return;
	if (now - hold->changed_ns > GAP_NS)
		hold->starved_ns = now;
	if (now - hold->starved_ns > PATIENCE_NS) {
		hold->starved_ns = now;
		return;
	}
	hold->is_held = kill(hold->pid, SIGSTOP) == 0;
	hold->changed_ns = now;
}

void hold_begin(struct hold *hold)
{
	if (!hold)
		return;
	(void)pthread_mutex_lock(&hold->lock);
	if (hold->pid > 0)
		stop(hold);
	(void)pthread_mutex_unlock(&hold->lock);
}

void hold_end(struct hold *hold)
{
	if (!hold)
		return;
	(void)pthread_mutex_lock(&hold->lock);
	go_on(hold);
	(void)pthread_mutex_unlock(&hold->lock);
}
