/* SPDX-License-Identifier: Apache-2.0 */
/* The program itself, argv[1], against small daemons that say what is expected of it. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <cmocka.h>
#include <jansson.h>

#include "fake_daemon.h"
#include "fixture/close.h"
#include "mask/kmask.h"
#include "mask/kmask_format.h"
#include "program_run.h"
#include "wire.h"

/* ---- A control socket that answers one connection: hello, then one request. */

struct control {
	char dir[64];
	int listener;
	pthread_t thread;
	void (*answer)(struct control *control, int sock, const Kamen__Request *request, int fd);
	Kamen__Request__VerbCase expected;
};

static void send_reply(
	int sock, Kamen__Reply *reply, uint64_t id, int last, const int *fds, unsigned n_fds)
{
	reply->id = id;
	reply->last = last;
	assert_int_equal(wire_send(sock, &reply->base, fds, n_fds), 0);
}

static int request_read(struct wire *wire, int sock, const Kamen__Request **ret_request)
{
	struct pollfd poller = { .fd = sock, .events = POLLIN };
	ProtobufCMessage *message;

	if (poll(&poller, 1, -1) != 1 ||
		wire_recv(wire, sock, &kamen__request__descriptor, &message) != 1)
		return -1;
	*ret_request = (const Kamen__Request *)message;
	return 0;
}

static void *control_thread(void *data)
{
	struct control *control = data;
	Kamen__Reply reply = KAMEN__REPLY__INIT;
	Kamen__Welcome welcome = KAMEN__WELCOME__INIT;
	const Kamen__Request *request;
	struct wire *wire = NULL;
	int sock = accept(control->listener, NULL, NULL), fd;

	assert_int_equal(wire_new(&wire), 0);
	assert_int_equal(request_read(wire, sock, &request), 0);
	assert_int_equal(request->verb_case, KAMEN__REQUEST__VERB_HELLO);
	welcome.major = WIRE_MAJOR;
	reply.row_case = KAMEN__REPLY__ROW_WELCOME;
	reply.welcome = &welcome;
	send_reply(sock, &reply, request->id, 1, NULL, 0);
	if (request_read(wire, sock, &request) == 0) {
		assert_int_equal(request->verb_case, control->expected);
		fd = wire_take_fd(wire, 0);
		control->answer(control, sock, request, fd);
		if (fd >= 0)
			(void)close(fd);
	}
	wire_free(wire);
	(void)close(sock);
	return NULL;
}

typedef void answer_fn(struct control *, int, const Kamen__Request *, int);

/* dir: an existing folder, or NULL: one of its own */
static void control_start_in(struct control *control, const char *dir,
	Kamen__Request__VerbCase expected, answer_fn *answer)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	*control = (struct control){ .answer = answer, .expected = expected };
	(void)snprintf(
		control->dir, sizeof(control->dir), "%s", dir ? dir : "/tmp/kamen-ctl-XXXXXX");
	if (!dir)
		assert_non_null(mkdtemp(control->dir));
	(void)snprintf(address.sun_path, sizeof(address.sun_path), "%s/control.sock", control->dir);
	control->listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(control->listener, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(listen(control->listener, 1), 0);
	assert_int_equal(pthread_create(&control->thread, NULL, control_thread, control), 0);
}

static void control_start(
	struct control *control, Kamen__Request__VerbCase expected, answer_fn *answer)
{
	control_start_in(control, NULL, expected, answer);
}

static void control_stop(struct control *control)
{
	char path[128];

	(void)pthread_join(control->thread, NULL);
	(void)close(control->listener);
	(void)snprintf(path, sizeof(path), "%s/control.sock", control->dir);
	(void)unlink(path);
	(void)rmdir(control->dir);
}

/* ---- Answers. */

