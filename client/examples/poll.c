/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inspects files for one site from a program that has its own poll() loop:
 *   example_poll SITE FILE...
 * A line a file: verdict, novelty, name. Several requests are in flight at a time.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "kamen/kamen.h"

static uint64_t now_ns(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* The file goes straight into shared memory. 0: sent. */
static int send_file(
	struct kamen_client *client, const char *site, const char *path, uint64_t index)
{
	struct kamen_request request = { .size = sizeof(request) };
	struct kamen_frame frame;
	FILE *f;
	int r = kamen_frame_acquire(client, 1, &frame);

	if (r < 0)
		return r; /* -EBUSY: take a result first */
	f = fopen(path, "rbe");
	if (f) {
		request.n_bytes = fread(frame.data, 1, frame.capacity, f);
		(void)fclose(f);
	}
	request.verb = KAMEN_INFER;
	request.format = KAMEN_ENCODED;
	request.site = site;
	request.part_id = index; /* comes back with the answer */
	request.deadline_ns = now_ns() + UINT64_C(2000000000);
	r = kamen_submit(client, &frame, &request, NULL);
	if (r < 0)
		kamen_frame_discard(client, &frame);
	return r;
}

static void print_results(struct kamen_client *client, char **paths, int *n_waiting)
{
	struct kamen_result result;

	while (kamen_next(client, &result) == 1) {
		(void)printf("%-10s %.3f %s %s\n", kamen_verdict_name(result.verdict),
			(double)result.novelty, paths[result.part_id], result.reason);
		kamen_release(client, &result);
		(*n_waiting)--;
	}
}

static int loop(struct kamen_client *client, const char *site, char **paths, int n)
{
	struct pollfd poller = { .fd = kamen_client_get_fd(client),
		.events = (short)kamen_client_get_events(client) };
	int next = 0, n_waiting = 0, r;

	while (next < n || n_waiting > 0) {
		uint64_t until, now;
		int timeout = -1;

		for (; next < n; next++) {
			r = send_file(client, site, paths[next], (uint64_t)next);
			if (r == -EBUSY)
				break;
			if (r < 0)
				return r;
			n_waiting++;
		}
		(void)kamen_client_get_timeout(client, &until);
		now = now_ns();
		if (until != UINT64_MAX)
			timeout = until > now ? (int)((until - now) / 1000000 + 1) : 0;
		if (poll(&poller, 1, timeout) < 0)
			return -errno;
		r = kamen_process(client);
		if (r < 0)
			return r;
		print_results(client, paths, &n_waiting);
	}
	return 0;
}

int main(int argc, char **argv)
{
	struct kamen_client *client = NULL;
	int r;

	if (argc < 3) {
		(void)fprintf(stderr, "usage: %s SITE FILE...\n", argv[0]);
		return 2;
	}
	r = kamen_client_connect(&client, NULL, NULL);
	if (r >= 0)
		r = loop(client, argv[1], argv + 2, argc - 2);
	if (r < 0)
		(void)fprintf(stderr, "%s: %s\n", argv[0], strerror(-r));
	(void)kamen_client_free(client);
	return r < 0 ? 1 : 0;
}
