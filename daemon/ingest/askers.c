/* SPDX-License-Identifier: Apache-2.0 */
#include "ingest/askers.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What may wait of a connection, of a peer with all of its connections, and of all peers. A peer
 * that has nothing waiting is let in up to twice the last. */
enum {
	MAX_WAITING_OF_ONE = 16,
	MAX_WAITING_OF_PEER = 256,
	MAX_WAITING = 1024,
};
#define MAX_BYTES_OF_ONE (UINT64_C(64) << 20)
#define MAX_BYTES_OF_PEER (UINT64_C(128) << 20)
#define MAX_BYTES (UINT64_C(256) << 20)

void askers_init(struct askers *askers)
{
	*askers = (struct askers){ .n_waiting = 0 };
	TAILQ_INIT(&askers->parties);
}

/* ---- who */

static struct party *find_party(const struct askers *askers, const char *name)
{
	struct party *party;

	TAILQ_FOREACH(party, &askers->parties, link)
	if (strcmp(party->name, name) == 0)
		return party;
	return NULL;
}

static struct party *add_party(struct askers *askers, const char *name)
{
	struct party *party = calloc(1, sizeof(*party));

	if (!party)
		return NULL;
	(void)snprintf(party->name, sizeof(party->name), "%s", name);
	TAILQ_INIT(&party->askers);
	TAILQ_INSERT_TAIL(&askers->parties, party, link);
	return party;
}

static void put_party(struct askers *askers, struct party *party)
{
	if (!TAILQ_EMPTY(&party->askers))
		return;
	TAILQ_REMOVE(&askers->parties, party, link);
	free(party);
}

static struct asker *find_asker(const struct party *party, const struct router_socket *socket,
	const struct ask_part *address)
{
	struct asker *asker;

	TAILQ_FOREACH(asker, &party->askers, link)
	if (!asker->is_gone && asker->socket == socket &&
		memcmp(asker->address, address->data, ASKER_ADDRESS_BYTES) == 0)
		return asker;
	return NULL;
}

struct asker *askers_get(struct askers *askers, struct router_socket *socket,
	const struct ask_part *address, const char *peer)
{
	struct party *party = find_party(askers, peer);
	struct asker *asker;

	if (!party)
		party = add_party(askers, peer);
	if (!party)
		return NULL;
	asker = find_asker(party, socket, address);
	if (asker)
		return asker;
	asker = calloc(1, sizeof(*asker));
	if (!asker) {
		put_party(askers, party);
		return NULL;
	}
	asker->all = askers;
	asker->party = party;
	asker->socket = socket;
	memcpy(asker->address, address->data, ASKER_ADDRESS_BYTES);
	TAILQ_INIT(&asker->waiting);
	TAILQ_INSERT_TAIL(&party->askers, asker, link);
	return asker;
}

void asked_free(struct asked *asked)
{
	(void)zmq_msg_close(&asked->pixels);
	free(asked);
}

static void count_waiting(struct asker *asker, uint64_t n_bytes)
{
	asker->n_waiting++;
	asker->n_bytes += n_bytes;
	asker->party->n_waiting++;
	asker->party->n_bytes += n_bytes;
	asker->all->n_waiting++;
	asker->all->n_bytes += n_bytes;
}

void asked_take(struct asked *asked)
{
	struct asker *asker = asked->asker;

	TAILQ_REMOVE(&asker->waiting, asked, link);
	asker->n_waiting--;
	asker->n_bytes -= asked->ask.n_bytes;
	asker->party->n_waiting--;
	asker->party->n_bytes -= asked->ask.n_bytes;
	asker->all->n_waiting--;
	asker->all->n_bytes -= asked->ask.n_bytes;
}

static void forget_waiting(struct asker *asker)
{
	struct asked *asked;

	while ((asked = TAILQ_FIRST(&asker->waiting))) {
		asked_take(asked);
		asked_free(asked);
	}
}

void asker_put(struct asker *asker)
{
	if (asker->n_waiting > 0 || asker->n_flying > 0)
		return;
	TAILQ_REMOVE(&asker->party->askers, asker, link);
	put_party(asker->all, asker->party);
	free(asker);
}

void asker_gone(struct asker *asker)
{
	asker->is_gone = true;
	forget_waiting(asker);
}

/* ---- whose turn */

struct asker *askers_next(const struct askers *askers, unsigned share)
{
	struct party *party;
	struct asker *asker;

	TAILQ_FOREACH(party, &askers->parties, link)
	{
		if (party->n_waiting == 0 || party->n_flying >= share)
			continue;
		TAILQ_FOREACH(asker, &party->askers, link)
		if (asker->n_waiting > 0)
			return asker;
	}
	return NULL;
}

void asker_had_turn(struct asker *asker)
{
	struct askers *askers = asker->all;
	struct party *party = asker->party;

	TAILQ_REMOVE(&party->askers, asker, link);
	TAILQ_INSERT_TAIL(&party->askers, asker, link);
	TAILQ_REMOVE(&askers->parties, party, link);
	TAILQ_INSERT_TAIL(&askers->parties, party, link);
}

static uint64_t first_deadline(const struct party *party)
{
	uint64_t until_ns = UINT64_MAX;
	const struct asker *asker;
	const struct asked *asked;

	TAILQ_FOREACH(asker, &party->askers, link)
	TAILQ_FOREACH(asked, &asker->waiting, link)
	if (asked->deadline_ns > 0 && asked->deadline_ns < until_ns)
		until_ns = asked->deadline_ns;
	return until_ns;
}

uint64_t askers_deadline(const struct askers *askers)
{
	uint64_t until_ns = UINT64_MAX;
	const struct party *party;

	TAILQ_FOREACH(party, &askers->parties, link)
	{
		uint64_t first_ns = first_deadline(party);

		until_ns = first_ns < until_ns ? first_ns : until_ns;
	}
	return until_ns;
}

/* ---- what waits */

static bool has_room(const struct asker *asker, uint64_t n_bytes)
{
	const struct party *party = asker->party;
	const struct askers *askers = asker->all;
	unsigned beyond = party->n_waiting == 0 ? 2 : 1;

	if (asker->n_waiting > 0 && (asker->n_waiting >= MAX_WAITING_OF_ONE ||
					    asker->n_bytes + n_bytes > MAX_BYTES_OF_ONE))
		return false;
	if (party->n_waiting > 0 && (party->n_waiting >= MAX_WAITING_OF_PEER ||
					    party->n_bytes + n_bytes > MAX_BYTES_OF_PEER))
		return false;
	return askers->n_waiting < beyond * MAX_WAITING &&
	       askers->n_bytes + n_bytes <= beyond * MAX_BYTES;
}

int asker_add(struct asker *asker, const struct ask *ask, uint64_t deadline_ns, zmq_msg_t *pixels)
{
	struct asked *asked;

	if (!has_room(asker, ask->n_bytes))
		return -EBUSY;
	asked = calloc(1, sizeof(*asked));
	if (!asked)
		return -ENOMEM;
	asked->asker = asker;
	asked->ask = *ask;
	asked->deadline_ns = deadline_ns;
	(void)zmq_msg_init(&asked->pixels);
	(void)zmq_msg_move(&asked->pixels, pixels);
	/* A short message lies in the zmq_msg_t itself, which has moved. */
	asked->ask.pixels = zmq_msg_data(&asked->pixels);
	TAILQ_INSERT_TAIL(&asker->waiting, asked, link);
	count_waiting(asker, ask->n_bytes);
	return 0;
}
