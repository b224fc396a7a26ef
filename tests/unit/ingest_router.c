/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <zmq.h>
#include <cmocka.h>

#include "ingest/askers.h"
#include "ingest/peers.h"
#include "ingest/zap.h"
#include "ops/endpoint.h"

#define KEY "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"

/* ---- endpoints */

static void an_endpoint_says_who_may_reach_it(void **state)
{
	(void)state;
	assert_int_equal(endpoint_place("ipc:///run/kamen/a.ipc"), ENDPOINT_IPC);
	assert_int_equal(endpoint_place("tcp://127.0.0.1:5555"), ENDPOINT_LOOPBACK);
	assert_int_equal(endpoint_place("tcp://127.9.9.9:1"), ENDPOINT_LOOPBACK);
	assert_int_equal(endpoint_place("tcp://[::1]:5555"), ENDPOINT_LOOPBACK);
	assert_int_equal(endpoint_place("tcp://0.0.0.0:5555"), ENDPOINT_TCP);
	assert_int_equal(endpoint_place("tcp://[::]:5555"), ENDPOINT_TCP);
	assert_int_equal(endpoint_place("tcp://*:5555"), ENDPOINT_TCP);
	assert_int_equal(endpoint_place("tcp://[::ffff:127.0.0.1]:5555"), ENDPOINT_TCP);
	assert_int_equal(endpoint_place("tcp://127.0.0.1.example.org:1"), ENDPOINT_NONE);
	assert_int_equal(endpoint_place("tcp://localhost:1"), ENDPOINT_NONE);
	assert_int_equal(endpoint_place("tcp://127.0.0.1:0"), ENDPOINT_NONE);
	assert_int_equal(endpoint_place("tcp://127.0.0.1:65536"), ENDPOINT_NONE);
	assert_int_equal(endpoint_place("tcp://127.0.0.1:5555x"), ENDPOINT_NONE);
	assert_int_equal(endpoint_place("tcp://127.0.0.1"), ENDPOINT_NONE);
	assert_int_equal(endpoint_place("ipc://relative"), ENDPOINT_NONE);
	assert_int_equal(endpoint_place("ipc://@abstract"), ENDPOINT_NONE);
	assert_int_equal(endpoint_place("inproc://x"), ENDPOINT_NONE);
	assert_int_equal(endpoint_place("tcp://eth0;127.0.0.1:1"), ENDPOINT_NONE);
	assert_int_equal(endpoint_place(""), ENDPOINT_NONE);
}

static void tcp_takes_a_key_or_to_be_asked_for(void **state)
{
	struct diag diag;

	(void)state;
	assert_int_equal(endpoint_check("ipc:///a", false, false, &diag), 0);
	assert_int_equal(endpoint_check("tcp://127.0.0.1:1", false, false, &diag), -EINVAL);
	assert_int_equal(endpoint_check("tcp://127.0.0.1:1", false, true, &diag), 0);
	assert_int_equal(endpoint_check("tcp://127.0.0.1:1", true, false, &diag), 0);
	assert_int_equal(endpoint_check("tcp://10.0.0.1:1", false, true, &diag), -EINVAL);
	assert_int_equal(endpoint_check("tcp://10.0.0.1:1", true, false, &diag), 0);
	assert_int_equal(endpoint_check("pgm://10.0.0.1:1", true, true, &diag), -EINVAL);
}

/* ---- the list of peers */

static struct peers *parse(const char *text, struct diag *diag)
{
	struct peers *peers = NULL;

	diag->text[0] = '\0';
	(void)peers_parse(&peers, "peers", text, strlen(text), diag);
	return peers;
}

static void a_peer_speaks_for_its_sites_alone(void **state)
{
	struct diag diag;
	_cleanup_(peers_freep) struct peers *peers =
		parse("; who may\n[line 3]\nkey = " KEY "\nsites = caps,cans\n  sites = bottles\n"
		      "[camera]\nuid = 1000\nsites = caps\n"
		      "[old]\naddress = 127.0.0.1\nsites = *\n"
		      "[nobody]\nuid = 7\n",
			&diag);

	(void)state;
	assert_non_null(peers);
	assert_true(peers_has(peers, "key:" KEY));
	assert_true(peers_may(peers, "key:" KEY, "caps"));
	assert_true(peers_may(peers, "key:" KEY, "bottles"));
	assert_false(peers_may(peers, "key:" KEY, "cap"));
	assert_false(peers_may(peers, "key:" KEY, ""));
	assert_string_equal(peers_site(peers, "key:" KEY, 1), "cans");
	assert_null(peers_site(peers, "key:" KEY, 3));
	assert_true(peers_may(peers, "uid:1000", "caps"));
	assert_false(peers_may(peers, "uid:1000", "cans"));
	assert_true(peers_may(peers, "address:127.0.0.1", "anything"));
	assert_true(peers_may(peers, "address:127.0.0.1", ""));
	assert_null(peers_site(peers, "address:127.0.0.1", 0));
	assert_false(peers_may(peers, "uid:7", "caps"));
	/* Who is not named: the rule of the socket's file. Keys have none. */
	assert_true(peers_may(peers, "uid:8", "caps"));
	assert_false(peers_may(peers, "key:" KEY "x", "caps"));
	assert_false(peers_may(peers, "", "caps"));
}

