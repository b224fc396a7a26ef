/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "wire.h"

struct pair {
	int a, b;
	struct wire *wire;
};

static int pair_open(void **state)
{
	struct pair *pair = malloc(sizeof(*pair));
	int s[2];

	if (!pair || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, s) < 0)
		return -1;
	pair->a = s[0];
	pair->b = s[1];
	*state = pair;
	return wire_new(&pair->wire);
}

static int pair_close(void **state)
{
	struct pair *pair = *state;

	wire_free(pair->wire);
	(void)close(pair->a);
	(void)close(pair->b);
	free(pair);
	return 0;
}

static int n_open_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	int n = 0;

	assert_non_null(dir);
	while (readdir(dir))
		n++;
	(void)closedir(dir);
	return n;
}

static void a_message_comes_back_as_it_was_sent(void **state)
{
	struct pair *pair = *state;
	Kamen__KeyValue set = KAMEN__KEY_VALUE__INIT, *sets[] = { &set };
	Kamen__SiteCreate create = KAMEN__SITE_CREATE__INIT;
	Kamen__Request request = KAMEN__REQUEST__INIT, *back;
	ProtobufCMessage *message = NULL;

	set.key = (char *)"input_px";
	set.value = (char *)"112";
	create.site = (char *)"line-1";
	create.n_set = 1;
	create.set = sets;
	request.id = UINT64_MAX;
	request.verb_case = KAMEN__REQUEST__VERB_SITE_CREATE;
	request.site_create = &create;
	assert_int_equal(wire_send(pair->a, &request.base, NULL, 0), 0);
	assert_int_equal(wire_recv(pair->wire, pair->b, &kamen__request__descriptor, &message), 1);
	back = (Kamen__Request *)message;
	assert_true(back->id == UINT64_MAX);
	assert_int_equal(back->verb_case, KAMEN__REQUEST__VERB_SITE_CREATE);
	assert_string_equal(back->site_create->site, "line-1");
	assert_int_equal(back->site_create->n_set, 1);
	assert_string_equal(back->site_create->set[0]->key, "input_px");
	assert_string_equal(back->site_create->set[0]->value, "112");
	assert_int_equal(
		wire_recv(pair->wire, pair->b, &kamen__request__descriptor, &message), -EAGAIN);
	(void)shutdown(pair->a, SHUT_WR);
	assert_int_equal(wire_recv(pair->wire, pair->b, &kamen__request__descriptor, &message), 0);
}

static void a_message_over_the_limit_is_neither_sent_nor_taken(void **state)
{
	struct pair *pair = *state;
	char *big = malloc(WIRE_MAX_PACKET + 1), small[] = "x";
	Kamen__Text text = KAMEN__TEXT__INIT;
	ProtobufCMessage *message = NULL;

	memset(big, 'a', WIRE_MAX_PACKET);
	big[WIRE_MAX_PACKET] = 0;
	text.text = big;
	assert_int_equal(wire_send(pair->a, &text.base, NULL, 0), -EMSGSIZE);

	assert_int_equal(send(pair->a, big, WIRE_MAX_PACKET + 1, 0), WIRE_MAX_PACKET + 1);
	assert_int_equal(
		wire_recv(pair->wire, pair->b, &kamen__text__descriptor, &message), -EBADMSG);
	assert_int_equal(wire_decode(pair->wire, &kamen__text__descriptor, big, WIRE_MAX_PACKET + 1,
				 &message),
		-EBADMSG);

	big[WIRE_MAX_PACKET - 4] = 0; /* tag, and a length of three bytes */
	assert_int_equal(wire_send(pair->a, &text.base, NULL, 0), 0);
	assert_int_equal(wire_recv(pair->wire, pair->b, &kamen__text__descriptor, &message), 1);
	assert_string_equal(((Kamen__Text *)message)->text, big);

	text.text = small;
	assert_int_equal(wire_send(pair->a, &text.base, NULL, 0), 0);
	assert_int_equal(wire_recv(pair->wire, pair->b, &kamen__text__descriptor, &message), 1);
	free(big);
}

