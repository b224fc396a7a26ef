/* SPDX-License-Identifier: Apache-2.0 */
#include "client.h"

#include <errno.h>

#include "clock.h"

#define PAUSE_FIRST_NS (5 * NS_PER_MS)
#define PAUSE_LAST_NS (250 * NS_PER_MS)
/* A socket may listen long before its daemon has packed a model, but not all wait for that. */
#define HELLO_NS (10 * NS_PER_S)
/* What is in flight each time that a daemon dies may be what it dies of. */
#define MOST_SENT 8u

static const char gone[] = "the daemon is gone";

static void pause_begin(struct kamen_client *client, uint64_t now)
{
	session_hang_up(client);
	client->link = LINK_WAITING;
	client->step_ns = now + client->pause_ns;
	client->pause_ns *= 2;
	if (client->pause_ns > PAUSE_LAST_NS)
		client->pause_ns = PAUSE_LAST_NS;
}

static void answer_all(struct kamen_client *client, int code, const char *reason)
{
	for (uint32_t i = 0; i < client->n_slots; i++)
		if (client->slots[i].state == SLOT_IN_FLIGHT)
			answer_here(client, i, code, reason);
}

static const char *reason_of(int error)
{
	switch (error) {
	case -ENOTCONN:
		return gone;
	case -EPROTO:
		return "the daemon breaks the protocol";
	case -EMSGSIZE:
		return "the daemon has fewer or smaller slots now";
	default:
		return "the daemon takes no session any more";
	}
}

void link_end(struct kamen_client *client, int error)
{
	session_hang_up(client);
	for (uint32_t i = 0; i < client->n_slots; i++)
		client->slots[i].owed = false;
	client->link = LINK_ENDED;
	client->error = error;
	answer_all(client, error, reason_of(error));
}

void link_lose(struct kamen_client *client)
{
	if (!client->may_reconnect) {
		link_end(client, -ENOTCONN);
		return;
	}
	client->lost_ns = clock_now_ns();
	/* Its process or its session is gone: nobody reads those frames, nobody writes there. */
	for (uint32_t i = 0; i < client->n_slots; i++)
		client->slots[i].owed = false;
	/* One that worked is worth an attempt at once; one that never answered is not. */
	if (client->n_taken > 0 || client->pause_ns == 0)
		client->pause_ns = PAUSE_FIRST_NS;
	pause_begin(client, client->lost_ns);
	if (client->n_taken > 0)
		client->step_ns = client->lost_ns;
}

/* In flight, and of the least id from that one on; n_slots: none. */
static uint32_t slot_of_next(const struct kamen_client *client, uint64_t id)
{
	uint32_t best = client->n_slots;

	for (uint32_t i = 0; i < client->n_slots; i++) {
		const struct slot *slot = &client->slots[i];

		if (slot->state == SLOT_IN_FLIGHT && slot->entry.id >= id &&
			(best == client->n_slots || slot->entry.id < client->slots[best].entry.id))
			best = i;
	}
	return best;
}

/* Everything that is in flight, in the order in which it was submitted. */
static int replay(struct kamen_client *client)
{
	uint64_t id = 0;
	uint32_t i;
	int r;

	while ((i = slot_of_next(client, id)) < client->n_slots) {
		id = client->slots[i].entry.id + 1;
		if (client->slots[i].n_sent >= MOST_SENT) {
			answer_here(client, i, -ENOTCONN, "the daemon went each time it had this");
			continue;
		}
		r = submit_entry(client, i);
		if (r < 0)
			return r;
	}
	submit_publish(client);
	return 0;
}

static bool is_final(int r)
{
	return r == -EACCES || r == -EPROTO || r == -EMSGSIZE;
}

static void hello_process(struct kamen_client *client, uint64_t now)
{
	int r = session_finish(client);

	if (r == 0) {
		client->link = LINK_UP;
		client->is_given_up = false;
		r = replay(client);
	}
	if (r == 0 || (r == -EAGAIN && now < client->step_ns))
		return;
	if (is_final(r))
		link_end(client, r);
	else
		pause_begin(client, now);
}

void link_process(struct kamen_client *client)
{
	uint64_t now;

	if (client->link == LINK_UP || client->link == LINK_ENDED)
		return;
	now = clock_now_ns();
	if (client->link == LINK_WAITING && now >= client->step_ns) {
		/* Also -EACCES: a socket is bound before it is given away. */
		if (session_begin(client, false) == 0) {
			client->link = LINK_HELLO;
			client->step_ns = now + HELLO_NS;
		} else {
			pause_begin(client, now);
		}
	}
	if (client->link == LINK_HELLO)
		hello_process(client, now);
	if ((client->link == LINK_WAITING || client->link == LINK_HELLO) &&
		now - client->lost_ns >= client->reconnect_ns) {
		client->is_given_up = true;
		answer_all(client, -ENOTCONN, gone);
	}
}

uint64_t link_timeout(const struct kamen_client *client)
{
	uint64_t patience;

	if (client->link == LINK_UP)
		return UINT64_MAX;
	if (client->link == LINK_ENDED)
		return 0;
	patience = client->is_given_up ? UINT64_MAX
				       : clock_after(client->lost_ns, client->reconnect_ns);
	return patience < client->step_ns ? patience : client->step_ns;
}

int link_error(const struct kamen_client *client)
{
	if (client->link == LINK_ENDED)
		return client->error;
	return client->is_given_up ? -ENOTCONN : 0;
}
