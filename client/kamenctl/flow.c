/* SPDX-License-Identifier: Apache-2.0 */
#include "flow.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "cleanup.h"

#define MOST_SLOTS 16u
#define MOST_SLOT_BYTES (UINT64_C(64) << 20)
#define MOST_BYTES (UINT64_C(128) << 20) /* of all slots */

struct run {
	const struct images *images;
	const struct flow *flow;
	struct kamen_client *client;
};

static void client_freep(struct kamen_client **client)
{
	(void)kamen_client_free(*client);
}

bool flow_mask_parse(const char *text, struct kamen_request *request)
{
	unsigned long long number = 0;

	if (strcmp(text, "champion") == 0) {
		request->mask = KAMEN_MASK_CHAMPION;
		return true;
	}
	if (strcmp(text, "base") != 0 && !number_parse(text, UINT32_MAX, &number))
		return false;
	request->mask = KAMEN_MASK_VERSION;
	request->version = (uint32_t)number;
	return true;
}

const char *flow_why(const struct kamen_result *result)
{
	return *result->reason    ? result->reason
	       : result->code < 0 ? strerror(-result->code)
				  : "rejected";
}

static int client_connect(
	const struct ctl *ctl, uint64_t max_bytes, struct kamen_client **ret_client)
{
	/* Who sits before a terminal is told at once. */
	struct kamen_options options = {
		.size = sizeof(options), .n_slots = MOST_SLOTS, .flags = KAMEN_NO_RECONNECT
	};
	char path[4096];
	int r;

	options.slot_bytes = max_bytes < 65536 ? 65536 : max_bytes;
	if (options.slot_bytes > MOST_SLOT_BYTES)
		options.slot_bytes = MOST_SLOT_BYTES;
	while (options.n_slots > 2 && options.n_slots * options.slot_bytes > MOST_BYTES)
		options.n_slots /= 2;
	(void)snprintf(path, sizeof(path), "%s/data.sock", ctl->runtime);
	r = kamen_client_connect(ret_client, path, &options);
	if (r < 0)
		return ctl_fail(ctl, ctl_status_of(r), "%s: %s", path, strerror(-r));
	return EXIT_DONE;
}

/* The file goes straight into the frame. */
static int frame_read(struct kamen_client *client, const char *path, struct kamen_frame *ret_frame,
	size_t *ret_n_bytes)
{
	_cleanup_(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct kamen_frame frame;
	size_t n_bytes = 0;
	ssize_t n;
	int r;

	if (fd < 0)
		return -errno;
	r = kamen_frame_acquire(client, 1, &frame);
	if (r < 0)
		return r;
	do {
		n = read(fd, (char *)frame.data + n_bytes, frame.capacity - n_bytes);
		n_bytes += n > 0 ? (size_t)n : 0;
	} while ((n > 0 && n_bytes < frame.capacity) || (n < 0 && errno == EINTR));
	r = n < 0 ? -errno : n_bytes == 0 ? -ENODATA : 0;
	if (r == 0 && n_bytes == frame.capacity) {
		char more;

		r = read(fd, &more, 1) == 1 ? -EFBIG : 0;
	}
	if (r < 0) {
		kamen_frame_discard(client, &frame);
		return r;
	}
	*ret_frame = frame;
	*ret_n_bytes = n_bytes;
	return 0;
}

static uint64_t deadline_of(const struct flow *flow)
{
	struct timespec ts;

	if (flow->patience_ns == 0)
		return 0;
	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec + flow->patience_ns;
}

static int file_submit(struct run *run, size_t i)
{
	struct kamen_request request = run->flow->request;
	struct kamen_frame frame;
	int r = frame_read(run->client, run->images->paths[i], &frame, &request.n_bytes);

	if (r < 0)
		return r;
	request.size = sizeof(request);
	request.part_id = i;
	request.deadline_ns = deadline_of(run->flow);
	r = kamen_submit(run->client, &frame, &request, NULL);
	if (r < 0)
		kamen_frame_discard(run->client, &frame);
	return r;
}

/* A file that never left is answered for here. */
static void file_fail(struct run *run, size_t i, int r)
{
	static const uint8_t no_space[32];
	struct kamen_result result = {
		.code = r,
		.reason = strerror(-r),
		.label = "",
		.score = NAN,
		.unknown = NAN,
		.novelty = NAN,
		.distance = NAN,
		.outcome = 2,
		.part_id = i,
		.space = no_space,
	};

	run->flow->done(run->flow->data, i, &result);
}

static int answer_take(struct run *run)
{
	struct kamen_result result;
	int r = kamen_wait(run->client, UINT64_MAX, &result);

	/* -EAGAIN: late answers have come in, and with them room for more. */
	if (r == -EINTR || r == -EAGAIN)
		return 0;
	if (r < 0)
		return r;
	if (result.code == -ENOTCONN)
		return -ENOTCONN;
	if (result.part_id < run->images->n)
		run->flow->done(run->flow->data, result.part_id, &result);
	kamen_release(run->client, &result);
	return 1;
}

int flow_run(const struct ctl *ctl, const struct images *images, const struct flow *flow)
{
	_cleanup_(client_freep) struct kamen_client *client = NULL;
	struct run run = { images, flow, NULL };
	size_t next = 0, n_waiting = 0, n_done = 0;
	int r = client_connect(ctl, images->max_bytes, &client);

	if (r != EXIT_DONE)
		return r;
	run.client = client;
	while (next < images->n || n_waiting > 0) {
		r = next < images->n ? file_submit(&run, next) : -EBUSY;
		if (r == 0) {
			next++;
			n_waiting++;
			continue;
		}
		if (r != -EBUSY && r != -ENOTCONN) {
			file_fail(&run, next++, r);
			n_done++;
			continue;
		}
		if (r == -EBUSY)
			r = answer_take(&run);
		if (r < 0)
			return ctl_fail(ctl, ctl_status_of(r), "after %zu of %zu files: %s", n_done,
				images->n, r == -ENOTCONN ? "the daemon has gone" : strerror(-r));
		n_waiting -= (size_t)r;
		n_done += (size_t)r;
	}
	return EXIT_DONE;
}
