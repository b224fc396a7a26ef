/* SPDX-License-Identifier: Apache-2.0 */
#include "ingest_serve.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <zmq.h>

#include "ingest/decoder.h"
#include "ingest/stream.h"

/* ---- the checks alone */

static Kamen__StreamFrame good_frame(void)
{
	Kamen__StreamFrame frame = KAMEN__STREAM_FRAME__INIT;

	frame.major = WIRE_MAJOR;
	frame.sender = (char *)(uintptr_t) "line-1";
	return frame;
}

static Kamen__StreamFrame pixels(Kamen__PixelFormat format, uint32_t width, uint32_t height)
{
	Kamen__StreamFrame frame = good_frame();

	frame.has_format = frame.has_width = frame.has_height = true;
	frame.format = format;
	frame.width = width;
	frame.height = height;
	return frame;
}

static int parse(const Kamen__StreamFrame *frame, uint64_t n_image, struct diag *diag,
	struct stream_frame *ret_frame)
{
	_cleanup_(wire_freep) struct wire *wire = NULL;
	_cleanup_(freep) void *header = NULL;
	size_t n_header;

	assert_int_equal(wire_new(&wire), 0);
	assert_int_equal(wire_encode(&frame->base, &header, &n_header), 0);
	return stream_parse(ret_frame, wire, header, n_header, n_image, diag);
}

static void a_header_says_what_follows(void **state)
{
	Kamen__StreamFrame frame = pixels(KAMEN__PIXEL_FORMAT__RGB8, 5, 4);
	struct stream_frame got;

	(void)state;
	frame.sequence = 77;
	frame.part_id = (char *)(uintptr_t) "p-9";
	assert_int_equal(parse(&frame, 60, NULL, &got), 0);
	assert_int_equal(got.stride, 15);
	assert_int_equal(got.sequence, 77);
	assert_string_equal(got.sender, "line-1");
	assert_string_equal(got.part_id, "p-9");
	/* The last row's padding may be there or not. */
	frame.has_stride = true;
	frame.stride = 16;
	assert_int_equal(parse(&frame, 63, NULL, &got), 0);
	assert_int_equal(parse(&frame, 64, NULL, &got), 0);
	assert_int_equal(parse(&frame, 62, NULL, &got), -EBADMSG);
	assert_int_equal(parse(&frame, 65, NULL, &got), -EBADMSG);
}

static void every_false_field_has_its_message(void **state)
{
	char long_name[STREAM_NAME_CHARS + 1];
	Kamen__StreamFrame frames[8];
	static const char *const fields[8] = { "major", "sender", "sender", "part_id", "header",
		"size", "stride", "image" };
	struct stream_frame got = { .sender = "untouched" };
	struct diag diag;

	(void)state;
	memset(long_name, 'x', sizeof(long_name));
	long_name[STREAM_NAME_CHARS] = 0;
	for (size_t i = 0; i < ARRAY_SIZE(frames); i++)
		frames[i] = pixels(KAMEN__PIXEL_FORMAT__MONO8, 8, 8);
	frames[0].major = WIRE_MAJOR + 1;
	frames[1].sender = long_name;
	frames[2].sender = (char *)(uintptr_t) "a\nb";
	frames[3].part_id = long_name;
	frames[4].format = (Kamen__PixelFormat)77;
	frames[5].width = IMAGE_MAX_SIDE + 1;
	frames[6].has_stride = true;
	frames[6].stride = 7;
	frames[7].height = 9;
	for (size_t i = 0; i < ARRAY_SIZE(frames); i++) {
		diag.text[0] = 0;
		assert_true(parse(&frames[i], 64, &diag, &got) < 0);
		if (strncmp(diag.text, fields[i], strlen(fields[i])) != 0)
			fail_msg("%s: \"%s\"", fields[i], diag.text);
	}
	assert_string_equal(got.sender, "untouched");
}