static void an_address_has_one_spelling(void **state)
{
	struct diag diag;
	_cleanup_(peers_freep) struct peers *peers =
		parse("[a]\naddress = 2001:DB8:0:0::1\nsites = a\n"
		      "[b]\naddress = ::ffff:10.0.0.9\nsites = a\n",
			&diag);
	_cleanup_(peers_freep) struct peers *same =
		parse("[a]\naddress = ::1\n[b]\naddress = 0:0:0:0:0:0:0:1\n", &diag);

	(void)state;
	assert_non_null(peers);
	assert_false(peers_may(peers, "address:2001:db8::1", "b"));
	assert_true(peers_may(peers, "address:2001:db8::1", "a"));
	assert_false(peers_may(peers, "address:10.0.0.9", "b"));
	assert_null(same);
}

static void without_a_list_that_can_be_read_nobody_speaks(void **state)
{
	_cleanup_(peers_freep) struct peers *peers = peers_nobody();

	(void)state;
	assert_non_null(peers);
	assert_false(peers_may(peers, "uid:8", "caps"));
	assert_false(peers_may(peers, "address:127.0.0.1", ""));
	assert_null(peers_site(peers, "uid:8", 0));
}

static void a_wrong_list_is_named_with_its_line(void **state)
{
	static const struct {
		const char *text, *where;
	} rows[] = {
		{ "sites = a\n", "peers:1:" },
		{ "[a]\nkey = short\n", "peers:2: key" },
		{ "[a]\nuid = -1\n", "peers:2: uid" },
		{ "[a]\nuid = 01\n", "peers:2: uid" },
		{ "[a]\naddress = localhost\n", "peers:2: address" },
		{ "[a]\nuid = 1\nkey = " KEY "\n", "peers:3:" },
		{ "[a]\nuid = 1\nsites = ../b\n", "peers:3:" },
		{ "[a]\nuid = 1\n[b]\nuid = 1\n", "peers:2:" },
		{ "[a]\nuid = 1\n[b]\nuid = 2\n[a]\nsites = x\n", "peers:6:" },
		{ "[a]\nsites = x\n", "peers:2:" },
		{ "[a]\nname = x\n", "peers:2:" },
		{ "[a]\nnonsense\n", "peers:2:" },
	};
	struct diag diag;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		assert_null(parse(rows[i].text, &diag));
		if (strncmp(diag.text, rows[i].where, strlen(rows[i].where)) != 0)
			fail_msg("%s: \"%s\"", rows[i].where, diag.text);
	}
}

/* ---- who connects */

static int judge(
	const struct peers *peers, char ret_peer[PEER_CHARS], unsigned n, const char *const texts[])
{
	struct zap_frame frames[8];
	const char *why;

	memset(ret_peer, 0, PEER_CHARS);
	for (unsigned i = 0; i < n; i++)
		frames[i] = (struct zap_frame){ texts[i], strlen(texts[i]) };
	return zap_judge(peers, frames, n, ret_peer, &why);
}

