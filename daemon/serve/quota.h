/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_SERVE_QUOTA_H
#define KAMEN_SERVE_QUOTA_H

#include <sys/types.h>

#include "ops/config.h"
#include "serve/later.h"

/*
 * What one user may hold of data.sock, over all its sessions. Limits are those of the configuration
 * in force ([serve] uid_*; 0: none). A session without a user (NULL) is not limited: ingest's.
 */
enum quota { QUOTA_CLIENTS, QUOTA_BYTES, QUOTA_DEPTH, QUOTA_RATE, N_QUOTAS };

/** One uid with a session, or one that has spent its rate and went away. */
struct quota_user {
	uid_t uid;
	uint32_t n_connections; /* who points here */
	uint32_t n_clients, n_requests;
	uint64_t n_bytes;
	uint64_t full_ns;  /* when its allowance of requests is whole again */
	int64_t credit_ns; /* of the loop's time, as of credit_at_ns */
	uint64_t credit_at_ns;
	uint64_t opened_ns; /* up to when its sessions have used its pace of opening them */
	uint64_t turns[N_LATER];
	struct quota_user *next;
};

struct quota_table {
	struct quota_user *users;
	uint32_t n;
	uint64_t n_refused[N_QUOTAS];
	const struct quota_user
		*last;              /* to have a turn, never looked into; ingest is a user here */
	uint64_t last_ns, other_ns; /* when; and when one had that was not it */
};

/** Names of the keys behind the quotas, (N_QUOTAS). */
extern const char *const quota_names[];

/** A connection of uid: the table's, one quota_leave() each. 0 or -ENOMEM. */
int quota_enter(struct quota_table *table, uid_t uid, uint64_t now, struct quota_user **ret_user);
void quota_leave(struct quota_table *table, struct quota_user *user, uint64_t now);
/** A session with so much shared memory. 0: counted, -EUSERS, or -EDQUOT; text in diag. */
int quota_open(struct quota_table *table, struct quota_user *user, const struct config *config,
	uint64_t n_bytes, struct diag *diag);
/** Its end, and the end of its memory: that may live on until a forward has left it. */
void quota_close(struct quota_user *user);
void quota_free_bytes(struct quota_user *user, uint64_t n_bytes);
/**
 * A request that was counted in n_requests. 0, or -EDQUOT with text in diag: it is to be answered so.
 */
int quota_ask(struct quota_table *table, struct quota_user *user, const struct config *config,
	uint64_t now, struct diag *diag);
/**
 * Half of the loop's time is what a user may have before others. Beyond that it waits, however many
 * sessions it has.
 */
bool quota_has_turn(struct quota_user *user, uint64_t now);
/** A turn that ends now. */
void quota_took_turn(
	struct quota_table *table, struct quota_user *user, uint64_t now, uint64_t spent_ns);
/**
 * When one that has had more than its half may go on. At once where nobody else is about: else it
 * would take the CPUs from those whom it leaves the loop.
 */
uint64_t quota_turn_at(const struct quota_table *table, struct quota_user *user, uint64_t now);
/** When a session that asks now is to be opened: its place is taken. */
uint64_t quota_open_at(struct quota_user *user, uint64_t now);
/** One of its sessions has broken the rules: its next ones come later. */
void quota_offended(struct quota_user *user, uint64_t now);
void quota_done(struct quota_table *table);

#endif