static void many_empty_messages_do_not_become_much_memory(void **state)
{
	struct pair *pair = *state;
	static uint8_t bytes[1 << 20];
	ProtobufCMessage *message = NULL;

	/* Two bytes of SiteTable.sites = {}; the required site inside is what refuses a single one. */
	for (size_t i = 0; i < sizeof(bytes); i += 2)
		bytes[i] = 0x0a;
	assert_int_equal(wire_decode(pair->wire, &kamen__site_table__descriptor, bytes,
				 sizeof(bytes), &message),
		-EBADMSG);
	/* Status.roles, well-formed: 4 bytes become a struct of 48 and its parts. */
	for (size_t i = 0; i + 5 <= WIRE_MAX_PACKET; i += 5)
		memcpy(bytes + i, "\x52\x03\x0a\x01x", 5);
	memcpy(bytes, "\x0a\x03xyz", 5);
	assert_int_equal(wire_decode(pair->wire, &kamen__status__descriptor, bytes,
				 WIRE_MAX_PACKET / 5 * 5, &message),
		-EBADMSG);
	assert_int_equal(
		wire_decode(pair->wire, &kamen__status__descriptor, bytes, 500, &message), 0);
	assert_int_equal(((Kamen__Status *)message)->n_roles, 99);
}

static void junk_and_cut_messages_are_refused(void **state)
{
	struct pair *pair = *state;
	Kamen__Gate gate = KAMEN__GATE__INIT;
	Kamen__LearnResult learnt = KAMEN__LEARN_RESULT__INIT;
	ProtobufCMessage *message = NULL;
	uint8_t *data, junk[64];
	size_t n;

	memset(junk, 0xff, sizeof(junk));
	assert_int_equal(send(pair->a, junk, sizeof(junk), 0), sizeof(junk));
	assert_int_equal(
		wire_recv(pair->wire, pair->b, &kamen__request__descriptor, &message), -EBADMSG);

	gate.passed = 1;
	learnt.site = (char *)"a";
	learnt.version = 3;
	learnt.gate = &gate;
	assert_int_equal(wire_encode(&learnt.base, (void **)&data, &n), 0);
	assert_int_equal(
		wire_decode(pair->wire, &kamen__learn_result__descriptor, data, n, &message), 0);
	for (size_t cut = 1; cut < n; cut++) {
		int r = wire_decode(
			pair->wire, &kamen__learn_result__descriptor, data, cut, &message);

		/* A cut between two fields is a message of its own, once the required ones are there. */
		assert_true(r == -EBADMSG || (r == 0 && cut >= 5));
	}
	assert_int_equal(
		wire_decode(pair->wire, &kamen__learn_result__descriptor, data, n - 1, &message),
		-EBADMSG);
	free(data);
}

static void a_missing_required_field_is_not_sent(void **state)
{
	struct pair *pair = *state;
	Kamen__Text text = KAMEN__TEXT__INIT;
	Kamen__RoleMessage nothing = KAMEN__ROLE_MESSAGE__INIT;

	text.text = NULL;
	assert_int_equal(wire_send(pair->a, &text.base, NULL, 0), -EINVAL);
	/* No bytes at all would read as the end of the connection. */
	assert_int_equal(wire_send(pair->a, &nothing.base, NULL, 0), -EINVAL);
}

static void an_unknown_enum_is_refused(void **state)
{
	struct pair *pair = *state;
	ProtobufCMessage *message = NULL;
	Kamen__AdmitReply reply = KAMEN__ADMIT_REPLY__INIT;
	Kamen__RoleMessage role = KAMEN__ROLE_MESSAGE__INIT;

	reply.id = 1;
	reply.outcome = KAMEN__OUTCOME__REJECTED;
	role.kind_case = KAMEN__ROLE_MESSAGE__KIND_ADMITTED;
	role.admitted = &reply;
	assert_int_equal(wire_send(pair->a, &role.base, NULL, 0), 0);
	assert_int_equal(
		wire_recv(pair->wire, pair->b, &kamen__role_message__descriptor, &message), 1);
	reply.outcome = (Kamen__Outcome)77;
	assert_int_equal(wire_send(pair->a, &role.base, NULL, 0), 0);
	assert_int_equal(wire_recv(pair->wire, pair->b, &kamen__role_message__descriptor, &message),
		-EBADMSG);
}