static void gaps_are_counted_for_each_sender(void **state)
{
	struct stream_senders *senders = calloc(1, sizeof(*senders));

	(void)state;
	assert_non_null(senders);
	assert_int_equal(stream_track(senders, "a", 100), 0); /* we came late */
	assert_int_equal(stream_track(senders, "b", 0), 0);
	assert_int_equal(stream_track(senders, "a", 101), 0);
	assert_int_equal(stream_track(senders, "a", 105), 3);
	assert_int_equal(stream_track(senders, "b", 2), 1);
	assert_int_equal(stream_track(senders, "a", 0), 0); /* it began anew */
	assert_int_equal(stream_track(senders, "a", 1), 0);
	free(senders);
}

static void the_sender_unheard_of_for_longest_makes_room(void **state)
{
	struct stream_senders *senders = calloc(1, sizeof(*senders));
	char name[16];

	(void)state;
	assert_non_null(senders);
	for (int i = 0; i < STREAM_MAX_SENDERS; i++) {
		(void)snprintf(name, sizeof(name), "s%d", i);
		(void)stream_track(senders, name, 0);
	}
	assert_int_equal(stream_track(senders, "s0", 1), 0);
	assert_int_equal(stream_track(senders, "new", 0), 0); /* takes the place of s1 */
	assert_int_equal(stream_track(senders, "s0", 4), 2);
	assert_int_equal(stream_track(senders, "s1", 9), 0);
	/* Many names of one peer push nobody else's out. */
	assert_int_equal(stream_track(senders, "honest key:b", 0), 0);
	for (unsigned i = 0; i < 1000; i++) {
		(void)snprintf(name, sizeof(name), "n%u key:a", i);
		(void)stream_track(senders, name, 0);
	}
	assert_int_equal(stream_track(senders, "honest key:b", 2), 1);
	free(senders);
}

/* ---- the whole role */

struct camera {
	struct serve serve;
	char endpoint[128];
	void *context, *socket;
};

static int set_up(void **state)
{
	struct camera *camera = calloc(1, sizeof(*camera));
	int linger = 0;

	assert_non_null(camera);
	serve_begin(&camera->serve, "threads");
	(void)snprintf(
		camera->endpoint, sizeof(camera->endpoint), "ipc://%s/pull", camera->serve.dir);
	serve_send_site(&camera->serve, NULL, camera->endpoint, 0);
	camera->context = zmq_ctx_new();
	camera->socket = zmq_socket(camera->context, ZMQ_PUSH);
	assert_int_equal(zmq_setsockopt(camera->socket, ZMQ_LINGER, &linger, sizeof(linger)), 0);
	assert_int_equal(zmq_connect(camera->socket, camera->endpoint), 0);
	*state = camera;
	return 0;
}

static int tear_down(void **state)
{
	struct camera *camera = *state;

	(void)zmq_close(camera->socket);
	(void)zmq_ctx_term(camera->context);
	serve_end(&camera->serve);
	free(camera);
	return 0;
}

static void send_part(struct camera *camera, const void *data, size_t n_bytes, bool more)
{
	assert_true(zmq_send(camera->socket, data, n_bytes, more ? ZMQ_SNDMORE : 0) >= 0);
}

static void send_frame(
	struct camera *camera, const Kamen__StreamFrame *frame, const void *image, size_t n_bytes)
{
	_cleanup_(freep) void *header = NULL;
	size_t n_header;

	assert_int_equal(wire_encode(&frame->base, &header, &n_header), 0);
	send_part(camera, header, n_header, true);
	send_part(camera, image, n_bytes, false);
}

static void expect_refused(struct camera *camera, const char *reason)
{
	const Kamen__Refused *refused =
		serve_expect(&camera->serve, KAMEN__ROLE_MESSAGE__KIND_REFUSED)->refused;

	assert_string_equal(refused->source, "zmq");
	if (!strstr(refused->reason, reason))
		fail_msg("\"%s\", not \"%s\"", refused->reason, reason);
}

