/* SPDX-License-Identifier: Apache-2.0 */
#include "inspect.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

uint64_t inspection_now_ns(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

int inspection_begin(struct inspection *inspection, int argc, char **argv)
{
	int r;

	if (argc < 3) {
		(void)fprintf(stderr, "usage: %s SITE FILE...\n", argv[0]);
		return 2;
	}
	(void)setvbuf(stdout, NULL, _IOLBF, 0); /* each verdict as it comes */
	*inspection = (struct inspection){ .site = argv[1], .paths = argv + 2, .n = argc - 2 };
	r = kamen_client_connect(&inspection->client, NULL, NULL);
	if (r < 0)
		(void)fprintf(stderr, "%s: %s\n", argv[0], strerror(-r));
	return r < 0 ? 1 : 0;
}

/* The file goes straight into shared memory. 0: sent. */
static int send_next(struct inspection *inspection)
{
	struct kamen_request request = { .size = sizeof(request) };
	struct kamen_frame frame;
	FILE *f;
	int r = kamen_frame_acquire(inspection->client, 1, &frame);

	if (r < 0)
		return r; /* -EBUSY: take a result first */
	f = fopen(inspection->paths[inspection->next], "rbe");
	if (f) {
		request.n_bytes = fread(frame.data, 1, frame.capacity, f);
		(void)fclose(f);
	}
	request.verb = KAMEN_INFER;
	request.format = KAMEN_ENCODED;
	request.site = inspection->site;
	request.part_id = (uint64_t)inspection->next; /* comes back with the answer */
	/* No verdict is what it gets then, if need be: long enough for a restart of the daemon. */
	request.deadline_ns = inspection_now_ns() + UINT64_C(10000000000);
	r = kamen_submit(inspection->client, &frame, &request, NULL);
	if (r < 0)
		kamen_frame_discard(inspection->client, &frame);
	return r;
}

static void print_results(struct inspection *inspection)
{
	struct kamen_result result;

	while (kamen_next(inspection->client, &result) == 1) {
		(void)printf("%-10s %.3f %s %s\n", kamen_verdict_name(result.verdict),
			(double)result.novelty, inspection->paths[result.part_id], result.reason);
		kamen_release(inspection->client, &result);
		inspection->n_waiting--;
	}
}

bool inspection_turn(struct inspection *inspection, uint64_t *ret_deadline_ns)
{
	int r = kamen_process(inspection->client);

	if (r > 0)
		print_results(inspection);
	while (r >= 0 && inspection->next < inspection->n) {
		r = send_next(inspection);
		if (r < 0)
			break;
		inspection->next++;
		inspection->n_waiting++;
	}
	if (r < 0 && r != -EBUSY) {
		inspection->r = r;
		return false;
	}
	(void)kamen_client_get_timeout(inspection->client, ret_deadline_ns);
	return inspection->next < inspection->n || inspection->n_waiting > 0;
}

int inspection_end(struct inspection *inspection)
{
	if (inspection->r < 0)
		(void)fprintf(stderr, "%s: %s\n", inspection->site, strerror(-inspection->r));
	inspection->client = kamen_client_free(inspection->client);
	return inspection->r < 0 ? 1 : 0;
}
