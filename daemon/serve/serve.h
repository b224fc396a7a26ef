/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_SERVE_SERVE_H
#define KAMEN_SERVE_SERVE_H

#include <systemd/sd-event.h>

#include "ops/config.h"
#include "ops/hand.h"
#include "ops/notes.h"
#include "serve/admission.h"
#include "serve/changes.h"
#include "serve/control.h"
#include "serve/decoder.h"
#include "serve/feed.h"
#include "serve/handover.h"
#include "serve/hard_store.h"
#include "serve/hold.h"
#include "serve/inference.h"
#include "serve/later.h"
#include "serve/peer.h"
#include "serve/quota.h"
#include "serve/reading.h"
#include "serve/request.h"
#include "serve/restart.h"
#include "serve/roles.h"
#include "serve/rounds.h"
#include "serve/scheduler.h"
#include "serve/session.h"
#include "serve/sites.h"
#include "serve/spin.h"
#include "site/state.h"
#include "wire.h"

/**
 * The serve role: one on serve_main()'s stack, passed down. Everything in it belongs to the loop
 * thread; scheduler and inference say what their thread may touch.
 */
struct serve {
	const struct config *boot; /* as started: model, folders, threads come from here for good */
	struct config config;      /* in force, read again at SIGHUP */
	bool owns_config;
	const char *self;
	char *const *argv; /* to execute itself with */
	sd_event *event;
	struct wire *wire; /* of every socket: a message is dealt with before the next is read */
	struct base *base;
	struct state *state;
	struct inference *inference;
	struct hold hold; /* the learner */
	struct scheduler *scheduler;
	struct peer_policy policy;
	struct site_table sites;
	struct session_list sessions;
	struct quota_table quotas;
	struct spin spin;
	struct later later;
	struct hand *hand; /* memory that is read or given back */
	struct reading reading;
	struct control control;
	struct decoder decoder;
	struct admission admission;
	struct feed feed;
	struct rounds rounds;
	struct hard_store hard_store;
	struct changes changes;
	struct role roles[N_ROLES];
	struct handover handover;
	struct notes notes;
	struct restart restart;
	uint64_t started_ns;
	uint32_t n_shadow_samples;
	uint32_t n_pending; /* requests that have no answer yet */
	sd_event_source *starting, *inference_io, *scheduler_io, *watchdog, *drain_timer;
	uint64_t watchdog_usec;
	bool serving, draining;
};

const char *serve_version(void);
/** Versions and clock; what data.sock adds is the session's. */
void serve_fill_welcome(Kamen__Welcome *welcome);
struct serving_model serve_model(const struct serve *serve);
/** prep_check() and the limit on sizes that clients may ask for. */
int serve_prep_check(const struct serve *serve, const struct prep *prep, struct diag *diag);
/** A line of state for systemctl status, where something worth a line has changed. */
void serve_notify_status(struct serve *serve);
/** The audit chain's head to the journal, where it grew by something that matters. */
void serve_log_audit(struct serve *serve);
/** To be called when a request was answered or freed, or a role has ended: ends a drain. */
void serve_check_drained(struct serve *serve);

#endif
