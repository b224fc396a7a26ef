/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <cmocka.h>

#include "ingest/decoder.h"
#include "ingest/memfile.h"

enum { TIMEOUT_MS = 300 };

struct fixture {
	struct decoder *decoder;
	sd_event *event;
	struct decode_result result;
	unsigned n_results;
};

/* A decoder with all the faults that a parser can have, told by the first byte. */
static int faulty_decode(
	struct image **ret_image, const void *data, size_t n_bytes, struct diag *diag)
{
	switch (*(const char *)data) {
	case 'c':
		(void)signal(SIGSEGV, SIG_DFL); /* cmocka would catch it */
		raise(SIGSEGV);
		break;
	case 'l':
		for (volatile unsigned i = 0;; i++)
			;
	case 'o':
		(void)open("/etc/passwd", O_RDONLY);
		break;
	case 's':
		(void)socket(AF_UNIX, SOCK_STREAM, 0);
		break;
	case 'x':
		(void)mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		break;
	case 'm':
		if (!malloc((size_t)2 << 30))
			return diag_set(diag, ENOMEM, "as it should be");
		break;
	default:
		return image_decode(ret_image, data, n_bytes, diag);
	}
	return diag_set(diag, EBADMSG, "still alive");
}

static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct diag diag = { "" };

	assert_non_null(f);
	if (decoder_new(&f->decoder, faulty_decode, TIMEOUT_MS, &diag) < 0)
		fail_msg("%s", diag.text);
	assert_true(sd_event_new(&f->event) >= 0);
	assert_int_equal(decoder_attach(f->decoder, f->event), 0);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	decoder_free(f->decoder);
	sd_event_unref(f->event);
	free(f);
	return 0;
}

static void keep_result(void *user, const struct decode_result *result)
{
	struct fixture *f = user;

	f->result = *result;
	f->n_results++;
}

/* The answer to one image; its descriptor, if any, is in f->result.fd. */
static int ask(struct fixture *f, struct decode_request request, const void *data)
{
	struct memfile bytes;
	unsigned n_before = f->n_results;

	assert_int_equal(memfile_new(&bytes, request.n_bytes), 0);
	memcpy(bytes.map, data, request.n_bytes);
	request.fd = bytes.fd;
	assert_int_equal(decoder_decode(f->decoder, &request, keep_result, f), 0);
	memfile_done(&bytes);
	while (f->n_results == n_before)
		assert_true(sd_event_run(f->event, 20 * NS_PER_S / NS_PER_US) > 0);
	return f->result.code;
}

static int ask_text(struct fixture *f, const char *text)
{
	return ask(f, (struct decode_request){ .n_bytes = strlen(text) }, text);
}

static uint8_t pixel_at(size_t x, size_t y, size_t c)
{
	return (uint8_t)(x * 5 + y * 11 + c * 31);
}

static void *png_of(uint32_t width, uint32_t height, size_t *ret_n_bytes)
{
	_cleanup_(image_freep) struct image *image = NULL;
	struct image_view view;
	void *data = NULL;

	assert_int_equal(image_new(&image, width, height, 3), 0);
	for (size_t i = 0; i < (size_t)width * height * 3; i++)
		image->pixels[i] = pixel_at(i / 3 % width, i / 3 / width, i % 3);
	view = image_view(image);
	assert_int_equal(image_encode_png(&view, &data, ret_n_bytes), 0);
	return data;
}

static void a_file_becomes_pixels(void **state)
{
	struct fixture *f = *state;
	size_t n_bytes;
	_cleanup_(freep) void *png = png_of(40, 30, &n_bytes);
	uint8_t pixels[40 * 30 * 3];

	assert_int_equal(ask(f, (struct decode_request){ .n_bytes = n_bytes }, png), 0);
	assert_int_equal(f->result.width, 40);
	assert_int_equal(f->result.height, 30);
	assert_int_equal(f->result.n_channels, 3);
	assert_int_equal(memfile_check_sealed(f->result.fd, sizeof(pixels)), 0);
	assert_int_equal(memfile_read(f->result.fd, pixels, sizeof(pixels)), 0);
	for (size_t i = 0; i < sizeof(pixels); i++)
		assert_int_equal(pixels[i], pixel_at(i / 3 % 40, i / 3 / 40, i % 3));
	(void)close(f->result.fd);
}

static void a_canonical_image_has_its_shorter_side(void **state)
{
	struct fixture *f = *state;
	size_t n_bytes;
	_cleanup_(freep) void *png = png_of(64, 32, &n_bytes);
	struct decode_request request = { .n_bytes = n_bytes, .shorter_px = 16 };

	assert_int_equal(ask(f, request, png), 0);
	assert_int_equal(f->result.width, 32);
	assert_int_equal(f->result.height, 16);
	(void)close(f->result.fd);
}

static void raw_pixels_lose_their_padding(void **state)
{
	struct fixture *f = *state;
	const uint8_t padded[] = { 1, 2, 99, 99, 3, 4 };
	const uint8_t want[] = { 1, 2, 3, 4 };
	struct decode_request request = { .format = DECODE_MONO8,
		.n_bytes = sizeof(padded),
		.width = 2,
		.height = 2,
		.stride = 4 };
	uint8_t pixels[4];

	assert_int_equal(ask(f, request, padded), 0);
	assert_int_equal(memfile_read(f->result.fd, pixels, sizeof(pixels)), 0);
	assert_memory_equal(pixels, want, sizeof(want));
	(void)close(f->result.fd);
	request.height = 3;
	assert_int_equal(ask(f, request, padded), -EBADMSG);
	assert_int_equal(f->result.fd, -1);
}