static void frames_and_files_are_admitted(void **state)
{
	struct camera *camera = *state;
	uint8_t raw[20 * 32 * 3];
	Kamen__StreamFrame frame = pixels(KAMEN__PIXEL_FORMAT__RGB8, 32, 20);
	Kamen__StreamFrame file = good_frame();
	const Kamen__Admit *admit;
	size_t n_png;
	_cleanup_(freep) void *png = serve_png(1, &n_png);

	for (size_t i = 0; i < sizeof(raw); i++)
		raw[i] = (uint8_t)(i * 3);
	frame.part_id = (char *)(uintptr_t) "part-1";
	frame.has_capture_us = true;
	frame.capture_us = 123456;
	send_frame(camera, &frame, raw, sizeof(raw));
	admit = serve_expect(&camera->serve, KAMEN__ROLE_MESSAGE__KIND_ADMIT)->admit;
	assert_string_equal(admit->source, "zmq");
	assert_string_equal(admit->sender, "line-1");
	assert_string_equal(admit->part_id, "part-1");
	assert_int_equal(admit->capture_us, 123456);
	assert_int_equal(admit->height, SERVE_SHORTER_PX);
	assert_int_equal(admit->n_channels, 3);
	serve_reply(&camera->serve, admit->id, KAMEN__OUTCOME__ACCEPTED);

	file.sequence = 1;
	send_frame(camera, &file, png, n_png);
	admit = serve_expect(&camera->serve, KAMEN__ROLE_MESSAGE__KIND_ADMIT)->admit;
	assert_int_equal(admit->n_channels, 1);
	serve_reply(&camera->serve, admit->id, KAMEN__OUTCOME__ACCEPTED);
}

static void a_malformed_message_costs_only_itself(void **state)
{
	struct camera *camera = *state;
	Kamen__StreamFrame frame = pixels(KAMEN__PIXEL_FORMAT__MONO8, 4, 4);
	const uint8_t raw[16] = { 0 };

	send_part(camera, "alone", 5, false);
	expect_refused(camera, "two parts");
	send_part(camera, "one", 3, true);
	send_part(camera, "two", 3, true);
	send_part(camera, "three", 5, true);
	send_part(camera, "four", 4, false);
	expect_refused(camera, "two parts");
	send_part(camera, "\xff\xff\xff", 3, true);
	send_part(camera, raw, sizeof(raw), false);
	expect_refused(camera, "header");
	send_part(camera, "", 0, true);
	send_part(camera, "", 0, false);
	expect_refused(camera, "header");
	send_frame(camera, &frame, raw, 15);
	expect_refused(camera, "image");
	frame = good_frame();
	send_frame(camera, &frame, "no image at all", 15);
	expect_refused(camera, "");

	frame = pixels(KAMEN__PIXEL_FORMAT__MONO8, 4, 4);
	frame.sequence = 1;
	send_frame(camera, &frame, raw, sizeof(raw));
	serve_reply(&camera->serve,
		serve_expect(&camera->serve, KAMEN__ROLE_MESSAGE__KIND_ADMIT)->admit->id,
		KAMEN__OUTCOME__ACCEPTED);
}

static void a_gap_is_told(void **state)
{
	struct camera *camera = *state;
	Kamen__StreamFrame frame = pixels(KAMEN__PIXEL_FORMAT__MONO8, 4, 4);
	const uint8_t raw[16] = { 1 };
	const Kamen__Gap *gap;

	send_frame(camera, &frame, raw, sizeof(raw));
	(void)serve_expect(&camera->serve, KAMEN__ROLE_MESSAGE__KIND_ADMIT);
	frame.sequence = 8;
	send_frame(camera, &frame, raw, sizeof(raw));
	gap = serve_expect(&camera->serve, KAMEN__ROLE_MESSAGE__KIND_GAP)->gap;
	assert_string_equal(gap->site, "a");
	assert_string_equal(gap->sender, "line-1");
	assert_int_equal(gap->n_lost, 7);
	(void)serve_expect(&camera->serve, KAMEN__ROLE_MESSAGE__KIND_ADMIT);
}

