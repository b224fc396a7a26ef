/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#include "bench.h"
#include "cleanup.h"
#include "daemon.h"
#include "kamen/kamen.h"
#include "peer.h"
#include "ping.h"
#include "windows.h"

/* Of a window of ping: enough for a median, and soon over. */
#define PING_SAMPLES 500u
#define WARM_UP_TRIPS 100u
#define MAX_SECONDS 40.0
#define N_FILLS 16u
#define SPIN_US 200u /* longer than anything between two trips of a window */

static void client_freep(struct kamen_client **client)
{
	(void)kamen_client_free(*client);
}

struct trip {
	struct kamen_client *client;
	struct peer *peer;
	size_t n_bytes;
	uint32_t n_trips; /* of a window */
	bool spins;
	pid_t daemon;                /* of our own; else 0 */
	uint64_t checksums[N_FILLS]; /* of n_bytes of each fill */
	struct windows us, peer_us, ping_us;
};

static void trip_done(struct trip *trip)
{
	windows_done(&trip->us);
	windows_done(&trip->peer_us);
	windows_done(&trip->ping_us);
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

static int trip_kamen(struct trip *trip, unsigned fill, struct samples *samples)
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
	r = samples_add(samples, (double)(bench_now_ns() - begin) * 1e-3);
	if (result.code < 0 || result.checksum != trip->checksums[fill])
		r = result.code < 0 ? result.code : -EBADMSG;
	kamen_release(trip->client, &result);
	return r;
}

static int trip_peer(struct trip *trip, unsigned fill, struct samples *samples)
{
	uint64_t begin = bench_now_ns(), checksum;
	int r = peer_echo(trip->peer, trip->n_bytes, (int)fill, &checksum);

	if (r < 0)
		return r;
	r = samples_add(samples, (double)(bench_now_ns() - begin) * 1e-3);
	return checksum == trip->checksums[fill] ? r : -EBADMSG;
}

static int window(struct trip *trip, struct windows *windows, uint32_t n,
	int (*run)(struct trip *trip, unsigned fill, struct samples *samples))
{
	struct samples *samples = windows_begin(windows);
	int r = 0;

	for (uint32_t i = 0; i < n && r == 0; i++)
		r = run(trip, i % N_FILLS, samples);
	windows_end(windows);
	return r;
}

static int window_ping(struct trip *trip)
{
	struct samples *samples = windows_begin(&trip->ping_us);
	int r = ping_run(PING_SAMPLES, samples);

	windows_end(&trip->ping_us);
	return r == -ENODEV ? 0 : r;
}

static void keep_to(pid_t thread, int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET((unsigned)cpu, &set);
	(void)sched_setaffinity(thread, sizeof(set), &set);
}

/* Two that look must not share a CPU: they have one each, as the ping's threads have. Of the daemon
 * it is the main thread, the loop. The peer does not look, and may run anywhere. */
static int window_kamen(struct trip *trip, uint32_t n)
{
	bool apart = trip->spins && trip->daemon > 0;
	cpu_set_t was;
	int cpus[2], r;

	apart = apart && ping_cpus(cpus) && sched_getaffinity(0, sizeof(was), &was) == 0;
	if (apart) {
		keep_to(0, cpus[0]);
		keep_to(trip->daemon, cpus[1]);
	}
	r = window(trip, &trip->us, n, trip_kamen);
	if (apart)
		(void)sched_setaffinity(0, sizeof(was), &was);
	return r;
}

/* They take turns, so that a slow moment of the machine meets all; until both are steady. */
static int measure(struct trip *trip)
{
	const uint64_t end = bench_now_ns() + (uint64_t)(MAX_SECONDS * 1e9);
	int r = checksums_fill(trip);

	if (r == 0)
		r = window_kamen(trip, WARM_UP_TRIPS);
	if (r == 0)
		r = window(trip, &trip->peer_us, WARM_UP_TRIPS, trip_peer);
	trip->us.n = trip->peer_us.n = 0;
	while (r == 0) {
		r = window_kamen(trip, trip->n_trips);
		if (r == 0)
			r = window(trip, &trip->peer_us, trip->n_trips, trip_peer);
		if (r == 0)
			r = window_ping(trip);
		if (windows_agree(&trip->us) && windows_agree(&trip->peer_us))
			break;
		if (trip->us.n >= WINDOWS_N && bench_now_ns() >= end)
			break;
	}
	return r;
}

struct outcome {
	struct samples us, peer_us, ping_us;
};

static void outcome_done(struct outcome *outcome)
{
	samples_done(&outcome->us);
	samples_done(&outcome->peer_us);
	samples_done(&outcome->ping_us);
}

static void put_ratio(
	json_t *row, const char *name, double p, struct samples *samples, struct samples *by)
{
	(void)json_object_set_new(row, name,
		output_number(samples_percentile(samples, p) / samples_percentile(by, p)));
}

