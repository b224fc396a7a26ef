/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>
#include <zmq.h>

#include "ingest/zap.h"

enum { VERSION, SEQUENCE, DOMAIN, ADDRESS, IDENTITY, MECHANISM, CREDENTIALS, N_FRAMES };
enum { KEY_BYTES = 32 };

static bool says(const struct zap_frame *frame, const char *text)
{
	return frame->n_bytes == strlen(text) && memcmp(frame->data, text, frame->n_bytes) == 0;
}

/* libzmq writes "NAME:UID:GID:PID" for who connects to ipc://. */
static bool name_user(const struct zap_frame *address, char ret_peer[PEER_CHARS])
{
	const char *text = address->data;
	size_t at = address->n_bytes, end = at;

	for (unsigned i = 0; i < 3; i++) {
		end = at;
		while (at > 0 && text[at - 1] >= '0' && text[at - 1] <= '9')
			at--;
		if (at == end || at == 0 || text[--at] != ':')
			return false;
	}
	if (end - at - 1 > 10)
		return false;
	(void)snprintf(ret_peer, PEER_CHARS, "uid:%.*s", (int)(end - at - 1), text + at + 1);
	return true;
}

static bool name_address(const struct zap_frame *address, char ret_peer[PEER_CHARS])
{
	const char *text = address->data;
	size_t n = address->n_bytes;

	/* Where a socket takes both, IPv4 comes as IPv6. */
	if (n > 7 && memcmp(text, "::ffff:", 7) == 0) {
		text += 7;
		n -= 7;
	}
	if (n == 0 || n > PEER_CHARS / 2)
		return false;
	for (size_t i = 0; i < n; i++)
		if (!text[i] || !strchr("0123456789abcdef.:", text[i]))
			return false;
	(void)snprintf(ret_peer, PEER_CHARS, "address:%.*s", (int)n, text);
	return true;
}

int zap_judge(const struct peers *peers, const struct zap_frame *frames, unsigned n_frames,
	char ret_peer[PEER_CHARS], const char **ret_text)
{
	char name[PEER_CHARS] = "key:";

	*ret_text = "Not a question that is understood";
	if (n_frames < CREDENTIALS || n_frames > N_FRAMES || !says(&frames[VERSION], "1.0"))
		return 500;
	if (says(&frames[DOMAIN], ZAP_IPC) || says(&frames[DOMAIN], ZAP_PLAIN)) {
		bool is_ipc = says(&frames[DOMAIN], ZAP_IPC);

		*ret_text = "No encryption is spoken here";
		if (!says(&frames[MECHANISM], "NULL"))
			return 400;
		*ret_text = "Nobody knows who this is";
		if (!(is_ipc ? name_user : name_address)(&frames[ADDRESS], name))
			return 400;
	} else if (says(&frames[DOMAIN], ZAP_CURVE)) {
		*ret_text = "Only CURVE is spoken here";
		if (!says(&frames[MECHANISM], "CURVE"))
			return 400;
		*ret_text = "Not a key";
		if (n_frames != N_FRAMES || frames[CREDENTIALS].n_bytes != KEY_BYTES)
			return 500;
		*ret_text = "The key is not on the list";
		(void)zmq_z85_encode(name + strlen(name), frames[CREDENTIALS].data, KEY_BYTES);
		if (!peers_has(peers, name))
			return 400;
	} else {
		*ret_text = "No such domain";
		return 500;
	}
	memcpy(ret_peer, name, PEER_CHARS);
	*ret_text = "OK";
	return 200;
}
