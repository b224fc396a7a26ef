/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <cmocka.h>

#include "engine.h"
#include "serve/admission.h"
#include "serve/control.h"
#include "serve/limits.h"
#include "serve/listen.h"
#include "serve/packet_queue.h"
#include "serve/selection.h"
#include "shm_layout.h"

#define N_ROWS 300u

static void put_row(struct packet_queue *queue, uint32_t i, int fd)
{
	Kamen__Reply reply = KAMEN__REPLY__INIT;
	Kamen__Text text = KAMEN__TEXT__INIT;
	char words[1000];

	memset(words, 'a', sizeof(words) - 1);
	words[sizeof(words) - 1] = '\0';
	text.text = words;
	reply.id = i;
	reply.last = i + 1 == N_ROWS;
	reply.row_case = KAMEN__REPLY__ROW_TEXT;
	reply.text = &text;
	assert_int_equal(packet_queue_put(queue, &reply.base, fd), 0);
}

static void every_row_arrives_at_a_slow_reader(void **state)
{
	_cleanup_(wire_freep) struct wire *wire = NULL;
	struct packet_queue queue;
	uint32_t seen = 0;
	int pair[2], r;

	(void)state;
	packet_queue_init(&queue);
	assert_int_equal(wire_new(&wire), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	for (uint32_t i = 0; i < N_ROWS; i++)
		put_row(&queue, i, i % 100 == 7 ? pair[0] : -1);
	r = packet_queue_flush(&queue, pair[0]);
	assert_int_equal(r, 1); /* more than the socket takes: or this tests nothing */
	while (seen < N_ROWS) {
		ProtobufCMessage *message;
		Kamen__Reply *reply;
		int fd;

		r = wire_recv(wire, pair[1], &kamen__reply__descriptor, &message);
		if (r == -EAGAIN) {
			assert_in_range(packet_queue_flush(&queue, pair[0]), 0, 1);
			continue;
		}
		assert_int_equal(r, 1);
		reply = (Kamen__Reply *)message;
		assert_int_equal(reply->id, seen);
		assert_int_equal(reply->last, seen + 1 == N_ROWS);
		fd = wire_take_fd(wire, 0);
		assert_int_equal(fd >= 0, seen % 100 == 7);
		closep(&fd);
		seen++;
	}
	assert_int_equal(queue.n_bytes, 0);
	put_row(&queue, 0, -1);
	(void)close(pair[1]);
	assert_int_equal(packet_queue_flush(&queue, pair[0]), -EPIPE);
	assert_null(queue.head);
	put_row(&queue, 0, pair[0]);
	packet_queue_clear(&queue);
	(void)close(pair[0]);
}

static void admins_find_room_where_others_do_not(void **state)
{
	struct control_client clients[SERVE_MAX_CONTROL] = { { .fd = 0 } };
	const struct peer admin = { .uid = 0, .may_admin = true };
	struct peer plain = { .uid = 1, .may_data = true };
	struct control control = { .head = NULL };
	unsigned n = 0;

	(void)state;
	assert_int_equal(control_admit(&control, &(struct peer){ .uid = 7 }), -EACCES);
	for (plain.uid = 1; plain.uid < 100; plain.uid++)
		for (unsigned i = 0; i < 100 && control_admit(&control, &plain) == 0; i++) {
			clients[n].peer = plain;
			clients[n].next = control.head;
			control.head = &clients[n++];
			assert_in_range(i, 0, SERVE_CONTROL_OF_UID - 1);
		}
	assert_int_equal(n, SERVE_MAX_CONTROL - SERVE_CONTROL_RESERVED);
	for (; control_admit(&control, &admin) == 0; control.head = &clients[n++]) {
		assert_true(n < SERVE_MAX_CONTROL);
		clients[n].peer = admin;
		clients[n].next = control.head;
	}
	assert_int_equal(n, SERVE_MAX_CONTROL);
	/* Those that only wait to hear of their refusal take nobody's place. */
	clients[3].refusal = -EUSERS;
	assert_int_equal(control_admit(&control, &admin), 0);
}

struct arrivals {
	sd_event_source *io, *pause;
	int client;
	unsigned n_calls;
};

static int on_arrival(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
	struct arrivals *arrivals = userdata;

	(void)revents;
	arrivals->n_calls++;
	arrivals->client = listen_accept(fd, source, &arrivals->pause);
	return 0;
}

static void a_listener_rests_when_no_descriptor_is_left(void **state)
{
	char dir[] = "/tmp/kamen-listen-XXXXXX", path[64];
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct arrivals arrivals = { .client = -1 };
	struct rlimit old, none;
	sd_event *event = NULL;
	int fd = -1, client, lowest;

	(void)state;
	assert_non_null(mkdtemp(dir));
	(void)snprintf(path, sizeof(path), "%s/s", dir);
	(void)snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	assert_int_equal(listen_seqpacket(&fd, path), 0);
	assert_return_code(sd_event_new(&event), 0);
	assert_return_code(
		sd_event_add_io(event, &arrivals.io, fd, EPOLLIN, on_arrival, &arrivals), 0);
	client = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(client, (void *)&address, sizeof(address)), 0);
	/* The timer's own descriptor is there before the last one goes. */
	assert_return_code(sd_event_add_time_relative(
				   event, &arrivals.pause, CLOCK_MONOTONIC, 0, 1, NULL, NULL),
		0);
	arrivals.pause = sd_event_source_disable_unref(arrivals.pause);
	lowest = dup(client);
	(void)close(lowest);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	none = (struct rlimit){ (rlim_t)lowest, old.rlim_max };
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	assert_return_code(sd_event_run(event, UINT64_MAX), 0);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
	assert_int_equal(arrivals.client, -EMFILE);
	assert_int_equal(arrivals.n_calls, 1);
	/* One more turn is the timer's, not the socket's, which is readable all the time. */
	assert_return_code(sd_event_run(event, UINT64_MAX), 0);
	assert_int_equal(arrivals.n_calls, 1);
	assert_return_code(sd_event_run(event, UINT64_MAX), 0);
	assert_int_equal(arrivals.n_calls, 2);
	assert_true(arrivals.client >= 0);
	sd_event_source_disable_unref(arrivals.pause);
	sd_event_source_disable_unref(arrivals.io);
	sd_event_unref(event);
	(void)close(arrivals.client);
	(void)close(client);
	(void)close(fd);
	(void)unlink(path);
	(void)rmdir(dir);
}

