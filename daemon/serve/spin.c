/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/spin.h"

#include <sched.h>

#include "ops/log.h"
#include "ops/slice.h"
#include "serve/serve.h"

/* Timers and other descriptors are not kept waiting for longer than this. */
#define TURN_NS (50 * NS_PER_US)

static bool has_several_cpus(void)
{
	cpu_set_t set;

	return sched_getaffinity(0, sizeof(set), &set) == 0 && CPU_COUNT(&set) > 1;
}

static void drop(struct spin *spin, uint32_t i)
{
	session_shm_look_end(&spin->sessions[i]->shm);
	spin->sessions[i] = spin->sessions[--spin->n];
}

void spin_forget(struct session *session)
{
	struct spin *spin = &session->serve->spin;

	for (uint32_t i = 0; i < spin->n; i++)
		if (spin->sessions[i] == session) {
			drop(spin, i);
			return;
		}
}

void spin_touch(struct session *session)
{
	struct serve *serve = session->serve;
	struct spin *spin = &serve->spin;

	if (serve->config.spin_us == 0 || serve->draining ||
		serve->restart.phase == RESTART_PAUSED || session->closed)
		return;
	spin->until_ns = clock_now_ns() + serve->config.spin_us * NS_PER_US;
	for (uint32_t i = 0; i < spin->n; i++)
		if (spin->sessions[i] == session)
			return;
	/* What has no room rings, as it would anyway. */
	if (spin->n == SPIN_MAX_SESSIONS || !spin->may)
		return;
	spin->sessions[spin->n++] = session;
	session_shm_look_begin(&session->shm);
}

struct session *spin_ready(struct spin *spin)
{
	for (uint32_t i = 0; i < spin->n; i++) {
		uint32_t at = (spin->next + i) % spin->n;
		struct session *session = spin->sessions[at];

		if (!session->turn.waits && session_shm_waits(&session->shm)) {
			spin->next = at + 1;
			return session;
		}
	}
	return NULL;
}

/* A word to each client that it has to ring again, and a last look for what came without. */
static void sleep_prepare(struct spin *spin)
{
	while (spin->n > 0) {
		struct session *session = spin->sessions[spin->n - 1];

		drop(spin, spin->n - 1);
		if (session_shm_waits(&session->shm))
			(void)session_look(session);
	}
}

/* True: it looks on, and the loop must not sleep. */
static bool look(struct serve *serve)
{
	struct spin *spin = &serve->spin;
	uint64_t now = clock_now_ns(), turn = now + TURN_NS;

	while (spin->n > 0 && serve->n_pending == 0 && now < spin->until_ns && now < turn) {
		struct session *session = spin_ready(spin);

		/* Who is put off here gets its turn below, once everybody was looked at. */
		if (session)
			(void)session_look(session);
		else if (later_waits(&serve->later))
			return true;
		now = clock_now_ns();
	}
	if (spin->n > 0 && serve->n_pending == 0 && now < spin->until_ns)
		return true;
	sleep_prepare(spin);
	/* The last look may have found something. */
	return spin->n > 0;
}

/* Until something that waits for its turn may go on. */
static uint64_t rest_us(const struct serve *serve)
{
	uint64_t now = clock_now_ns(), due = later_due(&serve->later, &serve->quotas, now);

	return due == UINT64_MAX ? UINT64_MAX : due > now ? (due - now) / NS_PER_US + 1 : 0;
}

int spin_loop(struct serve *serve)
{
	int code = 0, r;

	serve->spin.may = has_several_cpus();
	/* Inference keeps every CPU busy; what is due is to be told at once all the same. */
	r = slice_first();
	if (r < 0)
		log_info("the loop has the usual time slice: %s", strerror(-r));
	do {
		r = sd_event_run(serve->event, look(serve) ? 0 : rest_us(serve));
		if (r < 0)
			return r;
		later_run(&serve->later, &serve->quotas, clock_now_ns(), r > 0);
	} while (sd_event_get_state(serve->event) != SD_EVENT_FINISHED);
	r = sd_event_get_exit_code(serve->event, &code);
	return r < 0 ? r : code;
}