static int report(struct ctl *ctl, struct trip *trip)
{
	_cleanup_(outcome_done) struct outcome all = { 0 };
	json_t *row = json_object();
	bool agree = windows_agree(&trip->us) && windows_agree(&trip->peer_us);

	if (windows_merge(&trip->us, &all.us) < 0 ||
		windows_merge(&trip->peer_us, &all.peer_us) < 0 ||
		windows_merge(&trip->ping_us, &all.ping_us) < 0) {
		json_decref(row);
		return ctl_fail(ctl, EXIT_FAILED, "%s", strerror(ENOMEM));
	}
	(void)json_object_set_new(row, "bytes", json_integer((json_int_t)trip->n_bytes));
	(void)json_object_set_new(row, "mode", json_string(trip->spins ? "spin" : "block"));
	(void)json_object_set_new(row, "trips", json_integer((json_int_t)all.us.n));
	(void)json_object_set_new(row, "windows", json_integer((json_int_t)trip->us.n));
	(void)json_object_set_new(row, "stable", json_boolean(agree));
	(void)json_object_set_new(row, "tolerance", json_real(trip->us.tolerance));
	bench_put_percentiles(row, "rtt", "us", &all.us);
	(void)json_object_set_new(row, "peer", json_string("zmq REQ/REP over ipc"));
	bench_put_percentiles(row, "peer", "us", &all.peer_us);
	put_ratio(row, "ratio_to_peer_p50", .5, &all.us, &all.peer_us);
	put_ratio(row, "ratio_to_peer_p99", .99, &all.us, &all.peer_us);
	(void)json_object_set_new(
		row, "ping_us_p50", output_number(samples_percentile(&all.ping_us, .5)));
	put_ratio(row, "ratio_to_ping_p50", .5, &all.us, &all.ping_us);
	bench_put_machine(row);
	return output_row(ctl, row, true);
}

static int connect_and_measure(struct ctl *ctl, struct trip *trip)
{
	_cleanup_(client_freep) struct kamen_client *client = NULL;
	struct kamen_options options = { .size = sizeof(options),
		.n_slots = 2,
		.slot_bytes = trip->n_bytes,
		.spin_us = trip->spins ? SPIN_US : KAMEN_NO_SPIN };
	char endpoint[4096];
	int r;

	(void)snprintf(endpoint, sizeof(endpoint), "%s/data.sock", ctl->runtime);
	r = kamen_client_connect(&client, endpoint, &options);
	if (r < 0)
		return ctl_fail(ctl, ctl_status_of(r), "%s: %s", endpoint, strerror(-r));
	trip->client = client;
	r = measure(trip);
	if (r < 0)
		return ctl_fail(ctl, ctl_status_of(r), "%s: %s", endpoint, strerror(-r));
	return report(ctl, trip);
}

static bool trip_fill(struct ctl *ctl, struct trip *trip, const char *bytes, const char *trips,
	const char *tolerance)
{
	unsigned long long n_bytes, n_trips;
	double within;

	if (!bench_number(ctl, "bytes", bytes, 1, 16 << 20, 150528, &n_bytes) ||
		!bench_number(ctl, "trips", trips, 10, 1000000, 2000, &n_trips) ||
		!bench_real(ctl, "tolerance", tolerance, .1, &within))
		return false;
	trip->n_bytes = n_bytes;
	trip->n_trips = (uint32_t)n_trips;
	trip->us.tolerance = trip->peer_us.tolerance = trip->ping_us.tolerance = within;
	return true;
}

static int own_daemon(struct ctl *ctl, bool spins, struct daemon_spec *spec, struct daemon *daemon)
{
	char settings[96];
	int status;

	(void)snprintf(settings, sizeof(settings),
		"[serve]\nspin_us = %u\n[learner]\nenabled = off\n", spins ? SPIN_US : 0);
	spec->settings = settings;
	status = daemon_start(ctl, spec, daemon);
	if (status == EXIT_DONE)
		ctl->runtime = daemon->runtime;
	return status;
}

int ipc_run(struct ctl *ctl, int argc, char **argv)
{
	const char *bytes = NULL, *trips = NULL, *tolerance = NULL, *peer_name = NULL, *spin = NULL;
	struct daemon_spec spec = { 0 };
	const struct option_spec specs[] = {
		{ "bytes", "N", "of a frame, 150528: 224 x 224 RGB", &bytes, NULL },
		{ "trips", "N", "of a window, 2000; three windows have to agree", &trips, NULL },
		{ "tolerance", "X", "by how much their medians may differ, .1", &tolerance, NULL },
		{ "spin", NULL, "client and daemon look before they sleep; else they block", &spin,
			NULL },
		{ "peer", "NAME", "zmq, the only one", &peer_name, NULL },
		{ "model", "FILE", "of a daemon of our own (where no --runtime is given)",
			&spec.model, NULL },
		{ "random", "NAME", "an untrained model of that daemon", &spec.random, NULL },
	};
	_cleanup_(daemon_stop) struct daemon daemon = { .pid = -1, .pidfd = -1 };
	_cleanup_(peer_freep) struct peer *peer = NULL;
	_cleanup_(trip_done) struct trip trip = { 0 };
	int first, status, r;

	if (!options_parse(ctl, argc, argv, specs, ARRAY_SIZE(specs), 0, 0, &first, &status))
		return status;
	if (!trip_fill(ctl, &trip, bytes, trips, tolerance))
		return EXIT_USAGE;
	if (peer_name && strcmp(peer_name, "zmq") != 0)
		return ctl_fail(ctl, EXIT_USAGE, "--peer %s: zmq", peer_name);
	trip.spins = spin != NULL;
	r = peer_start(&peer);
	if (r < 0)
		return ctl_fail(ctl, EXIT_FAILED, "zmq: %s", strerror(-r));
	trip.peer = peer;
	if (!ctl->runtime) {
		status = own_daemon(ctl, trip.spins, &spec, &daemon);
		if (status != EXIT_DONE)
			return status;
		trip.daemon = daemon.pid;
	}
	return connect_and_measure(ctl, &trip);
}
