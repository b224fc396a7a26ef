/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/reading.h"

#include "serve/limits.h"
#include "serve/serve.h"

void reading_forget(struct serve *serve, struct request *request)
{
	later_forget(serve, &request->reading);
	(void)checksum_end(TAKE_PTR(request->checksum));
	closep(&request->job_fd);
	request->job_fd = -1;
}

static void read_echo(struct serve *serve, struct request *request)
{
	const struct shm_request *wire = &request->wire;
	uint64_t n = wire->n_bytes - request->n_read;

	n = n < SERVE_READ_BYTES ? n : SERVE_READ_BYTES;
	checksum_add(request->checksum,
		session_shm_slot(&request->session->shm, wire->slot) + request->n_read, n);
	request->n_read += n;
	if (request->n_read < wire->n_bytes) {
		later_add(serve, &request->reading);
		return;
	}
	request->answer.checksum = checksum_end(TAKE_PTR(request->checksum));
	request_complete(serve, request);
}

static void read_image(struct serve *serve, struct request *request)
{
	int r = decoder_copy(request, SERVE_READ_BYTES);

	if (r == 0)
		later_add(serve, &request->reading);
	else
		decoder_copied(serve, request, r);
}

static void read_part(void *owner)
{
	struct request *request = owner;
	struct serve *serve = request->session->serve;

	if (request->wire.verb == SHM_ECHO)
		read_echo(serve, request);
	else
		read_image(serve, request);
}

int reading_start(struct serve *serve, struct request *request)
{
	int r = 0;

	if (request->wire.verb == SHM_ECHO)
		r = checksum_begin(&request->checksum);
	if (r < 0)
		return r;
	request->n_read = 0;
	request->reading = (struct later_item){
		.user = request->session->user,
		.run = read_part,
		.owner = request,
	};
	later_add(serve, &request->reading);
	return 0;
}