static void say_status(struct control *control, int sock, const Kamen__Request *request, int fd)
{
	Kamen__Status status = KAMEN__STATUS__INIT;
	Kamen__Reply reply = KAMEN__REPLY__INIT;
	char *sites[] = { (char *)"a", (char *)"b" };
	uint8_t digest[32] = { 0xab };

	(void)control;
	(void)fd;
	status.version = (char *)"0.1.0";
	status.model = (char *)"vit";
	status.has_model_digest = 1;
	status.model_digest = (ProtobufCBinaryData){ sizeof(digest), digest };
	status.isa = (char *)"avx2";
	status.precision = (char *)"f32";
	status.has_uptime_ns = 1;
	status.uptime_ns = 1500000000;
	status.n_sites = 2;
	status.sites = sites;
	reply.row_case = KAMEN__REPLY__ROW_STATUS;
	reply.status = &status;
	send_reply(sock, &reply, request->id, 1, NULL, 0);
}

static void say_site(struct control *control, int sock, const Kamen__Request *request, int fd)
{
	const Kamen__SiteCreate *create = request->site_create;
	Kamen__Site site = KAMEN__SITE__INIT;
	Kamen__Reply reply = KAMEN__REPLY__INIT;

	(void)control;
	(void)fd;
	site.site = create->site;
	site.has_champion = site.has_images = site.has_input_px = 1;
	site.input_px = 112;
	site.state = (char *)"collecting";
	site.n_settings = create->n_set;
	site.settings = create->set;
	reply.row_case = KAMEN__REPLY__ROW_SITE;
	reply.site = &site;
	send_reply(sock, &reply, request->id, 1, NULL, 0);
}

static void say_px(struct control *control, int sock, const Kamen__Request *request, int fd)
{
	Kamen__Site site = KAMEN__SITE__INIT;
	Kamen__Reply reply = KAMEN__REPLY__INIT;

	(void)control;
	(void)fd;
	site.site = request->site_show->site;
	site.has_input_px = 1;
	site.input_px = 112;
	reply.row_case = KAMEN__REPLY__ROW_SITE;
	reply.site = &site;
	send_reply(sock, &reply, request->id, 1, NULL, 0);
}

static void say_no(struct control *control, int sock, const Kamen__Request *request, int fd)
{
	Kamen__Error error = KAMEN__ERROR__INIT;
	Kamen__Reply reply = KAMEN__REPLY__INIT;

	(void)control;
	(void)fd;
	error.code = -ENOENT;
	error.text = (char *)"no site nowhere";
	reply.error = &error;
	send_reply(sock, &reply, request->id, 1, NULL, 0);
}

static void say_learnt(struct control *control, int sock, const Kamen__Request *request, int fd)
{
	Kamen__Progress progress = KAMEN__PROGRESS__INIT;
	Kamen__LearnResult learnt = KAMEN__LEARN_RESULT__INIT;
	Kamen__Gate gate = KAMEN__GATE__INIT;
	Kamen__Reply reply = KAMEN__REPLY__INIT;
	char *reasons[] = { (char *)"density" };

	(void)control;
	(void)fd;
	assert_int_equal(request->learn->steps, 3);
	assert_true(request->learn->seed == 7 && request->learn->wait);
	progress.site = learnt.site = request->learn->site;
	progress.version = learnt.version = 4;
	progress.has_step = progress.has_steps = progress.has_loss_ratio = 1;
	progress.steps = 3;
	reply.row_case = KAMEN__REPLY__ROW_PROGRESS;
	reply.progress = &progress;
	for (uint32_t i = 1; i <= 3; i++) {
		progress.step = i;
		progress.loss_ratio = 1.0f / (float)i;
		send_reply(sock, &reply, request->id, 0, NULL, 0);
	}
	gate.n_reasons = 1;
	gate.reasons = reasons;
	learnt.has_steps = learnt.has_seconds = learnt.has_loss_ratio = learnt.has_density = 1;
	learnt.steps = 3;
	learnt.gate = &gate;
	reply.row_case = KAMEN__REPLY__ROW_LEARNT;
	reply.learnt = &learnt;
	send_reply(sock, &reply, request->id, 1, NULL, 0);
}

