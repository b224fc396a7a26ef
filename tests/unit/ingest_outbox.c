/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <sys/socket.h>
#include <cmocka.h>

#include "engine.h"
#include "ingest/outbox.h"

enum { N_NOTICES = 5000, N_LOST = 7 };

struct sums {
	uint64_t n_refused, n_lost, n_messages, n_answers;
};

static void read_all(struct wire *wire, int sock, struct sums *sums)
{
	ProtobufCMessage *message;
	int r;

	while ((r = wire_recv(wire, sock, &kamen__role_message__descriptor, &message)) > 0) {
		const Kamen__RoleMessage *role = (const Kamen__RoleMessage *)message;

		sums->n_messages++;
		if (role->kind_case == KAMEN__ROLE_MESSAGE__KIND_REFUSED) {
			assert_string_equal(role->refused->site, "a");
			sums->n_refused += role->refused->n;
			sums->n_answers += (uint64_t)role->refused->has_id;
		} else {
			assert_int_equal(role->kind_case, KAMEN__ROLE_MESSAGE__KIND_GAP);
			assert_string_equal(role->gap->site, "b");
			sums->n_lost += role->gap->n_lost;
		}
	}
	assert_int_equal(r, -EAGAIN);
}

static void what_is_not_told_one_by_one_is_told_as_a_sum(void **state)
{
	struct outbox *outbox;
	struct sums sums = { 0 };
	struct wire *wire;
	sd_event *event;
	int pair[2];

	(void)state;
	assert_int_equal(
		socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0);
	assert_true(sd_event_new(&event) >= 0);
	assert_int_equal(wire_new(&wire), 0);
	assert_int_equal(outbox_new(&outbox, event, pair[0]), 0);
	for (int i = 0; i < N_NOTICES; i++) {
		assert_int_equal(
			outbox_put_refused(outbox, "a", "spool", "x.png", "no image", 0), 0);
		assert_int_equal(outbox_put_gap(outbox, "b", "camera", N_LOST), 0);
	}
	/* A job's refusal is its answer, however many wait. */
	assert_int_equal(outbox_put_refused(outbox, "a", "push", "y.png", "no image", 9), 0);
	do
		read_all(wire, pair[1], &sums);
	while (sd_event_run(event, 0) > 0);
	read_all(wire, pair[1], &sums);

	assert_int_equal(sums.n_refused, N_NOTICES + 1);
	assert_int_equal(sums.n_lost, (uint64_t)N_NOTICES * N_LOST);
	assert_int_equal(sums.n_answers, 1);
	assert_in_range(sums.n_messages, 3, N_NOTICES);
	outbox_free(outbox);
	wire_free(wire);
	(void)sd_event_unref(event);
	(void)close(pair[0]);
	(void)close(pair[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_not_told_one_by_one_is_told_as_a_sum),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
