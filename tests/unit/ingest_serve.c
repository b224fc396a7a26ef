/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "ingest_serve.h"
#include "ingest/ingest.h"
#include "role.h"

enum { PATIENCE_MS = 30000 };

static void forbid_uring(void)
{
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);

	if (!filter ||
		seccomp_rule_add(filter, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(io_uring_setup), 0) < 0 ||
		seccomp_load(filter) < 0)
		_exit(98);
	seccomp_release(filter);
}

/* The pages of the process that forked it: decode() has no argument of its own. */
static struct serve_faults *faults;

static bool take(atomic_uint *n)
{
	unsigned left = atomic_load(n);

	while (left > 0)
		if (atomic_compare_exchange_weak(n, &left, left - 1))
			return true;
	return false;
}

static int faulty_decode(
	struct image **ret_image, const void *data, size_t n_bytes, struct diag *diag)
{
	if (take(&faults->n_crashes)) {
		(void)signal(SIGSEGV, SIG_DFL); /* cmocka would catch it */
		(void)raise(SIGSEGV);
	}
	if (take(&faults->n_shortages))
		return diag_set(diag, ENOMEM, "no memory");
	return image_decode(ret_image, data, n_bytes, diag);
}

static void run_ingest(const struct serve *serve, int sock)
{
	struct config config;

	config_default(&config);
	(void)snprintf(config.ingest_backend, sizeof(config.ingest_backend), "%s", serve->backend);
	config.ingest_max_bytes = SERVE_MAX_FILE_BYTES;
	config.decode_timeout_ms = 5000;
	if (serve->is_uring_forbidden)
		forbid_uring();
	if (dup2(sock, ROLE_SOCKET) < 0)
		_exit(99);
	/* As after posix_spawn: the other end must not be open on this side. */
	closefrom(ROLE_SOCKET + 1);
	exit(ingest_run(&config, faulty_decode)); /* through the sanitizer's look for leaks */
}

void serve_start_ingest(struct serve *serve)
{
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	(void)fflush(NULL);
	serve->pid = fork();
	assert_true(serve->pid >= 0);
	if (serve->pid == 0)
		run_ingest(serve, pair[1]);
	(void)close(pair[1]);
	serve->sock = pair[0];
	assert_int_equal(wire_new(&serve->wire), 0);
}

void serve_kill_ingest(struct serve *serve)
{
	(void)kill(serve->pid, SIGKILL);
	(void)waitpid(serve->pid, NULL, 0);
	(void)close(serve->sock);
	wire_free(serve->wire);
}