static void say_imported(struct control *control, int sock, const Kamen__Request *request, int fd)
{
	Kamen__Mask mask = KAMEN__MASK__INIT;
	Kamen__Reply reply = KAMEN__REPLY__INIT;
	struct stat st;

	(void)control;
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(
		fcntl(fd, F_GET_SEALS), F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL);
	mask.site = request->mask_import->site;
	mask.version = 9;
	mask.has_bytes = 1;
	mask.bytes = (uint64_t)st.st_size;
	reply.row_case = KAMEN__REPLY__ROW_MASK;
	reply.mask = &mask;
	send_reply(sock, &reply, request->id, 1, NULL, 0);
}

static void say_exported(struct control *control, int sock, const Kamen__Request *request, int fd)
{
	Kamen__Mask mask = KAMEN__MASK__INIT;
	Kamen__Reply reply = KAMEN__REPLY__INIT;
	int memfd = memfd_create("x", MFD_CLOEXEC);

	(void)control;
	(void)fd;
	assert_int_equal(write(memfd, "a mask", 6), 6);
	mask.site = request->mask_export->site;
	mask.version = request->mask_export->version;
	reply.row_case = KAMEN__REPLY__ROW_MASK;
	reply.mask = &mask;
	send_reply(sock, &reply, request->id, 1, &memfd, 1);
	(void)close(memfd);
}

/* ---- Tests. */

static void wrong_usage_is_two_and_no_daemon_is_69(void **state)
{
	static const char *const wrong[] = { "", "frobnicate", "site", "site frob", "site create",
		"site create UPPER", "site create a --set novalue", "site delete a", "push a",
		"learn a --steps x", "mask show a", "mask show a b", "status --frob",
		"status extra", "infer a f --mask tuesday" };
	struct ran ran;

	(void)state;
	for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		run(&ran, "--runtime /nonexistent %s", wrong[i]);
		if (ran.status != 2)
			print_error("%s: %d %s\n", wrong[i], ran.status, ran.out);
		assert_int_equal(ran.status, 2);
	}
	run(&ran, "status --runtime /nonexistent");
	assert_int_equal(ran.status, 69);
	assert_int_equal(n_lines(ran.out), 1);
	assert_non_null(strstr(ran.out, "/nonexistent/control.sock"));
	run(&ran, "infer a /etc/hostname --runtime /nonexistent");
	assert_int_equal(ran.status, 69);
}

static void every_command_has_help(void **state)
{
	static const char *const commands[] = { "", "status", "site create", "site list",
		"site show", "site delete", "push", "learn", "mask list", "mask show",
		"mask promote", "mask rollback", "mask export", "mask import", "mask verify",
		"mask diff", "mask keygen", "mask sign", "zmq keygen", "audit show", "audit verify",
		"audit export", "infer", "eval", "metrics" };
	struct ran ran;

	(void)state;
	for (unsigned i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		run(&ran, "%s --help", commands[i]);
		assert_int_equal(ran.status, 0);
		assert_non_null(strstr(ran.out, "usage: kamenctl"));
		assert_non_null(strstr(ran.out, commands[i]));
	}
}

static json_t *json_of(const char *text)
{
	json_error_t error;
	json_t *json = json_loads(text, 0, &error);

	if (!json)
		print_error("%s: %s\n", error.text, text);
	assert_non_null(json);
	return json;
}

