/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#include "bench.h"
#include "cleanup.h"
#include "daemon.h"
#include "kamen/kamen.h"
#include "peer.h"

#define N_ROUNDS 10u
#define N_FILLS 16u

static void client_freep(struct kamen_client **client)
{
	(void)kamen_client_free(*client);
}

struct trip {
	struct kamen_client *client;
	struct peer *peer;
	size_t n_bytes;
	uint64_t checksums[N_FILLS]; /* of n_bytes of each fill */
	struct samples us, peer_us;
};

static void trip_done(struct trip *trip)
{
	samples_done(&trip->us);
	samples_done(&trip->peer_us);
}

/* The checksums are known before: what is timed is the filling, the trip and the reading. */
static int checksums_fill(struct trip *trip)
{
	_cleanup_(freep) uint8_t *bytes = malloc(trip->n_bytes);

	if (!bytes)
		return -ENOMEM;
	for (unsigned fill = 0; fill < N_FILLS; fill++) {
		memset(bytes, (int)fill, trip->n_bytes);
		trip->checksums[fill] = XXH3_64bits(bytes, trip->n_bytes);
	}
	return 0;
}

static int trip_kamen(struct trip *trip, unsigned fill)
{
	struct kamen_request request = {
		.size = sizeof(request), .verb = KAMEN_ECHO, .n_bytes = trip->n_bytes
	};
	struct kamen_result result;
	struct kamen_frame frame;
	uint64_t begin = bench_now_ns();
	int r = kamen_frame_acquire(trip->client, trip->n_bytes, &frame);

	if (r < 0)
		return r;
	memset(frame.data, (int)fill, trip->n_bytes);
	r = kamen_submit(trip->client, &frame, &request, NULL);
	if (r == 0)
		r = kamen_wait(trip->client, UINT64_MAX, &result);
	if (r < 0)
		return r;
	r = samples_add(&trip->us, (double)(bench_now_ns() - begin) * 1e-3);
	if (result.code < 0 || result.checksum != trip->checksums[fill])
		r = result.code < 0 ? result.code : -EBADMSG;
	kamen_release(trip->client, &result);
	return r;
}

static int trip_peer(struct trip *trip, unsigned fill)
{
	uint64_t begin = bench_now_ns(), checksum;
	int r = peer_echo(trip->peer, trip->n_bytes, (int)fill, &checksum);

	if (r < 0)
		return r;
	r = samples_add(&trip->peer_us, (double)(bench_now_ns() - begin) * 1e-3);
	return checksum == trip->checksums[fill] ? r : -EBADMSG;
}

/* They take turns, so that a slow moment of the machine meets both. */
static int measure(struct trip *trip, unsigned n)
{
	int r = checksums_fill(trip);

	for (unsigned i = 0; i < 100 && r == 0; i++) {
		r = trip_kamen(trip, i % N_FILLS);
		if (r == 0)
			r = trip_peer(trip, i % N_FILLS);
	}
	samples_done(&trip->us);
	samples_done(&trip->peer_us);
	for (unsigned round = 0; round < N_ROUNDS && r == 0; round++) {
		for (unsigned i = 0; i < n / N_ROUNDS && r == 0; i++)
			r = trip_kamen(trip, i % N_FILLS);
		for (unsigned i = 0; i < n / N_ROUNDS && r == 0; i++)
			r = trip_peer(trip, i % N_FILLS);
	}
	return r;
}

static int report(struct ctl *ctl, struct trip *trip)
{
	json_t *row = json_object();

	(void)json_object_set_new(row, "bytes", json_integer((json_int_t)trip->n_bytes));
	(void)json_object_set_new(row, "trips", json_integer((json_int_t)trip->us.n));
	(void)json_object_set_new(
		row, "rtt_us_p50", output_number(samples_percentile(&trip->us, .5)));
	(void)json_object_set_new(
		row, "rtt_us_p99", output_number(samples_percentile(&trip->us, .99)));
	(void)json_object_set_new(row, "peer", json_string("zmq REQ/REP over ipc"));
	(void)json_object_set_new(
		row, "peer_us_p50", output_number(samples_percentile(&trip->peer_us, .5)));
	(void)json_object_set_new(
		row, "peer_us_p99", output_number(samples_percentile(&trip->peer_us, .99)));
	bench_put_machine(row);
	return output_row(ctl, row, true);
}

static int connect_and_measure(struct ctl *ctl, struct peer *peer, size_t n_bytes, unsigned n)
{
	_cleanup_(client_freep) struct kamen_client *client = NULL;
	_cleanup_(trip_done) struct trip trip = { .peer = peer, .n_bytes = n_bytes };
	struct kamen_options options = {
		.size = sizeof(options), .n_slots = 2, .slot_bytes = n_bytes
	};
	char endpoint[4096];
	int r;

	(void)snprintf(endpoint, sizeof(endpoint), "%s/data.sock", ctl->runtime);
	r = kamen_client_connect(&client, endpoint, &options);
	if (r < 0)
		return ctl_fail(ctl, ctl_status_of(r), "%s: %s", endpoint, strerror(-r));
	trip.client = client;
	r = measure(&trip, n);
	if (r < 0)
		return ctl_fail(ctl, ctl_status_of(r), "%s: %s", endpoint, strerror(-r));
	return report(ctl, &trip);
}

int ipc_run(struct ctl *ctl, int argc, char **argv)
{
	const char *bytes = NULL, *trips = NULL, *peer_name = NULL, *model = NULL, *random = NULL;
	const struct option_spec specs[] = {
		{ "bytes", "N", "of a frame, 150528: 224 x 224 RGB", &bytes, NULL },
		{ "trips", "N", "2000", &trips, NULL },
		{ "peer", "NAME", "zmq, the only one", &peer_name, NULL },
		{ "model", "FILE", "of a daemon of our own (where no --runtime is given)", &model,
			NULL },
		{ "random", "NAME", "an untrained model of that daemon", &random, NULL },
	};
	_cleanup_(daemon_stop) struct daemon daemon = { .pid = -1, .pidfd = -1 };
	_cleanup_(peer_freep) struct peer *peer = NULL;
	unsigned long long n_bytes, n_trips;
	int first, status, r;

	if (!options_parse(ctl, argc, argv, specs, ARRAY_SIZE(specs), 0, 0, &first, &status))
		return status;
	if (!bench_number(ctl, "bytes", bytes, 1, 16 << 20, 150528, &n_bytes) ||
		!bench_number(ctl, "trips", trips, N_ROUNDS, 1000000, 2000, &n_trips))
		return EXIT_USAGE;
	if (peer_name && strcmp(peer_name, "zmq") != 0)
		return ctl_fail(ctl, EXIT_USAGE, "--peer %s: zmq", peer_name);
	r = peer_start(&peer);
	if (r < 0)
		return ctl_fail(ctl, EXIT_FAILED, "zmq: %s", strerror(-r));
	if (!ctl->runtime) {
		status = daemon_start(ctl,
			&(struct daemon_spec){ model, random, "[learner]\nenabled = off\n" },
			&daemon);
		if (status != EXIT_DONE)
			return status;
		ctl->runtime = daemon.runtime;
	}
	return connect_and_measure(ctl, peer, n_bytes, (unsigned)n_trips);
}