/* Far more than may be in flight: the sender waits, and nothing is lost. */
static void a_flood_waits_at_its_sender(void **state)
{
	enum { N_FRAMES = 300, N_AT_ONCE = 64 };
	struct camera *camera = *state;
	struct serve *serve = &camera->serve;
	Kamen__StreamFrame frame = pixels(KAMEN__PIXEL_FORMAT__MONO8, 4, 4);
	uint64_t ids[N_AT_ONCE];
	unsigned n = 0;

	for (unsigned i = 0; i < N_FRAMES; i++) {
		uint8_t raw[16] = { (uint8_t)i, (uint8_t)(i >> 8) };

		frame.sequence = i;
		send_frame(camera, &frame, raw, sizeof(raw));
	}
	while (n < N_AT_ONCE)
		ids[n++] = serve_expect(serve, KAMEN__ROLE_MESSAGE__KIND_ADMIT)->admit->id;
	assert_false(serve_hears(serve, 100));
	for (unsigned i = 0; i < N_FRAMES; i++) {
		serve_reply(serve, ids[i % N_AT_ONCE], KAMEN__OUTCOME__ACCEPTED);
		if (i + N_AT_ONCE < N_FRAMES)
			ids[i % N_AT_ONCE] =
				serve_expect(serve, KAMEN__ROLE_MESSAGE__KIND_ADMIT)->admit->id;
	}
}

static void an_endpoint_that_is_not_local_is_refused(void **state)
{
	struct camera *camera = *state;

	serve_send_site(&camera->serve, NULL, "tcp://0.0.0.0:5999", 0);
	expect_refused(camera, "server_key");
}

/* libzmq ends the connection before it has taken the bytes in; the sender connects anew. */
static void an_oversized_message_never_arrives(void **state)
{
	struct camera *camera = *state;
	static const char big[SERVE_MAX_FILE_BYTES + 1];
	Kamen__StreamFrame frame = good_frame();
	const uint8_t raw[16] = { 2 };

	send_frame(camera, &frame, big, sizeof(big));
	frame = pixels(KAMEN__PIXEL_FORMAT__MONO8, 4, 4);
	for (int i = 0; i < 100; i++) {
		frame.sequence++;
		send_frame(camera, &frame, raw, sizeof(raw));
		if (serve_hears(&camera->serve, 100))
			break;
	}
	(void)serve_expect(&camera->serve, KAMEN__ROLE_MESSAGE__KIND_ADMIT);
}

/* The site is another one to us, with a spool; its socket and its sender's connection stay. */
static void a_stream_outlives_a_change_of_its_site(void **state)
{
	struct camera *camera = *state;
	Kamen__StreamFrame frame = pixels(KAMEN__PIXEL_FORMAT__MONO8, 4, 4);

	for (unsigned i = 0; i < 20; i++) {
		uint8_t raw[16] = { (uint8_t)i };

		serve_send_site(&camera->serve, i % 2 ? "spool" : NULL, camera->endpoint, 0);
		frame.sequence = i;
		send_frame(camera, &frame, raw, sizeof(raw));
		serve_reply(&camera->serve,
			serve_expect(&camera->serve, KAMEN__ROLE_MESSAGE__KIND_ADMIT)->admit->id,
			KAMEN__OUTCOME__ACCEPTED);
	}
}

#define ROLE_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_header_says_what_follows),
		cmocka_unit_test(every_false_field_has_its_message),
		cmocka_unit_test(gaps_are_counted_for_each_sender),
		cmocka_unit_test(the_sender_unheard_of_for_longest_makes_room),
		ROLE_TEST(frames_and_files_are_admitted),
		ROLE_TEST(a_malformed_message_costs_only_itself),
		ROLE_TEST(a_gap_is_told),
		ROLE_TEST(a_flood_waits_at_its_sender),
		ROLE_TEST(an_oversized_message_never_arrives),
		ROLE_TEST(an_endpoint_that_is_not_local_is_refused),
		ROLE_TEST(a_stream_outlives_a_change_of_its_site),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
