/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inspects files for one site from a program that has its own poll() loop:
 *   example_poll SITE FILE...
 * A line a file: verdict, novelty, name. Several requests are in flight at a time.
 */
#include <errno.h>
#include <poll.h>

#include "inspect.h"

int main(int argc, char **argv)
{
	struct inspection inspection;
	struct pollfd poller;
	uint64_t until;
	int r = inspection_begin(&inspection, argc, argv);

	if (r != 0)
		return r;
	poller = (struct pollfd){ .fd = kamen_client_get_fd(inspection.client),
		.events = (short)kamen_client_get_events(inspection.client) };
	while (inspection_turn(&inspection, &until)) {
		uint64_t now = inspection_now_ns();
		int timeout_ms = -1;

		if (until != UINT64_MAX)
			timeout_ms = until > now ? (int)((until - now) / 1000000 + 1) : 0;
		if (poll(&poller, 1, timeout_ms) < 0 && errno != EINTR)
			inspection.r = -errno;
		if (inspection.r < 0)
			break;
	}
	return inspection_end(&inspection);
}
