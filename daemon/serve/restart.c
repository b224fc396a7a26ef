/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/restart.h"

#include <errno.h>

#include "ops/log.h"
#include "serve/limits.h"
#include "serve/serve.h"
#include "serve/session_resume.h"

/* ---- the way back */

static void release(struct restart *restart)
{
	restart->timer = sd_event_source_disable_unref(restart->timer);
	restart->look = sd_event_source_disable_unref(restart->look);
	if (restart->client)
		control_unuse(TAKE_PTR(restart->client));
	restart->phase = RESTART_NONE;
}

void restart_cancel(struct serve *serve)
{
	release(&serve->restart);
}

static void give_up(struct serve *serve, int r)
{
	struct restart *restart = &serve->restart;

	log_error("cannot execute %s: %s: serving goes on as before", serve->self, strerror(-r));
	if (restart->client)
		control_error(restart->client, restart->id, r, "cannot execute %s: %s", serve->self,
			strerror(-r));
	roles_resume(serve);
	rounds_lost(serve);
	release(restart);
	notes_say(&serve->notes, serve->event, "READY=1");
	serve_notify_status(serve);
	sessions_pause(serve, false);
}

/* ---- the way on */

/*
 * The database stays open: it has to bear a kill at any time, and if the program cannot be executed
 * this one goes on with it. Descriptors that are not handed on close themselves.
 */
static void execute(struct serve *serve)
{
	_cleanup_(freep) struct handed *items = NULL;
	uint32_t n = 0;
	int r;

	/* Who is still there has had his time. */
	roles_kill(serve);
	roles_stop(serve);
	hard_store_finish(serve);
	admission_commit(serve);
	sites_save(serve);
	r = sessions_list(serve, &items, &n);
	if (r >= 0) {
		items[n++] = (struct handed){ "data", serve->sessions.listen_fd };
		items[n++] = (struct handed){ "control", serve->control.listen_fd };
		log_info("executing %s with %u descriptors, %u requests are still to be answered",
			serve->self, n, serve->n_pending);
		r = handover_execute(items, n, serve->restart.paused_ns, serve->self, serve->argv);
	}
	give_up(serve, r);
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata);

static int arm(struct serve *serve, uint64_t pause_ns)
{
	struct restart *restart = &serve->restart;

	restart->timer = sd_event_source_disable_unref(restart->timer);
	return sd_event_add_time_relative(serve->event, &restart->timer, CLOCK_MONOTONIC,
		pause_ns / NS_PER_US, 0, on_timer, serve);
}

static void pause_serving(struct serve *serve)
{
	struct restart *restart = &serve->restart;

	restart->phase = RESTART_PAUSED;
	restart->paused_ns = clock_now_ns();
	sessions_pause(serve, true);
	roles_end(serve, ROLE_INGEST);
	restart_look(serve);
	if (arm(serve, SERVE_PAUSE_NS) < 0)
		execute(serve);
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct serve *serve = userdata;

	(void)source;
	(void)usec;
	if (serve->restart.phase == RESTART_LEARNER)
		pause_serving(serve);
	else
		execute(serve);
	return 0;
}

static int on_look(sd_event_source *source, void *userdata)
{
	struct serve *serve = userdata;
	struct restart *restart = &serve->restart;

	(void)source;
	if (restart->phase == RESTART_LEARNER && serve->roles[ROLE_LEARNER].pid == 0)
		pause_serving(serve);
	else if (restart->phase == RESTART_PAUSED && serve->roles[ROLE_INGEST].pid == 0 &&
		 serve->n_pending == decoder_n_waiting(serve))
		execute(serve);
	return 0;
}

/* From the loop itself: whoever calls holds things that execute() may pull away. */
void restart_look(struct serve *serve)
{
	if (serve->restart.phase != RESTART_NONE)
		(void)sd_event_source_set_enabled(serve->restart.look, SD_EVENT_ONESHOT);
}

/* ---- asked for */

/* What would keep the next program from serving is better known now. */
static int check(struct serve *serve, struct diag *diag)
{
	struct config next;
	int r;

	if (access(serve->self, X_OK) < 0)
		return diag_set(diag, errno, "%s: %s", serve->self, strerror(errno));
	r = config_load(&next, serve->boot->path[0] ? serve->boot->path : NULL, diag);
	if (r < 0)
		return r;
	r = sites_check_files(serve, &next, diag);
	config_done(&next);
	return r;
}

int restart_begin(struct serve *serve, struct diag *diag)
{
	struct restart *restart = &serve->restart;
	int r;

	if (!serve->serving || serve->draining || restart->phase != RESTART_NONE)
		return diag_set(diag, EBUSY, "the daemon is starting or stopping already");
	r = check(serve, diag);
	if (r < 0)
		return r;
	r = sd_event_add_defer(serve->event, &restart->look, on_look, serve);
	if (r >= 0)
		r = arm(serve, SERVE_ROLE_GRACE_NS);
	if (r < 0) {
		release(restart);
		return r;
	}
	restart->phase = RESTART_LEARNER;
	log_notice("restarting: %s is executed in place of this program", serve->self);
	notes_say(&serve->notes, serve->event, "RELOADING=1\nMONOTONIC_USEC=%llu",
		(unsigned long long)(clock_now_ns() / NS_PER_US));
	roles_end(serve, ROLE_LEARNER);
	return 0;
}

void control_restart(struct control_client *client, const Kamen__Request *request)
{
	struct serve *serve = client->serve;
	struct diag diag = { .text = "" };
	char who[CONTROL_WHO_BYTES];
	int r;

	r = restart_begin(serve, &diag);
	if (r < 0) {
		control_error(
			client, request->id, r, "%s", diag.text[0] ? diag.text : strerror(-r));
		return;
	}
	control_who(client, who);
	log_notice("a restart was asked for by %s", who);
	client->n_using++;
	serve->restart.client = client;
	serve->restart.id = request->id;
}