static void descriptors_travel_and_none_is_left_open(void **state)
{
	struct pair *pair = *state;
	Kamen__Text text = KAMEN__TEXT__INIT;
	ProtobufCMessage *message = NULL;
	int before = n_open_fds(), pipes[2], fds[3], got;
	char c = 0;

	assert_int_equal(pipe(pipes), 0);
	fds[0] = pipes[0];
	fds[1] = pipes[1];
	fds[2] = pipes[1];
	text.text = (char *)"three";
	assert_int_equal(wire_send(pair->a, &text.base, fds, 4), -EINVAL);
	assert_int_equal(wire_send(pair->a, &text.base, fds, 3), 0);
	assert_int_equal(wire_recv(pair->wire, pair->b, &kamen__text__descriptor, &message), 1);
	got = wire_take_fd(pair->wire, 1);
	assert_true(got >= 0);
	assert_true(fcntl(got, F_GETFD) & FD_CLOEXEC);
	assert_int_equal(wire_take_fd(pair->wire, 1), -1);
	assert_int_equal(wire_take_fd(pair->wire, 3), -1);
	assert_int_equal(write(got, "k", 1), 1);
	assert_int_equal(read(pipes[0], &c, 1), 1);
	(void)close(got);
	(void)close(pipes[0]);
	(void)close(pipes[1]);

	/* The two that nobody took go with the next packet. */
	assert_int_equal(wire_send(pair->a, &text.base, NULL, 0), 0);
	assert_int_equal(wire_recv(pair->wire, pair->b, &kamen__text__descriptor, &message), 1);
	assert_int_equal(wire_take_fd(pair->wire, 0), -1);
	assert_int_equal(n_open_fds(), before);
}

static void a_message_outlives_its_descriptors(void **state)
{
	struct pair *pair = *state;
	Kamen__Text text = KAMEN__TEXT__INIT;
	ProtobufCMessage *message;
	struct rlimit old, none;
	int before = n_open_fds(), lowest;

	text.text = (char *)"where is it?";
	lowest = dup(pair->a);
	assert_int_equal(wire_send(pair->a, &text.base, &pair->a, 1), 0);
	(void)close(lowest);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	none = (struct rlimit){ (rlim_t)lowest, old.rlim_max };
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	assert_int_equal(wire_recv(pair->wire, pair->b, &kamen__text__descriptor, &message), 1);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
	assert_string_equal(((Kamen__Text *)message)->text, "where is it?");
	assert_int_equal(wire_take_fd(pair->wire, 0), -1);
	assert_int_equal(n_open_fds(), before);
}

