/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/reading.h"

#include <stddef.h>

#include "serve/limits.h"
#include "serve/serve.h"

void reading_init(struct reading *reading)
{
	*reading = (struct reading){ .request = NULL };
	later_init(&reading->waiting, LATER_READING);
}

/* ---- in the hand: the request is nobody else's but for the word of who answers it */

static int read_echo(struct request *request)
{
	const struct shm_request *wire = &request->wire;
	uint64_t n = wire->n_bytes - request->n_read;

	n = n < SERVE_READ_BYTES ? n : SERVE_READ_BYTES;
	checksum_add(request->checksum,
		session_shm_slot(&request->session->shm, wire->slot) + request->n_read, n);
	request->n_read += n;
	return request->n_read == wire->n_bytes;
}

static bool read_part(struct errand *errand)
{
	struct reading *reading =
		(struct reading *)((char *)errand - offsetof(struct reading, errand));
	struct request *request = reading->request;

	reading->r = request->wire.verb == SHM_ECHO ? read_echo(request)
						    : decoder_copy(request, SERVE_READ_BYTES);
	return false;
}

/* ---- in the loop */

static void clean(struct request *request)
{
	(void)checksum_end(TAKE_PTR(request->checksum));
	closep(&request->job_fd);
	request->job_fd = -1;
}

static void complete(struct serve *serve, struct request *request, int r)
{
	if (atomic_load(&request->state) != REQUEST_PENDING) {
		clean(request);
		request_finish(serve, request);
	} else if (r == 0) {
		later_add(&serve->reading.waiting, &request->reading);
	} else if (request->wire.verb == SHM_ECHO) {
		request->answer.checksum = checksum_end(TAKE_PTR(request->checksum));
		request_complete(serve, request);
	} else {
		decoder_copied(serve, request, r);
	}
}

static void on_part(struct errand *errand);

static void feed(struct serve *serve)
{
	struct reading *reading = &serve->reading;
	struct later_item *item = reading->request ? NULL : later_take(&reading->waiting);

	if (!item)
		return;
	reading->request = item->owner;
	reading->errand = (struct errand){ .run = read_part, .done = on_part };
	hand_give(serve->hand, &reading->errand);
}

static void on_part(struct errand *errand)
{
	struct reading *reading =
		(struct reading *)((char *)errand - offsetof(struct reading, errand));
	struct request *request = TAKE_PTR(reading->request);
	struct serve *serve = request->session->serve;

	complete(serve, request, reading->r);
	feed(serve);
}

int reading_start(struct serve *serve, struct request *request)
{
	int r = 0;

	if (request->wire.verb == SHM_ECHO)
		r = checksum_begin(&request->checksum);
	if (r < 0)
		return r;
	request->n_read = 0;
	request->reading = (struct later_item){ .user = request->session->user, .owner = request };
	later_add(&serve->reading.waiting, &request->reading);
	feed(serve);
	return 0;
}

bool reading_forget(struct serve *serve, struct request *request)
{
	if (serve->reading.request == request)
		return false;
	later_forget(&serve->reading.waiting, &request->reading);
	clean(request);
	return true;
}