static void status_has_the_promised_fields(void **state)
{
	static const char *const fields[] = { "version", "model", "model_digest", "isa",
		"precision", "uptime_s", "sites" };
	struct control control;
	struct ran ran;
	json_t *json;

	(void)state;
	control_start(&control, KAMEN__REQUEST__VERB_STATUS, say_status);
	run(&ran, "--runtime %s status --json", control.dir);
	control_stop(&control);
	assert_int_equal(ran.status, 0);
	json = json_of(ran.out);
	for (unsigned i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
		assert_non_null(json_object_get(json, fields[i]));
	assert_true(json_real_value(json_object_get(json, "uptime_s")) == 1.5);
	assert_int_equal(json_array_size(json_object_get(json, "sites")), 2);
	assert_int_equal(
		strncmp(json_string_value(json_object_get(json, "model_digest")), "ab00", 4), 0);
	json_decref(json);
}

static void a_sites_settings_arrive(void **state)
{
	struct control control;
	struct ran ran;
	json_t *json;

	(void)state;
	control_start(&control, KAMEN__REQUEST__VERB_SITE_CREATE, say_site);
	run(&ran, "site create line-1 --set input_px=112 --set zmq=ipc://a=b --json --runtime %s",
		control.dir);
	control_stop(&control);
	assert_int_equal(ran.status, 0);
	json = json_of(ran.out);
	assert_string_equal(json_string_value(json_object_get(json, "site")), "line-1");
	assert_int_equal(json_integer_value(json_object_get(json, "input_px")), 112);
	assert_string_equal(
		json_string_value(json_object_get(json_object_get(json, "settings"), "zmq")),
		"ipc://a=b");
	json_decref(json);
}

static void a_refusal_is_one_line_and_status_one(void **state)
{
	struct control control;
	struct ran ran;

	(void)state;
	control_start(&control, KAMEN__REQUEST__VERB_SITE_SHOW, say_no);
	run(&ran, "--runtime %s site show nowhere", control.dir);
	control_stop(&control);
	assert_int_equal(ran.status, 1);
	assert_string_equal(ran.out, "kamenctl site show: no site nowhere\n");
}

static void learning_prints_progress_and_then_the_result(void **state)
{
	struct control control;
	struct ran ran;
	json_t *json;
	char *last;

	(void)state;
	control_start(&control, KAMEN__REQUEST__VERB_LEARN, say_learnt);
	run(&ran, "--runtime %s learn a --steps 3 --seed 7 --wait --json", control.dir);
	control_stop(&control);
	assert_int_equal(ran.status, 0);
	assert_int_equal(n_lines(ran.out), 4);
	ran.out[strlen(ran.out) - 1] = 0;
	last = strrchr(ran.out, '\n');
	json = json_of(last + 1);
	assert_int_equal(json_integer_value(json_object_get(json, "version")), 4);
	assert_true(json_is_false(json_object_get(json_object_get(json, "gate"), "passed")));
	json_decref(json);

	control_start(&control, KAMEN__REQUEST__VERB_LEARN, say_learnt);
	run(&ran, "--runtime %s learn a --steps 3 --seed 7 --wait", control.dir);
	control_stop(&control);
	assert_non_null(strstr(ran.out, "step 2/3  loss/lnK 0.5000"));
}

static void masks_travel_as_sealed_memory_and_as_files(void **state)
{
	char path[] = "/tmp/kamen-mask-XXXXXX", text[16] = "";
	int fd = mkstemp(path);
	struct control control;
	struct ran ran;
	json_t *json;

	(void)state;
	assert_int_equal(write(fd, "0123456789", 10), 10);
	control_start(&control, KAMEN__REQUEST__VERB_MASK_IMPORT, say_imported);
	run(&ran, "--runtime %s mask import a %s --json", control.dir, path);
	control_stop(&control);
	assert_int_equal(ran.status, 0);
	json = json_of(ran.out);
	assert_int_equal(json_integer_value(json_object_get(json, "bytes")), 10);
	json_decref(json);
	(void)close(fd);

	control_start(&control, KAMEN__REQUEST__VERB_MASK_EXPORT, say_exported);
	run(&ran, "--runtime %s mask export a 3 %s --json", control.dir, path);
	control_stop(&control);
	assert_int_equal(ran.status, 0);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_int_equal(read(fd, text, sizeof(text)), 6);
	assert_string_equal(text, "a mask");
	(void)close(fd);
	(void)unlink(path);
}

static void mend_sums(uint8_t *data, size_t n_bytes)
{
	put_u64(data + KMASK_AT_SUM, digest_checksum(data, KMASK_AT_SUM));
	put_u64(data + n_bytes - KMASK_SUM_BYTES, digest_checksum(data, n_bytes - KMASK_SUM_BYTES));
}

static void a_mask_file_is_verified_without_a_daemon(void **state)
{
	static const char *const names[] = { "w", "b" };
	static const size_t sizes[] = { 1000, 10 };
	char path[] = "/tmp/kamen-mask-XXXXXX", other[64];
	_cleanup_(mask_layout_freep) struct mask_layout *layout = NULL;
	_cleanup_(mask_freep) struct mask *mask = NULL;
	_cleanup_(freep) void *data = NULL;
	struct kmask_header header = { .seed = 5, .steps = 50 };
	int fd = mkstemp(path);
	size_t n_bytes;
	struct ran ran;
	json_t *json;

	(void)state;
	assert_int_equal(mask_layout_new(&layout, 2, names, sizes), 0);
	assert_int_equal(mask_new(&mask, layout), 0);
	assert_int_equal(kmask_encode(mask, &header, &data, &n_bytes), 0);
	assert_int_equal(write(fd, data, n_bytes), n_bytes);
	run(&ran, "mask verify %s --json", path);
	assert_int_equal(ran.status, 0);
	json = json_of(ran.out);
	assert_int_equal(json_integer_value(json_object_get(json, "bytes")), n_bytes);
	assert_int_equal(json_integer_value(json_object_get(json, "weights")), 1010);
	assert_int_equal(json_integer_value(json_object_get(json, "seed")), 5);
	assert_int_equal(json_integer_value(json_object_get(json, "payload_bytes")), 0);
	assert_int_equal(json_integer_value(json_object_get(json, "table_bytes")), n_bytes);
	assert_true(json_is_null(json_object_get(json, "signer")));
	assert_close(json_real_value(json_object_get(json, "f32_factor")) *
			     json_real_value(json_object_get(json, "bits_per_weight")),
		32, 1e-6);
	json_decref(json);

	/* JSON has no such number: the digits, and no minus. */
	put_u64((uint8_t *)data + KMASK_AT_SEED, UINT64_MAX);
	mend_sums(data, n_bytes);
	assert_int_equal(pwrite(fd, data, n_bytes, 0), n_bytes);
	run(&ran, "mask verify %s --json", path);
	json = json_of(ran.out);
	assert_string_equal(
		json_string_value(json_object_get(json, "seed")), "18446744073709551615");
	json_decref(json);

	/* Another mask's digest, every sum right: nothing to sign either. */
	((uint8_t *)data)[KMASK_AT_MASK] ^= 1;
	mend_sums(data, n_bytes);
	assert_int_equal(pwrite(fd, data, n_bytes, 0), n_bytes);
	run(&ran, "mask verify %s", path);
	assert_int_equal(ran.status, 1);
	assert_non_null(strstr(ran.out, "another digest"));
	run(&ran, "mask keygen %s.key", path);
	assert_int_equal(ran.status, 0);
	run(&ran, "mask sign %s --key %s.key", path, path);
	assert_int_equal(ran.status, 1);
	run(&ran, "mask verify %s", path);
	assert_non_null(strstr(ran.out, "another digest"));

	((uint8_t *)data)[n_bytes / 2] ^= 1;
	assert_int_equal(pwrite(fd, data, n_bytes, 0), n_bytes);
	run(&ran, "mask verify %s", path);
	assert_int_equal(ran.status, 1);
	assert_int_equal(n_lines(ran.out), 1);
	assert_non_null(strstr(ran.out, path));
	(void)close(fd);
	(void)unlink(path);
	(void)snprintf(other, sizeof(other), "%s.key", path);
	(void)unlink(other);
	(void)snprintf(other, sizeof(other), "%s.key.pub", path);
	(void)unlink(other);
}

static void write_file(const char *dir, const char *name)
{
	char path[256];
	FILE *f;

	(void)snprintf(path, sizeof(path), "%s/%s", dir, name);
	f = fopen(path, "we");
	assert_non_null(f);
	(void)fprintf(f, "%s", name);
	(void)fclose(f);
}

static void folders_are_pushed_but_for_hidden_names(void **state)
{
	char dir[] = "/tmp/kamen-push-XXXXXX", path[256];
	struct fake *fake = fake_start(FAKE_HONEST);
	struct ran ran;
	json_t *json;

	(void)state;
	assert_non_null(mkdtemp(dir));
	(void)snprintf(path, sizeof(path), "%s/sub", dir);
	assert_int_equal(mkdir(path, 0700), 0);
	(void)snprintf(path, sizeof(path), "%s/_labels", dir);
	assert_int_equal(mkdir(path, 0700), 0);
	for (unsigned i = 0; i < 40; i++) {
		(void)snprintf(path, sizeof(path), "sub/%u", i);
		write_file(dir, path);
	}
	write_file(dir, "one");
	write_file(dir, ".hidden");
	write_file(dir, "_labels/one");
	(void)snprintf(path, sizeof(path), "%s", fake_path(fake));
	*strrchr(path, '/') = 0;
	run(&ran, "--runtime %s --json push a %s", path, dir);
	fake_stop(fake);
	assert_int_equal(ran.status, 0);
	json = json_of(ran.out);
	assert_int_equal(json_integer_value(json_object_get(json, "accepted")), 41);
	assert_int_equal(json_integer_value(json_object_get(json, "rejected")), 0);
	json_decref(json);

	fake = fake_start(FAKE_HONEST);
	(void)snprintf(path, sizeof(path), "%s", fake_path(fake));
	*strrchr(path, '/') = 0;
	run(&ran, "--runtime %s --json infer a %s/one %s/sub/3 --embedding", path, dir, dir);
	fake_stop(fake);
	assert_int_equal(ran.status, 0);
	assert_int_equal(n_lines(ran.out), 2);
	*strchr(ran.out, '\n') = 0;
	json = json_of(ran.out);
	assert_string_equal(json_string_value(json_object_get(json, "verdict")), "OK");
	assert_int_equal(json_array_size(json_object_get(json, "embedding")), 3);
	json_decref(json);

	(void)snprintf(path, sizeof(path), "rm -r %s", dir);
	assert_int_equal(system(path), 0);
}

static void a_map_never_replaces_an_image(void **state)
{
	char dir[] = "/tmp/kamen-heat-XXXXXX", command[64];
	static const char *const wrong[] = {
		"a.png --hardness a.png",          /* the image itself */
		"a.png --hardness sub/../a.png",   /* however it is spelt */
		"a.png --hardness link",           /* or led to */
		"a.png --hardness .",              /* its own folder */
		"a.bmp a.png --hardness .",        /* the map of one is another image */
		"a.bmp sub/a.jpg --hardness maps", /* one name for two */
		"a.bmp sub --hardness maps",
		"a.bmp a.bmp --hardness maps",
	};
	struct stat before, after;
	struct ran ran;

	(void)state;
	assert_non_null(mkdtemp(dir));
	assert_int_equal(chdir(dir), 0);
	assert_int_equal(mkdir("sub", 0700), 0);
	assert_int_equal(mkdir("maps", 0700), 0);
	write_file(".", "a.bmp");
	write_file(".", "a.png");
	write_file(".", "sub/a.jpg");
	assert_int_equal(symlink("a.png", "link"), 0);
	assert_int_equal(stat("a.png", &before), 0);
	for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		run(&ran, "--runtime /nonexistent infer a %s", wrong[i]);
		if (ran.status != 2)
			print_error("%s: %d %s\n", wrong[i], ran.status, ran.out);
		assert_int_equal(ran.status, 2);
		assert_int_equal(n_lines(ran.out), 1);
	}
	assert_int_equal(stat("a.png", &after), 0);
	assert_true(before.st_ino == after.st_ino && before.st_size == after.st_size);
	/* What is right gets as far as the daemon. */
	run(&ran, "--runtime /nonexistent infer a a.bmp --hardness a.jpg");
	assert_int_equal(ran.status, 69);
	run(&ran, "--runtime /nonexistent infer a a.png link --hardness maps");
	assert_int_equal(ran.status, 69);
	assert_int_equal(chdir("/"), 0);
	(void)snprintf(command, sizeof(command), "rm -r %s", dir);
	assert_int_equal(system(command), 0);
}