static bool is_ended(const struct serve *serve)
{
	struct pollfd pollfd = { serve->sock, POLLIN, 0 };
	char byte;

	return poll(&pollfd, 1, PATIENCE_MS) == 1 &&
	       recv(serve->sock, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
}

void serve_begin(struct serve *serve, const char *backend)
{
	char path[96];

	*serve = (struct serve){ .dir = "/tmp/kamen-ingest-XXXXXX",
		.backend = backend,
		.fd = -1,
		.is_uring_forbidden = strcmp(backend, "auto") == 0 };
	serve->faults = mmap(NULL, sizeof(*serve->faults), PROT_READ | PROT_WRITE,
		MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_true(serve->faults != MAP_FAILED);
	faults = serve->faults;
	assert_non_null(mkdtemp(serve->dir));
	(void)snprintf(path, sizeof(path), "%s/replay", serve->dir);
	assert_int_equal(mkdir(path, 0700), 0);
	serve_start_ingest(serve);
	/* Where io_uring is forbidden, ingest says why and ends. */
	if (strcmp(backend, "uring") == 0 && is_ended(serve)) {
		serve_kill_ingest(serve);
		skip();
	}
	assert_string_equal(serve_expect(serve, KAMEN__ROLE_MESSAGE__KIND_READY)->ready->backend,
		serve->is_uring_forbidden ? "threads" : backend);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

void serve_end(struct serve *serve)
{
	int status;

	closep(&serve->fd);
	(void)close(serve->sock);
	wire_free(serve->wire);
	assert_int_equal(waitpid(serve->pid, &status, 0), serve->pid);
	assert_int_equal(status, 0);
	(void)munmap(serve->faults, sizeof(*serve->faults));
	(void)nftw(serve->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void send_message(struct serve *serve, const Kamen__RoleMessage *message, int fd)
{
	assert_int_equal(wire_send(serve->sock, &message->base, &fd, fd >= 0), 0);
}

void serve_send_site(
	struct serve *serve, const char *spool, const char *endpoint, uint32_t settle_ms)
{
	Kamen__RoleMessage message = KAMEN__ROLE_MESSAGE__INIT;
	Kamen__SiteTable table = KAMEN__SITE_TABLE__INIT;
	Kamen__IngestSite site = KAMEN__INGEST_SITE__INIT, *sites[] = { &site };
	char replay[96], path[160];

	(void)snprintf(replay, sizeof(replay), "%s/replay", serve->dir);
	(void)snprintf(path, sizeof(path), "%s/%s", serve->dir, spool ? spool : "");
	site.site = (char *)(uintptr_t) "a";
	site.shorter_px = SERVE_SHORTER_PX;
	site.spool = spool ? path : NULL;
	site.zmq_pull = (char *)(uintptr_t)endpoint;
	site.has_settle_ms = settle_ms > 0;
	site.settle_ms = settle_ms;
	site.replay = replay;
	table.n_sites = 1;
	table.sites = sites;
	message.kind_case = KAMEN__ROLE_MESSAGE__KIND_SITES;
	message.sites = &table;
	send_message(serve, &message, -1);
}

void serve_send_no_site(struct serve *serve)
{
	Kamen__RoleMessage message = KAMEN__ROLE_MESSAGE__INIT;
	Kamen__SiteTable table = KAMEN__SITE_TABLE__INIT;

	message.kind_case = KAMEN__ROLE_MESSAGE__KIND_SITES;
	message.sites = &table;
	send_message(serve, &message, -1);
}

void serve_send_part(struct serve *serve, bool is_first, bool is_last, unsigned n)
{
	Kamen__RoleMessage message = KAMEN__ROLE_MESSAGE__INIT;
	Kamen__SiteTable table = KAMEN__SITE_TABLE__INIT;
	Kamen__IngestSite *rows = calloc(n, sizeof(*rows)), **list = calloc(n, sizeof(*list));
	char(*names)[32] = calloc(n, sizeof(*names));

	assert_true(rows && list && names);
	for (unsigned i = 0; i < n; i++) {
		(void)snprintf(names[i], sizeof(names[i]), "other-%d-%u", is_first, i);
		kamen__ingest_site__init(&rows[i]);
		rows[i].site = names[i];
		rows[i].shorter_px = SERVE_SHORTER_PX;
		rows[i].replay = serve->dir;
		list[i] = &rows[i];
	}
	table.has_first = table.has_last = true;
	table.first = is_first;
	table.last = is_last;
	table.n_sites = n;
	table.sites = list;
	message.kind_case = KAMEN__ROLE_MESSAGE__KIND_SITES;
	message.sites = &table;
	send_message(serve, &message, -1);
	free(rows);
	free(list);
	free(names);
}

void serve_reply(struct serve *serve, uint64_t id, Kamen__Outcome outcome)
{
	Kamen__RoleMessage message = KAMEN__ROLE_MESSAGE__INIT;
	Kamen__AdmitReply reply = KAMEN__ADMIT_REPLY__INIT;

	reply.id = id;
	reply.outcome = outcome;
	message.kind_case = KAMEN__ROLE_MESSAGE__KIND_ADMITTED;
	message.admitted = &reply;
	send_message(serve, &message, -1);
}

static void ask(struct serve *serve, uint64_t id, bool is_push, const char *sender,
	const void *data, size_t n_bytes)
{
	_cleanup_(closep) int fd = memfd_create("test", MFD_CLOEXEC);
	Kamen__RoleMessage message = KAMEN__ROLE_MESSAGE__INIT;
	Kamen__DecodeJob job = KAMEN__DECODE_JOB__INIT;

	assert_int_equal(write(fd, data, n_bytes), (ssize_t)n_bytes);
	job.id = id;
	job.site = (char *)(uintptr_t) "a";
	job.push = is_push;
	job.n_bytes = n_bytes;
	job.sender = (char *)(uintptr_t)sender;
	message.kind_case = KAMEN__ROLE_MESSAGE__KIND_DECODE;
	message.decode = &job;
	send_message(serve, &message, fd);
}

void serve_ask(struct serve *serve, uint64_t id, bool is_push, const void *data, size_t n_bytes)
{
	ask(serve, id, is_push, NULL, data, n_bytes);
}

void serve_ask_for(
	struct serve *serve, uint64_t id, const char *sender, const void *data, size_t n_bytes)
{
	ask(serve, id, false, sender, data, n_bytes);
}

bool serve_hears(struct serve *serve, int ms)
{
	struct pollfd pollfd = { serve->sock, POLLIN, 0 };

	return poll(&pollfd, 1, ms) == 1;
}

const Kamen__RoleMessage *serve_expect(struct serve *serve, Kamen__RoleMessage__KindCase kind)
{
	ProtobufCMessage *message = NULL;
	const Kamen__RoleMessage *role;

	if (!serve_hears(serve, PATIENCE_MS))
		fail_msg("no message of kind %d", (int)kind);
	assert_int_equal(
		wire_recv(serve->wire, serve->sock, &kamen__role_message__descriptor, &message), 1);
	role = (const Kamen__RoleMessage *)message;
	if (role->kind_case == KAMEN__ROLE_MESSAGE__KIND_REFUSED && role->kind_case != kind)
		fail_msg("refused %s: %s", role->refused->what, role->refused->reason);
	assert_int_equal(role->kind_case, kind);
	closep(&serve->fd);
	serve->fd = wire_take_fd(serve->wire, 0);
	return role;
}

static const char *path_of(const struct serve *serve, const char *path, char buffer[256])
{
	(void)snprintf(buffer, 256, "%s/%s", serve->dir, path);
	return buffer;
}

bool serve_has(const struct serve *serve, const char *path)
{
	char buffer[256];
	struct stat st;

	return lstat(path_of(serve, path, buffer), &st) == 0;
}

void serve_await(const struct serve *serve, const char *path)
{
	const struct timespec tick = { 0, 2000000 };

	for (int ms = 0; !serve_has(serve, path); ms += 2) {
		if (ms > PATIENCE_MS)
			fail_msg("%s does not appear", path);
		(void)nanosleep(&tick, NULL);
	}
}

void serve_write(const struct serve *serve, const char *path, const void *data, size_t n_bytes)
{
	char buffer[256];
	int fd = open(path_of(serve, path, buffer), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, data, n_bytes), (ssize_t)n_bytes);
	(void)close(fd);
}

void serve_drop(const struct serve *serve, const char *name, const void *data, size_t n_bytes)
{
	char from[256], to[256], path[128];

	(void)snprintf(path, sizeof(path), "spool/.%s.tmp", name);
	serve_write(serve, path, data, n_bytes);
	(void)path_of(serve, path, from);
	(void)snprintf(path, sizeof(path), "spool/%s", name);
	assert_int_equal(rename(from, path_of(serve, path, to)), 0);
}

unsigned serve_count(const struct serve *serve, const char *path)
{
	char buffer[256];
	_cleanup_(closedirp) DIR *dir = opendir(path_of(serve, path, buffer));
	unsigned n = 0;

	assert_non_null(dir);
	for (struct dirent *entry; (entry = readdir(dir));)
		n += entry->d_name[0] != '.';
	return n;
}

void *serve_png(unsigned number, size_t *ret_n_bytes)
{
	uint8_t pixels[24 * 32];
	struct image_view view = { pixels, 32, 24, 1, 32 };
	void *data = NULL;

	for (size_t i = 0; i < sizeof(pixels); i++)
		pixels[i] = (uint8_t)(i + number);
	memcpy(pixels, &number, sizeof(number));
	assert_int_equal(image_encode_png(&view, &data, ret_n_bytes), 0);
	return data;
}
