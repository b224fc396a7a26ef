/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "ingest/ask.h"
#include "ingest/peers.h"
#include "ingest/zap.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

enum { MAX_BYTES = 65536, MAX_FRAMES = 8 };

/* What passes can be read: every row lies inside the pixels. */
static void check(const struct ask *ask)
{
	uint64_t row, stride;

	if (ask->is_hello)
		return;
	if (ask->n_bytes == 0 || ask->n_bytes > MAX_BYTES || ask->verb < SHM_ECHO ||
		ask->verb > SHM_PUSH)
		abort();
	if (ask->verb == SHM_ECHO)
		return;
	if (wire_site_name_check(ask->site) < 0)
		abort();
	if (ask->format == SHM_ENCODED)
		return;
	row = (uint64_t)ask->width * shm_n_channels(ask->format);
	stride = ask->stride ? ask->stride : row;
	if (row == 0 || ask->height == 0 || stride < row ||
		stride * (ask->height - 1) + row > ask->n_bytes)
		abort();
}

static void authenticate(const struct ask_part *parts, unsigned n)
{
	static const char list[] = "[a]\nuid = 7\nsites = a\n[b]\naddress = 127.0.0.1\n";
	_cleanup_(peers_freep) struct peers *peers = NULL;
	struct zap_frame frames[MAX_FRAMES];
	char peer[PEER_CHARS] = "";
	const char *why;
	int status;

	if (peers_parse(&peers, "list", list, strlen(list), NULL) < 0)
		abort();
	for (unsigned i = 0; i < n; i++)
		frames[i] = (struct zap_frame){ parts[i].data, parts[i].n_bytes };
	status = zap_judge(peers, frames, n, peer, &why);
	/* No key is on that list. */
	if (status == 200 && strncmp(peer, "uid:", 4) != 0 && strncmp(peer, "address:", 8) != 0)
		abort();
	if (!why || (status != 200 && *peer))
		abort();
}

/*
 * A byte says whose parser, then parts: two bytes of length each, and so many bytes. Each part is
 * copied, so that what is read behind its end is seen.
 */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
	_cleanup_(wire_freep) struct wire *wire = NULL;
	struct ask_part parts[MAX_FRAMES];
	struct diag diag;
	struct ask ask;
	unsigned n = 0;
	uint8_t whose;

	if (n_bytes < 1 || wire_new(&wire) < 0)
		return 0;
	whose = data[0];
	if (whose == 2) {
		_cleanup_(peers_freep) struct peers *peers = NULL;

		(void)peers_parse(&peers, "list", (const char *)data + 1, n_bytes - 1, &diag);
		return 0;
	}
	for (data++, n_bytes--; n < MAX_FRAMES && n_bytes >= 2; n++) {
		size_t n_part = (size_t)data[0] | (size_t)data[1] << 8;
		void *copy;

		data += 2;
		n_bytes -= 2;
		n_part = n_part < n_bytes ? n_part : n_bytes;
		copy = malloc(n_part + (n_part == 0));
		if (!copy)
			break;
		memcpy(copy, data, n_part);
		parts[n] = (struct ask_part){ copy, n_part };
		data += n_part;
		n_bytes -= n_part;
	}
	if (whose == 1)
		authenticate(parts, n);
	else if (ask_parse(&ask, wire, parts, n < ASK_MAX_PARTS ? n : ASK_MAX_PARTS, MAX_BYTES,
			 &diag) == 0)
		check(&ask);
	while (n > 0)
		free((void *)(uintptr_t)parts[--n].data);
	return 0;
}