static void a_file_that_was_not_sent_is_neither_known_nor_unknown(void **state)
{
	static const char *const nulls[] = { "unknown", "score", "novelty", "distance", "label" };
	char dir[] = "/tmp/kamen-empty-XXXXXX", path[256];
	struct fake *fake = fake_start(FAKE_HONEST);
	struct ran ran;
	json_t *json;

	(void)state;
	assert_non_null(mkdtemp(dir));
	(void)snprintf(path, sizeof(path), "truncate -s 0 %s/none", dir);
	assert_int_equal(system(path), 0);
	(void)snprintf(path, sizeof(path), "%s", fake_path(fake));
	*strrchr(path, '/') = 0;
	run(&ran, "--runtime %s infer a %s/none --json", path, dir);
	fake_stop(fake);
	assert_int_equal(ran.status, 1);
	assert_int_equal(n_lines(ran.out), 2);
	json = json_of(strchr(ran.out, '\n') + 1);
	for (unsigned i = 0; i < sizeof(nulls) / sizeof(nulls[0]); i++)
		assert_true(json_is_null(json_object_get(json, nulls[i])));
	json_decref(json);
	(void)snprintf(path, sizeof(path), "rm -r %s", dir);
	assert_int_equal(system(path), 0);
}

static void a_daemon_that_is_always_late_does_not_hold_a_command_up(void **state)
{
	char dir[] = "/tmp/kamen-late-XXXXXX", path[256], files[900] = "";
	struct fake *fake = fake_start(FAKE_LATE);
	struct ran ran;

	(void)state;
	assert_non_null(mkdtemp(dir));
	/* More than there are slots: all of those are owed to late answers in between. */
	for (unsigned i = 0; i < 20; i++) {
		(void)snprintf(path, sizeof(path), "%u", i);
		write_file(dir, path);
		(void)snprintf(
			files + strlen(files), sizeof(files) - strlen(files), " %s/%u", dir, i);
	}
	(void)snprintf(path, sizeof(path), "%s", fake_path(fake));
	*strrchr(path, '/') = 0;
	run(&ran, "--runtime %s infer a --deadline-ms 20 --json%s", path, files);
	fake_stop(fake);
	assert_int_equal(ran.status, 1);
	assert_int_equal(n_lines(ran.out), 40); /* a line and a row each */
	assert_non_null(strstr(ran.out, "deadline"));
	(void)snprintf(path, sizeof(path), "rm -r %s", dir);
	assert_int_equal(system(path), 0);
}

