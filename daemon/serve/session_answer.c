/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <sys/socket.h>

#include "serve/serve.h"

static void write_result(
	struct shm_result *out, const struct request *request, const struct answer *answer)
{
	const struct shm_request *wire = &request->wire;
	uint32_t n = answer->n_embedding + answer->n_hardness;

	out->id = wire->id;
	out->trigger_id = wire->trigger_id;
	out->part_id = wire->part_id;
	out->capture_us = wire->capture_us;
	out->encoder = wire->encoder;
	out->deadline_ns = wire->deadline_ns;
	out->queue_ns = answer->queue_ns;
	out->compute_ns = answer->compute_ns;
	out->code = answer->code;
	out->verdict = answer->code < 0 ? SHM_NO_VERDICT : answer->verdict;
	out->version = answer->version;
	out->n_embedding = answer->n_embedding;
	out->n_hardness = answer->n_hardness;
	out->hardness_side = answer->hardness_side;
	out->novelty = answer->novelty;
	out->distance = answer->distance;
	out->score = answer->score;
	out->unknown = answer->unknown;
	out->outcome = answer->outcome;
	out->checksum = answer->checksum;
	memcpy(out->space, answer->space.bytes, sizeof(out->space));
	memcpy(out->label, answer->label, sizeof(out->label));
	memset(out->reason, 0, sizeof(out->reason));
	if (answer->reason)
		(void)snprintf(out->reason, sizeof(out->reason), "%s", answer->reason);
	if (n > 0)
		memcpy(out->values, request->values, n * sizeof(float));
}

void session_answer(
	struct session *session, const struct request *request, const struct answer *answer)
{
	uint32_t slot = request->wire.slot;
	char bell = 1;

	session->in_slot[slot] = NULL;
	if (session->closed)
		return;
	write_result(session_shm_result(&session->shm, slot), request, answer);
	/* A full socket means that the client has bells enough to wake up by. */
	if (session_shm_complete(&session->shm, slot, request->wire.id))
		(void)send(session->fd, &bell, 1, MSG_DONTWAIT | MSG_NOSIGNAL);
	spin_touch(session);
}