static void send_raw(int sock, const char *bytes, unsigned n_fds, int fd)
{
	_Alignas(struct cmsghdr) uint8_t control[CMSG_SPACE(8 * sizeof(int))] = { 0 };
	struct iovec iov = { .iov_base = (void *)(uintptr_t)bytes, .iov_len = strlen(bytes) };
	struct msghdr msg = { .msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = CMSG_SPACE(n_fds * sizeof(int)) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
	for (unsigned i = 0; i < n_fds; i++)
		memcpy(CMSG_DATA(c) + i * sizeof(int), &fd, sizeof(fd));
	assert_int_equal(sendmsg(sock, &msg, 0), strlen(bytes));
}

static void a_refused_packet_leaves_no_descriptor_open(void **state)
{
	struct pair *pair = *state;
	ProtobufCMessage *message = NULL;
	int before = n_open_fds();

	send_raw(pair->a, "\xff\xff\xff", 3, pair->a);
	assert_int_equal(
		wire_recv(pair->wire, pair->b, &kamen__text__descriptor, &message), -EBADMSG);
	assert_int_equal(n_open_fds(), before);
	for (unsigned n = 4; n <= 8; n++) {
		send_raw(pair->a, "\x0a\x01x", n, pair->a);
		assert_int_equal(wire_recv(pair->wire, pair->b, &kamen__text__descriptor, &message),
			-EBADMSG);
		assert_int_equal(n_open_fds(), before);
	}
}

static void a_peer_that_does_not_read_is_not_waited_for(void **state)
{
	struct pair *pair = *state;
	Kamen__Text text = KAMEN__TEXT__INIT;
	int r = 0;

	text.text = (char *)"full";
	for (unsigned i = 0; i < 100000 && r == 0; i++)
		r = wire_send(pair->a, &text.base, NULL, 0);
	assert_int_equal(r, -EAGAIN);
	(void)close(pair->b);
	r = wire_send(pair->a, &text.base, NULL, 0);
	assert_true(r == -EPIPE || r == -ECONNRESET);
	pair->b = -1;
}

static void site_names_are_short_and_plain(void **state)
{
	char name[80];

	(void)state;
	assert_int_equal(wire_site_name_check("line-1.top_left"), 0);
	assert_int_equal(wire_site_name_check("0"), 0);
	assert_int_equal(wire_site_name_check(NULL), -EINVAL);
	assert_int_equal(wire_site_name_check(""), -EINVAL);
	assert_int_equal(wire_site_name_check(".."), -EINVAL);
	assert_int_equal(wire_site_name_check("-a"), -EINVAL);
	assert_int_equal(wire_site_name_check("a/b"), -EINVAL);
	assert_int_equal(wire_site_name_check("Line"), -EINVAL);
	assert_int_equal(wire_site_name_check("a\n"), -EINVAL);
	memset(name, 'a', sizeof(name));
	name[63] = 0;
	assert_int_equal(wire_site_name_check(name), 0);
	name[63] = 'a';
	name[64] = 0;
	assert_int_equal(wire_site_name_check(name), -EINVAL);
}

static void class_names_are_short_utf_8(void **state)
{
	static const char *const good[] = { "ok", "a b", "Kratzer \xc3\xa4", "\xe4\xba\xba",
		"\xf0\x9f\x99\x82", "a,b", "\"", "-", "\xc2\xa0" };
	static const char *const bad[] = { "", " a", "a ", "a\n", "\t", "\x7f", "\xc2\x85", "\xff",
		"\x80", "\xc3", "\xc0\x80", "\xe0\x80\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80",
		"\xf8\x88\x80\x80\x80", "\xe4\xba", "\xc3\x28" };
	char name[WIRE_CLASS_BYTES + 1];

	(void)state;
	for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++)
		assert_int_equal(wire_class_name_check(good[i]), 0);
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		assert_int_equal(wire_class_name_check(bad[i]), -EINVAL);
	assert_int_equal(wire_class_name_check(NULL), -EINVAL);
	memset(name, 'a', sizeof(name));
	name[WIRE_CLASS_BYTES - 1] = 0;
	assert_int_equal(wire_class_name_check(name), 0);
	name[WIRE_CLASS_BYTES - 1] = 'a';
	name[WIRE_CLASS_BYTES] = 0;
	assert_int_equal(wire_class_name_check(name), -EINVAL);
}

#define WITH_PAIR(f) cmocka_unit_test_setup_teardown(f, pair_open, pair_close)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_PAIR(a_message_comes_back_as_it_was_sent),
		WITH_PAIR(a_message_over_the_limit_is_neither_sent_nor_taken),
		WITH_PAIR(many_empty_messages_do_not_become_much_memory),
		WITH_PAIR(junk_and_cut_messages_are_refused),
		WITH_PAIR(a_missing_required_field_is_not_sent),
		WITH_PAIR(an_unknown_enum_is_refused),
		WITH_PAIR(descriptors_travel_and_none_is_left_open),
		WITH_PAIR(a_refused_packet_leaves_no_descriptor_open),
		WITH_PAIR(a_peer_that_does_not_read_is_not_waited_for),
		WITH_PAIR(a_message_outlives_its_descriptors),
		cmocka_unit_test(site_names_are_short_and_plain),
		cmocka_unit_test(class_names_are_short_utf_8),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