/* Two folders of twenty files: the first three bytes tell them apart, the next three do not. */
static void classes_make(const char *dir)
{
	char path[256];

	for (unsigned i = 0; i < 40; i++) {
		const uint8_t bytes[6] = { i % 2 ? 200 : 10, i % 2 ? 10 : 200, (uint8_t)i,
			(uint8_t)(37 * i), (uint8_t)(91 * i + 5), (uint8_t)(53 * i + 9) };
		FILE *f;

		(void)snprintf(path, sizeof(path), "%s/%s", dir, i % 2 ? "odd" : "even");
		(void)mkdir(path, 0700);
		(void)snprintf(path, sizeof(path), "%s/%s/%u", dir, i % 2 ? "odd" : "even", i);
		f = fopen(path, "we");
		assert_non_null(f);
		assert_int_equal(fwrite(bytes, 1, sizeof(bytes), f), sizeof(bytes));
		(void)fclose(f);
	}
}

static json_t *eval(const char *dir, const char *options, unsigned n_sessions)
{
	struct fake *fake = fake_start_sessions(FAKE_HONEST, n_sessions);
	struct control control;
	char runtime[128];
	struct ran ran;

	(void)snprintf(runtime, sizeof(runtime), "%s", fake_path(fake));
	*strrchr(runtime, '/') = 0;
	control_start_in(&control, runtime, KAMEN__REQUEST__VERB_SITE_SHOW, say_px);
	run(&ran, "--runtime %s --json eval a %s %s", runtime, dir, options);
	fake_stop(fake);
	control_stop(&control);
	(void)rmdir(runtime);
	if (ran.status != 0)
		print_error("%s\n", ran.out);
	assert_int_equal(ran.status, 0);
	return json_of(ran.out);
}

