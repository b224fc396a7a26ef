/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/reading.h"

#include <errno.h>

#include "serve/limits.h"
#include "serve/serve.h"

void reading_init(struct reading *reading)
{
	*reading = (struct reading){ .head = NULL };
	reading->tail = &reading->head;
}

/* Ingest's turns, which is no user, are counted as those of any. */
static uint64_t *turn_of(struct reading *reading, const struct request *request)
{
	struct quota_user *user = request->session->user;

	return user ? &user->read_turn : &reading->turn_of_nobody;
}

/* Whose user was longest without a turn. */
static struct request *next_of(struct reading *reading)
{
	struct request *next = reading->head;

	for (struct request *q = reading->head; q; q = q->read_next)
		if (*turn_of(reading, q) < *turn_of(reading, next))
			next = q;
	return next;
}

static void leave(struct reading *reading, struct request *request)
{
	struct request **at = &reading->head;

	while (*at != request)
		at = &(*at)->read_next;
	*at = request->read_next;
	if (reading->tail == &request->read_next)
		reading->tail = at;
	request->read_next = NULL;
	request->is_reading = false;
}

void reading_forget(struct serve *serve, struct request *request)
{
	leave(&serve->reading, request);
	(void)checksum_end(TAKE_PTR(request->checksum));
	closep(&request->job_fd);
	request->job_fd = -1;
}

static void read_part(struct serve *serve, struct request *request)
{
	const struct shm_request *wire = &request->wire;
	uint64_t n = wire->n_bytes - request->n_read;

	if (wire->verb != SHM_ECHO) {
		int r = decoder_copy(request, SERVE_READ_BYTES);

		if (r != 0) {
			leave(&serve->reading, request);
			decoder_copied(serve, request, r);
		}
		return;
	}
	n = n < SERVE_READ_BYTES ? n : SERVE_READ_BYTES;
	checksum_add(request->checksum,
		session_shm_slot(&request->session->shm, wire->slot) + request->n_read, n);
	request->n_read += n;
	if (request->n_read < wire->n_bytes)
		return;
	leave(&serve->reading, request);
	request->answer.checksum = checksum_end(TAKE_PTR(request->checksum));
	request_complete(serve, request);
}

void reading_run(struct serve *serve)
{
	struct reading *reading = &serve->reading;
	struct request *request = next_of(reading);

	if (!request)
		return;
	reading->turn = (*turn_of(reading, request))++;
	read_part(serve, request);
}

int reading_start(struct serve *serve, struct request *request)
{
	struct reading *reading = &serve->reading;
	uint64_t *turn = turn_of(reading, request);
	int r = 0;

	if (request->wire.verb == SHM_ECHO)
		r = checksum_begin(&request->checksum);
	if (r < 0)
		return r;
	/* Turns that were not taken while there was nothing to read are not made up for. */
	if (*turn < reading->turn)
		*turn = reading->turn;
	request->n_read = 0;
	request->is_reading = true;
	request->read_next = NULL;
	*reading->tail = request;
	reading->tail = &request->read_next;
	return 0;
}