static void a_connection_is_known_by_key_user_or_address(void **state)
{
	struct diag diag;
	_cleanup_(peers_freep) struct peers *peers = parse("[a]\nkey = " KEY "\n", &diag);
	/* Never a zero: texts are told by their length here. */
	uint8_t key[33] = { 0 };
	char peer[PEER_CHARS], other[33];

	(void)state;
	assert_non_null(zmq_z85_decode(key, KEY));
	assert_int_equal(strlen((const char *)key), 32);
	memset(other, 'x', 32);
	other[32] = '\0';
#define JUDGE(...) \
	judge(peers, peer, sizeof((const char *[]){ __VA_ARGS__ }) / sizeof(char *), \
		(const char *[]){ __VA_ARGS__ })
	assert_int_equal(JUDGE("1.0", "9", "curve", "10.0.0.1", "", "CURVE", (char *)key), 200);
	assert_string_equal(peer, "key:" KEY);
	assert_int_equal(JUDGE("1.0", "9", "curve", "10.0.0.1", "", "CURVE", other), 400);
	assert_int_equal(JUDGE("1.0", "9", "curve", "10.0.0.1", "", "CURVE", "short"), 500);
	assert_int_equal(JUDGE("1.0", "9", "curve", "10.0.0.1", "", "CURVE"), 500);
	assert_int_equal(JUDGE("1.0", "9", "curve", "10.0.0.1", "", "NULL"), 400);
	assert_int_equal(JUDGE("1.0", "9", "curve", "10.0.0.1", "", "PLAIN", "u", "p"), 500);
	assert_int_equal(JUDGE("2.0", "9", "curve", "10.0.0.1", "", "CURVE", (char *)key), 500);
	assert_int_equal(JUDGE("1.0", "9", "", "10.0.0.1", "", "NULL"), 500);
	assert_int_equal(JUDGE("1.0", "9"), 500);
	assert_int_equal(JUDGE("1.0", "9", "ipc", "some.host:1000:20:3", "", "NULL"), 200);
	assert_string_equal(peer, "uid:1000");
	assert_int_equal(JUDGE("1.0", "9", "ipc", "1000:20:3", "", "NULL"), 400);
	assert_int_equal(JUDGE("1.0", "9", "ipc", "a:1000:20:", "", "NULL"), 400);
	assert_int_equal(JUDGE("1.0", "9", "ipc", "", "", "NULL"), 400);
	assert_int_equal(JUDGE("1.0", "9", "plain", "::ffff:127.0.0.1", "", "NULL"), 200);
	assert_string_equal(peer, "address:127.0.0.1");
	assert_int_equal(JUDGE("1.0", "9", "plain", "::1", "", "NULL"), 200);
	assert_string_equal(peer, "address:::1");
	assert_int_equal(JUDGE("1.0", "9", "plain", "127.0.0.1\n", "", "NULL"), 400);
	assert_int_equal(JUDGE("1.0", "9", "plain", "127.0.0.1", "", "CURVE", (char *)key), 400);
#undef JUDGE
}

/* ---- requests */

static int ask_of(struct ask *ask, const Kamen__RouterRequest *request, size_t n_bytes,
	unsigned n_parts, struct diag *diag)
{
	static const uint8_t pixels[4096];
	_cleanup_(wire_freep) struct wire *wire = NULL;
	_cleanup_(freep) void *header = NULL;
	struct ask_part parts[ASK_MAX_PARTS] = { { NULL, 0 } };

	assert_int_equal(wire_new(&wire), 0);
	assert_int_equal(wire_encode(&request->base, &header, &parts[0].n_bytes), 0);
	parts[0].data = header;
	for (unsigned i = 1; i < ASK_MAX_PARTS; i++)
		parts[i] = (struct ask_part){ pixels, n_bytes };
	return ask_parse(ask, wire, parts, n_parts, 2048, diag);
}

static void a_request_that_is_wrong_is_still_named(void **state)
{
	Kamen__RouterRequest request = KAMEN__ROUTER_REQUEST__INIT;
	struct ask ask;
	struct diag diag;

	(void)state;
	request.major = WIRE_MAJOR;
	request.id = 77;
	request.has_verb = request.has_trigger_id = true;
	request.verb = SHM_ECHO;
	request.trigger_id = 5;
	assert_int_equal(ask_of(&ask, &request, 2048, 2, &diag), 0);
	assert_int_equal(ask.n_bytes, 2048);
	assert_int_equal(ask_of(&ask, &request, 2049, 2, &diag), -EFBIG);
	assert_int_equal(ask.id, 77);
	assert_int_equal(ask.trigger_id, 5);
	assert_int_equal(ask_of(&ask, &request, 1, 1, &diag), -EBADMSG);
	assert_int_equal(ask.id, 77);
	assert_int_equal(ask_of(&ask, &request, 1, 3, &diag), -EBADMSG);
	request.major = WIRE_MAJOR + 1;
	assert_int_equal(ask_of(&ask, &request, 1, 2, &diag), -EPROTO);
	assert_int_equal(ask.id, 77);
}

/* ---- what waits */