static double real_of(const json_t *json, const char *key)
{
	assert_true(json_is_number(json_object_get(json, key)));
	return json_number_value(json_object_get(json, key));
}

static void eval_tells_a_good_mask_from_a_bad_one(void **state)
{
	char dir[] = "/tmp/kamen-eval-XXXXXX", command[64];
	double n_learn, n_held;
	json_t *json;

	(void)state;
	assert_non_null(mkdtemp(dir));
	classes_make(dir);
	json = eval(dir, "--mask base", 1);
	assert_int_equal(real_of(json, "n"), 40);
	assert_int_equal(real_of(json, "classes"), 2);
	assert_int_equal(real_of(json, "px"), 112);
	assert_true(real_of(json, "knn") == 1 && real_of(json, "shot1") == 1);
	assert_true(real_of(json, "shot5") == 1 && real_of(json, "ms_per_image") >= 0);
	(void)real_of(json, "shot1_ci");
	(void)real_of(json, "shot5_ci");
	json_decref(json);

	json = eval(dir, "--part learn", 1);
	n_learn = real_of(json, "n");
	json_decref(json);
	json = eval(dir, "--part held", 1);
	n_held = real_of(json, "n");
	json_decref(json);
	assert_true(n_held > 0 && n_learn > n_held && n_learn + n_held == 40);

	json = eval(dir, "--against base,7", 2);
	assert_true(real_of(json, "knn") < .9);
	assert_true(real_of(json_object_get(json, "diff"), "knn") < -.1);
	assert_true(real_of(json_object_get(json, "diff_hi"), "knn") < 0);
	assert_true(real_of(json_object_get(json, "diff_lo"), "shot5") < 0);
	assert_string_equal(json_string_value(json_object_get(json, "effect")), "harmful");
	json_decref(json);

	json = eval(dir, "--against champion,base", 2);
	assert_true(real_of(json_object_get(json, "diff"), "knn") == 0);
	assert_string_equal(json_string_value(json_object_get(json, "effect")), "neutral");
	json_decref(json);
	(void)snprintf(command, sizeof(command), "rm -r %s", dir);
	assert_int_equal(system(command), 0);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(wrong_usage_is_two_and_no_daemon_is_69),
		cmocka_unit_test(every_command_has_help),
		cmocka_unit_test(status_has_the_promised_fields),
		cmocka_unit_test(a_sites_settings_arrive),
		cmocka_unit_test(a_refusal_is_one_line_and_status_one),
		cmocka_unit_test(learning_prints_progress_and_then_the_result),
		cmocka_unit_test(masks_travel_as_sealed_memory_and_as_files),
		cmocka_unit_test(a_mask_file_is_verified_without_a_daemon),
		cmocka_unit_test(folders_are_pushed_but_for_hidden_names),
		cmocka_unit_test(a_map_never_replaces_an_image),
		cmocka_unit_test(a_file_that_was_not_sent_is_neither_known_nor_unknown),
		cmocka_unit_test(a_daemon_that_is_always_late_does_not_hold_a_command_up),
		cmocka_unit_test(eval_tells_a_good_mask_from_a_bad_one),
	};

	if (argc != 2)
		return 2;
	program = argv[1];
	return cmocka_run_group_tests(tests, NULL, NULL);
}
