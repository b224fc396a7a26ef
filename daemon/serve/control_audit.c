/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>

#include "serve/control.h"
#include "serve/serve.h"

/* So that an answer stays far below what may wait for a client; it asks again for the rest. */
#define MAX_ROWS 256

struct audience {
	struct control_client *client;
	uint64_t id;
};

static void reply_row(void *data, const struct chain_row *row)
{
	const struct audience *audience = data;
	Kamen__AuditRow message = KAMEN__AUDIT_ROW__INIT;
	Kamen__Reply reply = KAMEN__REPLY__INIT;

	message.seq = row->seq;
	message.time_us = row->time_us;
	message.site = (char *)(uintptr_t)row->site;
	message.what = (char *)(uintptr_t)row->what;
	message.detail = (char *)(uintptr_t)row->detail;
	message.prev = (ProtobufCBinaryData){ DIGEST_BYTES, (uint8_t *)(uintptr_t)row->prev.bytes };
	message.hash = (ProtobufCBinaryData){ DIGEST_BYTES, (uint8_t *)(uintptr_t)row->hash.bytes };
	reply.row_case = KAMEN__REPLY__ROW_AUDIT;
	reply.audit = &message;
	control_reply(audience->client, audience->id, false, &reply, -1);
}

/* The rows as they are stored: who asked checks the chain. */
void control_audit_show(struct control_client *client, const Kamen__Request *request)
{
	const Kamen__AuditShow *show = request->audit_show;
	struct audience audience = { client, request->id };
	struct state *state = client->serve->state;
	const char *site = show->site ? show->site : "";
	uint64_t after = show->has_after ? show->after : 0;
	int r = 0;

	if (show->has_last && show->last > AUDIT_MAX_LAST) {
		control_error(client, request->id, -EINVAL,
			"at most the last %u rows; 0: all of them", AUDIT_MAX_LAST);
		return;
	}
	if (show->has_last && show->last > 0)
		r = state_audit_seek(state, site, show->last, &after);
	if (r >= 0)
		r = state_audit_walk(state, site, after, MAX_ROWS, reply_row, &audience);
	if (r < 0)
		control_error(client, request->id, r, "the audit cannot be read: %s", strerror(-r));
	else
		control_done(client, request->id);
}
