/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/quota.h"

#include <errno.h>

#include "serve/limits.h"

const char *const quota_names[] = { "uid_clients", "uid_bytes", "uid_depth", "uid_rate" };

/* Whoever would come back for a fresh allowance is remembered until it would be whole anyway. */
static bool is_forgettable(const struct quota_user *user, uint64_t now)
{
	return user->n_connections == 0 && user->full_ns <= now && user->opened_ns <= now;
}

static void forget(struct quota_table *table, struct quota_user **at)
{
	struct quota_user *user = *at;

	*at = user->next;
	free(user);
	table->n--;
}

/* Users without a connection cost nobody anything but this memory: it has a bound. */
static void sweep(struct quota_table *table, uint64_t now)
{
	struct quota_user **at = &table->users;

	while (*at) {
		bool is_surplus = table->n >= SERVE_MAX_USERS && (*at)->n_connections == 0;

		if (is_forgettable(*at, now) || is_surplus)
			forget(table, at);
		else
			at = &(*at)->next;
	}
}

int quota_enter(struct quota_table *table, uid_t uid, uint64_t now, struct quota_user **ret_user)
{
	struct quota_user *user = table->users;

	while (user && user->uid != uid)
		user = user->next;
	if (!user) {
		sweep(table, now);
		user = calloc(1, sizeof(*user));
		if (!user)
			return -ENOMEM;
		user->uid = uid;
		user->next = table->users;
		table->users = user;
		table->n++;
	}
	user->n_connections++;
	*ret_user = user;
	return 0;
}

void quota_leave(struct quota_table *table, struct quota_user *user, uint64_t now)
{
	struct quota_user **at = &table->users;

	if (!user || --user->n_connections > 0 || !is_forgettable(user, now))
		return;
	while (*at != user)
		at = &(*at)->next;
	forget(table, at);
}

static int refuse(struct quota_table *table, enum quota quota, int r)
{
	table->n_refused[quota]++;
	return r;
}

int quota_open(struct quota_table *table, struct quota_user *user, const struct config *config,
	uint64_t n_bytes, struct diag *diag)
{
	if (!user)
		return 0;
	if (config->uid_clients > 0 && user->n_clients >= config->uid_clients) {
		(void)diag_set(diag, EUSERS, "uid_clients: user %u has %u sessions already",
			user->uid, user->n_clients);
		return refuse(table, QUOTA_CLIENTS, -EUSERS);
	}
	if (config->uid_bytes > 0 &&
		(n_bytes > config->uid_bytes || user->n_bytes > config->uid_bytes - n_bytes)) {
		(void)diag_set(diag, EDQUOT,
			"uid_bytes: user %u has %llu bytes of shared memory and asks for %llu more",
			user->uid, (unsigned long long)user->n_bytes, (unsigned long long)n_bytes);
		return refuse(table, QUOTA_BYTES, -EDQUOT);
	}
	user->n_clients++;
	user->n_bytes += n_bytes;
	return 0;
}

void quota_close(struct quota_user *user)
{
	if (user)
		user->n_clients--;
}

void quota_free_bytes(struct quota_user *user, uint64_t n_bytes)
{
	if (user)
		user->n_bytes -= n_bytes;
}

/* A bucket of `burst` tokens, told by the time at which it is full again. */
static bool spend(struct quota_user *user, const struct config *config, uint64_t now)
{
	uint64_t token_ns = NS_PER_S / config->uid_rate;
	uint64_t burst = config->uid_burst > 0 ? config->uid_burst : config->uid_rate;
	uint64_t full_ns = (user->full_ns > now ? user->full_ns : now) + token_ns;

	if (full_ns - now > burst * token_ns)
		return false;
	user->full_ns = full_ns;
	return true;
}

int quota_ask(struct quota_table *table, struct quota_user *user, const struct config *config,
	uint64_t now, struct diag *diag)
{
	if (!user)
		return 0;
	if (config->uid_depth > 0 && user->n_requests > config->uid_depth) {
		(void)diag_set(diag, EDQUOT, "uid_depth: user %u has %u requests in flight",
			user->uid, user->n_requests - 1);
		return refuse(table, QUOTA_DEPTH, -EDQUOT);
	}
	if (config->uid_rate > 0 && !spend(user, config, now)) {
		(void)diag_set(diag, EDQUOT, "uid_rate: user %u asks more than %u times a second",
			user->uid, config->uid_rate);
		return refuse(table, QUOTA_RATE, -EDQUOT);
	}
	return 0;
}

static bool is_alone(const struct quota_table *table, const struct quota_user *user, uint64_t now)
{
	uint64_t others_ns = table->last == user ? table->other_ns : table->last_ns;

	return others_ns == 0 || now - others_ns > SERVE_ABOUT_NS;
}

/* Half of the time that goes by, its own turns' too, less what it spends. */
static void settle(struct quota_user *user, uint64_t now, uint64_t spent_ns, uint64_t debt_ns)
{
	int64_t credit_ns =
		user->credit_ns + (int64_t)((now - user->credit_at_ns) / 2) - (int64_t)spent_ns;

	if (credit_ns > (int64_t)SERVE_CREDIT_NS)
		credit_ns = SERVE_CREDIT_NS;
	if (credit_ns < -(int64_t)debt_ns)
		credit_ns = -(int64_t)debt_ns;
	user->credit_ns = credit_ns;
	user->credit_at_ns = now;
}

bool quota_has_turn(struct quota_user *user, uint64_t now)
{
	if (!user)
		return true;
	settle(user, now, 0, SERVE_DEBT_NS);
	return user->credit_ns > 0;
}

void quota_took_turn(
	struct quota_table *table, struct quota_user *user, uint64_t now, uint64_t spent_ns)
{
	if (table->last != user)
		table->other_ns = table->last_ns;
	table->last = user;
	table->last_ns = now;
	/* What is done while nobody else wants the loop is next to nothing that it owes. */
	if (user)
		settle(user, now, spent_ns,
			is_alone(table, user, now) ? SERVE_CREDIT_NS : SERVE_DEBT_NS);
}

uint64_t quota_turn_at(const struct quota_table *table, struct quota_user *user, uint64_t now)
{
	if (quota_has_turn(user, now) || is_alone(table, user, now))
		return now;
	return now + 2 * (uint64_t)(1 - user->credit_ns);
}

/* ---- opening */

static void put_off(struct quota_user *user, uint64_t now, uint64_t ns)
{
	user->opened_ns = (user->opened_ns > now ? user->opened_ns : now) + ns;
	if (user->opened_ns > now + SERVE_MAX_OPEN_NS)
		user->opened_ns = now + SERVE_MAX_OPEN_NS;
}

uint64_t quota_open_at(struct quota_user *user, uint64_t now)
{
	if (!user)
		return now;
	put_off(user, now, SERVE_OPEN_NS);
	return user->opened_ns > now + SERVE_OPEN_BURST_NS ? user->opened_ns - SERVE_OPEN_BURST_NS
							   : now;
}

void quota_offended(struct quota_user *user, uint64_t now)
{
	if (user)
		put_off(user, now, SERVE_OFFENCE_NS);
}

void quota_done(struct quota_table *table)
{
	while (table->users)
		forget(table, &table->users);
}