static void only_admins_choose_sizes(void **state)
{
	(void)state;
	for (int may_admin = 0; may_admin < 2; may_admin++) {
		assert_true(selection_allows_px(SHM_PX_SITE, 112, 224, may_admin));
		assert_true(selection_allows_px(SHM_PX_NATIVE, 112, 224, may_admin));
		assert_true(selection_allows_px(112, 112, 224, may_admin));
		assert_true(selection_allows_px(224, 112, 224, may_admin));
		assert_int_equal(selection_allows_px(128, 112, 224, may_admin), may_admin);
	}
}

#define N_SITES 1000u

static void a_thousand_sites_go_to_ingest_in_parts(void **state)
{
	static Kamen__IngestSite rows[N_SITES], *list[N_SITES];
	static char names[N_SITES][64], folders[N_SITES][128];
	_cleanup_(wire_freep) struct wire *wire = NULL;
	uint32_t at = 0, n_parts = 0;

	(void)state;
	assert_int_equal(wire_new(&wire), 0);
	for (uint32_t i = 0; i < N_SITES; i++) {
		(void)snprintf(names[i], sizeof(names[i]), "%063u", i);
		(void)snprintf(
			folders[i], sizeof(folders[i]), "/var/lib/kamen/sites/%063u/replay", i);
		kamen__ingest_site__init(&rows[i]);
		rows[i].site = names[i];
		rows[i].replay = rows[i].spool = folders[i];
		rows[i].has_settle_ms = true;
		list[i] = &rows[i];
	}
	for (; at < N_SITES; n_parts++) {
		Kamen__RoleMessage message = KAMEN__ROLE_MESSAGE__INIT, *got;
		Kamen__SiteTable table = KAMEN__SITE_TABLE__INIT;
		_cleanup_(freep) void *data = NULL;
		ProtobufCMessage *decoded;
		size_t n_bytes;

		table.n_sites = admission_fit(list + at, N_SITES - at);
		table.sites = list + at;
		table.has_first = table.has_last = true;
		message.kind_case = KAMEN__ROLE_MESSAGE__KIND_SITES;
		message.sites = &table;
		assert_int_equal(wire_encode(&message.base, &data, &n_bytes), 0);
		assert_int_equal(wire_decode(wire, &kamen__role_message__descriptor, data, n_bytes,
					 &decoded),
			0);
		got = (Kamen__RoleMessage *)decoded;
		assert_int_equal(got->sites->n_sites, table.n_sites);
		assert_string_equal(got->sites->sites[0]->site, names[at]);
		at += (uint32_t)table.n_sites;
	}
	/* And full ones, or as many messages as sites would do too. */
	assert_in_range(n_parts, 2, 6);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_row_arrives_at_a_slow_reader),
		cmocka_unit_test(a_thousand_sites_go_to_ingest_in_parts),
		cmocka_unit_test(only_admins_choose_sizes),
		cmocka_unit_test(admins_find_room_where_others_do_not),
		cmocka_unit_test(a_listener_rests_when_no_descriptor_is_left),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