static int add(struct askers *askers, const char *peer, uint32_t connection, uint64_t n_bytes)
{
	uint8_t address[ASKER_ADDRESS_BYTES] = { 0, (uint8_t)(connection >> 8),
		(uint8_t)connection };
	struct asker *asker =
		askers_get(askers, NULL, &(struct ask_part){ address, sizeof(address) }, peer);
	struct ask ask = { .n_bytes = n_bytes };
	zmq_msg_t pixels;
	int r;

	assert_non_null(asker);
	(void)zmq_msg_init(&pixels);
	r = asker_add(asker, &ask, 0, &pixels);
	(void)zmq_msg_close(&pixels);
	if (r < 0)
		asker_put(asker);
	return r;
}

/* Whose turn it was; what it had waiting is over. */
static const char *turn(struct askers *askers, char ret_name[PEER_CHARS])
{
	struct asker *asker = askers_next(askers, 1);
	struct asked *asked;

	if (!asker)
		return "nobody";
	asked = TAILQ_FIRST(&asker->waiting);
	memcpy(ret_name, asker->party->name, PEER_CHARS);
	asker_had_turn(asker);
	asked_take(asked);
	asked_free(asked);
	asker_put(asker);
	return ret_name;
}

static void peers_take_turns_however_many_connections_they_have(void **state)
{
	struct askers askers;
	char name[PEER_CHARS];

	(void)state;
	askers_init(&askers);
	for (uint32_t i = 0; i < 100; i++)
		assert_int_equal(add(&askers, "key:crowd", i, 10), 0);
	assert_int_equal(add(&askers, "key:other", 7, 10), 0);
	assert_int_equal(add(&askers, "key:other", 7, 10), 0);
	assert_string_equal(turn(&askers, name), "key:crowd");
	assert_string_equal(turn(&askers, name), "key:other");
	assert_string_equal(turn(&askers, name), "key:crowd");
	assert_string_equal(turn(&askers, name), "key:other");
	for (unsigned i = 0; i < 98; i++)
		assert_string_equal(turn(&askers, name), "key:crowd");
	assert_string_equal(turn(&askers, name), "nobody");
	assert_true(TAILQ_EMPTY(&askers.parties));
	assert_int_equal(askers.n_bytes, 0);
}

static void what_waits_is_bounded_for_each_and_for_all(void **state)
{
	const uint64_t mib = UINT64_C(1) << 20;
	struct askers askers;
	char name[PEER_CHARS];
	unsigned n = 0;

	(void)state;
	askers_init(&askers);
	for (unsigned i = 0; i < 16; i++)
		assert_int_equal(add(&askers, "key:a", 0, 1), 0);
	assert_int_equal(add(&askers, "key:a", 0, 1), -EBUSY);
	for (uint32_t i = 16; i < 256; i++)
		assert_int_equal(add(&askers, "key:a", i, 1), 0);
	assert_int_equal(add(&askers, "key:a", 999, 1), -EBUSY);
	assert_int_equal(add(&askers, "key:b", 0, 60 * mib), 0);
	assert_int_equal(add(&askers, "key:b", 0, 5 * mib), -EBUSY);
	assert_int_equal(add(&askers, "key:b", 1, 60 * mib), 0);
	assert_int_equal(add(&askers, "key:b", 2, 60 * mib), -EBUSY);
	assert_int_equal(add(&askers, "key:c", 0, 60 * mib), 0);
	assert_int_equal(add(&askers, "key:c", 1, 60 * mib), 0);
	/* All together have 256 MiB, but a peer with nothing is not turned away for it. */
	assert_int_equal(add(&askers, "key:c", 2, 17 * mib), -EBUSY);
	assert_int_equal(add(&askers, "key:d", 0, 60 * mib), 0);
	assert_int_equal(add(&askers, "key:d", 0, 1), -EBUSY);
	while (strcmp(turn(&askers, name), "nobody") != 0)
		n++;
	assert_int_equal(n, 256 + 2 + 2 + 1);
	assert_int_equal(askers.n_waiting, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_endpoint_says_who_may_reach_it),
		cmocka_unit_test(tcp_takes_a_key_or_to_be_asked_for),
		cmocka_unit_test(a_peer_speaks_for_its_sites_alone),
		cmocka_unit_test(an_address_has_one_spelling),
		cmocka_unit_test(without_a_list_that_can_be_read_nobody_speaks),
		cmocka_unit_test(a_wrong_list_is_named_with_its_line),
		cmocka_unit_test(a_connection_is_known_by_key_user_or_address),
		cmocka_unit_test(a_request_that_is_wrong_is_still_named),
		cmocka_unit_test(peers_take_turns_however_many_connections_they_have),
		cmocka_unit_test(what_waits_is_bounded_for_each_and_for_all),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
