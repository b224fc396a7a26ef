/* SPDX-License-Identifier: Apache-2.0 */
#include "transport.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static int shm_open_client(void **ret_connection, const struct load *load)
{
	struct kamen_options options = { .size = sizeof(options),
		/* Of a late answer the slot stays taken for a while. */
		.n_slots = 2 * load->depth < LOAD_MAX_DEPTH ? 2 * load->depth : LOAD_MAX_DEPTH,
		.slot_bytes = 3 * (uint64_t)load->px * load->px };
	struct kamen_client *client;
	int r = kamen_client_connect(&client, load->endpoint, &options);

	if (r == 0)
		*ret_connection = client;
	return r;
}

static void shm_close(void *connection)
{
	(void)kamen_client_free(connection);
}

static int shm_submit(void *connection, const struct kamen_request *request, int fill,
	uint32_t *ret_at, uint64_t *ret_id)
{
	struct kamen_frame frame;
	int r = kamen_frame_acquire(connection, request->n_bytes, &frame);

	if (r < 0)
		return r;
	/* A camera would have written it; the content does not matter to the time. */
	memset(frame.data, fill, request->n_bytes);
	*ret_at = frame.slot;
	return kamen_submit(connection, &frame, request, ret_id);
}

static int shm_wait(void *connection, uint64_t timeout_ns, struct load_answer *ret_answer)
{
	struct kamen_result result;
	int r = kamen_wait(connection, timeout_ns, &result);

	if (r < 0)
		return r;
	*ret_answer = (struct load_answer){
		.at = result.slot,
		.id = result.id,
		.code = result.code,
		.has_verdict = result.verdict != KAMEN_NO_VERDICT,
		.trigger_id = result.trigger_id,
		.part_id = result.part_id,
		.capture_us = result.capture_us,
		.encoder = result.encoder,
		.deadline_ns = result.deadline_ns,
		.compute_ns = result.compute_ns,
	};
	(void)snprintf(ret_answer->reason, sizeof(ret_answer->reason), "%s", result.reason);
	kamen_release(connection, &result);
	return 0;
}

const struct transport transport_shm = {
	.name = "shm",
	.open = shm_open_client,
	.close = shm_close,
	.submit = shm_submit,
	.wait = shm_wait,
};

const struct transport *transport_find(const char *name)
{
	static const struct transport *const all[] = { &transport_shm, &transport_zmq };

	for (unsigned i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		if (strcmp(all[i]->name, name) == 0)
			return all[i];
	return NULL;
}