static void blue_before_red_is_turned_round(void **state)
{
	struct fixture *f = *state;
	const uint8_t bgr[] = { 1, 2, 3, 4, 5, 6, 99, 7, 8, 9, 10, 11, 12 };
	const uint8_t want[] = { 3, 2, 1, 6, 5, 4, 9, 8, 7, 12, 11, 10 };
	const struct decode_request request = {
		.format = DECODE_BGR8, .n_bytes = sizeof(bgr), .width = 2, .height = 2, .stride = 7
	};
	uint8_t pixels[sizeof(want)];

	assert_int_equal(ask(f, request, bgr), 0);
	assert_int_equal(memfile_read(f->result.fd, pixels, sizeof(pixels)), 0);
	assert_memory_equal(pixels, want, sizeof(want));
}

static void a_damaged_file_has_a_reason(void **state)
{
	struct fixture *f = *state;
	size_t n_bytes;
	_cleanup_(freep) void *png = png_of(40, 30, &n_bytes);

	assert_int_equal(ask(f, (struct decode_request){ .n_bytes = n_bytes / 2 }, png), -EBADMSG);
	assert_true(strlen(f->result.reason) > 0);
	assert_int_equal(ask_text(f, "no image at all"), -EBADMSG);
	assert_true(strlen(f->result.reason) > 0);
}

/* More of them than there are workers: each is replaced. */
static void a_crash_costs_one_image(void **state)
{
	struct fixture *f = *state;
	size_t n_bytes;
	_cleanup_(freep) void *png = png_of(8, 8, &n_bytes);

	for (int i = 0; i < 5; i++) {
		assert_int_equal(ask_text(f, "crash"), -EFAULT);
		assert_non_null(strstr(f->result.reason, "crashed"));
	}
	assert_int_equal(ask(f, (struct decode_request){ .n_bytes = n_bytes }, png), 0);
	(void)close(f->result.fd);
}

static void a_stuck_decoder_is_ended(void **state)
{
	struct fixture *f = *state;
	size_t n_bytes;
	_cleanup_(freep) void *png = png_of(8, 8, &n_bytes);

	assert_int_equal(ask_text(f, "loop"), -ETIMEDOUT);
	assert_non_null(strstr(f->result.reason, "within"));
	assert_int_equal(ask(f, (struct decode_request){ .n_bytes = n_bytes }, png), 0);
	(void)close(f->result.fd);
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define IS_CONFINED 0
#else
#define IS_CONFINED 1
#endif

static void a_decoder_can_open_nothing(void **state)
{
	struct fixture *f = *state;

	if (!IS_CONFINED)
		skip();
	assert_int_equal(ask_text(f, "open"), -EFAULT);
	assert_int_equal(ask_text(f, "socket"), -EFAULT);
	assert_int_equal(ask_text(f, "x: executable memory"), -EFAULT);
	assert_int_equal(ask_text(f, "memory"), -ENOMEM);
}

static void all_workers_work_and_one_image_more_waits(void **state)
{
	struct fixture *f = *state;
	const uint8_t pixel[1] = { 7 };
	struct decode_request request = {
		.format = DECODE_MONO8, .n_bytes = 1, .width = 1, .height = 1, .stride = 1
	};
	struct memfile bytes;

	assert_int_equal(memfile_new(&bytes, 1), 0);
	memcpy(bytes.map, pixel, 1);
	request.fd = bytes.fd;
	for (unsigned i = 0; i < DECODER_N_WORKERS; i++) {
		assert_true(decoder_is_ready(f->decoder));
		assert_int_equal(decoder_decode(f->decoder, &request, keep_result, f), 0);
	}
	assert_false(decoder_is_ready(f->decoder));
	assert_int_equal(decoder_decode(f->decoder, &request, keep_result, f), -EBUSY);
	while (f->n_results < DECODER_N_WORKERS) {
		assert_true(sd_event_run(f->event, 20 * NS_PER_S / NS_PER_US) > 0);
		if (f->result.fd > 0)
			(void)close(f->result.fd);
		f->result.fd = -1;
	}
	memfile_done(&bytes);
	assert_true(decoder_is_ready(f->decoder));
}

static void a_memory_file_that_can_change_is_not_trusted(void **state)
{
	struct memfile file;
	uint8_t bytes[4];
	int fd;

	(void)state;
	assert_int_equal(memfile_new(&file, 0), -EINVAL);
	assert_int_equal(memfile_new(&file, 3), 0);
	assert_int_equal(memfile_check_sealed(file.fd, 3), -EPERM);
	assert_int_equal(memfile_seal(&file, &fd), 0);
	assert_int_equal(memfile_check_sealed(fd, 3), 0);
	assert_int_equal(memfile_check_sealed(fd, 4), -EBADMSG);
	assert_int_equal(memfile_read(fd, bytes, 4), -EBADMSG);
	(void)close(fd);
	memfile_done(&file);
}

#define DECODER_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		DECODER_TEST(a_file_becomes_pixels),
		DECODER_TEST(a_canonical_image_has_its_shorter_side),
		DECODER_TEST(raw_pixels_lose_their_padding),
		DECODER_TEST(blue_before_red_is_turned_round),
		DECODER_TEST(a_damaged_file_has_a_reason),
		DECODER_TEST(a_crash_costs_one_image),
		DECODER_TEST(a_stuck_decoder_is_ended),
		DECODER_TEST(a_decoder_can_open_nothing),
		DECODER_TEST(all_workers_work_and_one_image_more_waits),
		cmocka_unit_test(a_memory_file_that_can_change_is_not_trusted),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
