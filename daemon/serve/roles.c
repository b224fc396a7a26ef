/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/roles.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "ops/environment.h"
#include "ops/log.h"
#include "role.h"
#include "serve/limits.h"
#include "serve/serve.h"

#define PAUSE_MIN_NS (100 * NS_PER_MS)
#define PAUSE_MAX_NS (10 * NS_PER_S)
/* A role that lived this long starts again with the shortest pause. */
#define LONG_LIFE_NS (30 * NS_PER_S)

static int role_spawn(struct role *role);
static void role_disconnect(struct role *role);

/* ---- packets out */

static void flush_packets(struct role *role)
{
	int r;

	/* An error means that it is dying: its end is seen on the same socket. */
	do
		r = packet_queue_flush(&role->out, role->sock);
	while (r < 0);
	if (role->io)
		(void)sd_event_source_set_io_events(
			role->io, role->out.head ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

int role_post(struct role *role, const Kamen__RoleMessage *message, int fd)
{
	int r;

	if (role->sock < 0)
		return -ENOTCONN;
	r = packet_queue_put(&role->out, &message->base, fd);
	if (r < 0)
		return r;
	flush_packets(role);
	return 0;
}

int role_offer(struct role *role, const void *data, size_t n_bytes)
{
	if (role->sock < 0)
		return -ENOTCONN;
	if (role->out.head)
		return -EAGAIN;
	return send(role->sock, data, n_bytes, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -errno : 0;
}

/* ---- messages in */

static void on_ready(struct role *role, const Kamen__RoleReady *ready)
{
	struct serve *serve = role->serve;

	if (ready->major != WIRE_MAJOR || ready->minor > WIRE_MINOR) {
		log_error("%s speaks protocol %u.%u, serve %u.%u: the program was replaced, "
			  "restart kamend",
			role->name, ready->major, ready->minor, WIRE_MAJOR, WIRE_MINOR);
		/* It ends with its socket. */
		role_disconnect(role);
		return;
	}
	role->ready = true;
	(void)snprintf(
		role->backend, sizeof(role->backend), "%s", ready->backend ? ready->backend : "");
	(void)snprintf(role->isa, sizeof(role->isa), "%s", ready->isa ? ready->isa : "");
	log_info("%s is ready%s%s", role->name, role->backend[0] ? ": " : "", role->backend);
	if (role->id == ROLE_LEARNER) {
		rounds_kick(serve);
		serve_notify_status(serve);
		return;
	}
	admission_send_sites(serve);
	decoder_resume(serve);
}

static void dispatch_ingest(struct serve *serve, const Kamen__RoleMessage *message, int fd)
{
	switch (message->kind_case) {
	case KAMEN__ROLE_MESSAGE__KIND_ADMIT:
		admission_admit(serve, message->admit);
		break;
	case KAMEN__ROLE_MESSAGE__KIND_DECODED:
		decoder_decoded(serve, message->decoded, fd);
		break;
	case KAMEN__ROLE_MESSAGE__KIND_REFUSED:
		admission_refused(serve, message->refused);
		break;
	case KAMEN__ROLE_MESSAGE__KIND_GAP:
		admission_gap(serve, message->gap);
		break;
	case KAMEN__ROLE_MESSAGE__KIND_FEED:
		feed_set(serve, message->feed->on);
		break;
	case KAMEN__ROLE_MESSAGE__KIND_ZMQ:
		feed_counts(serve, message->zmq);
		break;
	default:
		log_warning("ingest sent a message of kind %d", (int)message->kind_case);
	}
}

static void dispatch_learner(struct serve *serve, const Kamen__RoleMessage *message)
{
	switch (message->kind_case) {
	case KAMEN__ROLE_MESSAGE__KIND_PROGRESS:
		rounds_progress(serve, message->progress);
		break;
	case KAMEN__ROLE_MESSAGE__KIND_DONE:
		rounds_done(serve, message->done);
		break;
	case KAMEN__ROLE_MESSAGE__KIND_FAILED:
		rounds_failed(serve, message->failed);
		break;
	default:
		log_warning("the learner sent a message of kind %d", (int)message->kind_case);
	}
}

static void dispatch(struct role *role, const Kamen__RoleMessage *message)
{
	_cleanup_(closep) int fd = wire_take_fd(role->serve->wire, 0);

	if (message->kind_case == KAMEN__ROLE_MESSAGE__KIND_READY)
		on_ready(role, message->ready);
	else if (role->id == ROLE_INGEST)
		dispatch_ingest(role->serve, message, fd);
	else
		dispatch_learner(role->serve, message);
}

static void role_disconnect(struct role *role)
{
	role->io = sd_event_source_disable_unref(role->io);
	closep(&role->sock);
	role->sock = -1;
	role->ready = false;
	packet_queue_clear(&role->out);
	if (role->id == ROLE_INGEST)
		feed_lost(role->serve);
}

static int on_socket(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
	struct role *role = userdata;

	(void)source;
	if (revents & EPOLLOUT)
		flush_packets(role);
	/* A turn of the loop takes a bounded number, so that clients get theirs. */
	for (int i = 0; i < 64 && role->sock >= 0; i++) {
		ProtobufCMessage *message;
		int r = wire_recv(
			role->serve->wire, fd, &kamen__role_message__descriptor, &message);

		if (r == -EAGAIN)
			return 0;
		if (r == 1) {
			dispatch(role, (const Kamen__RoleMessage *)message);
			continue;
		}
		if (r == -EBADMSG) {
			log_warning("%s sent a packet that is no message", role->name);
			continue;
		}
		/* Closed: what is left to do happens when its process ends. */
		role_disconnect(role);
	}
	return 0;
}

/* ---- life */

static void restart_later(struct role *role);

static int on_pause_over(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct role *role = userdata;
	int r;

	(void)source;
	(void)usec;
	r = role_spawn(role);
	if (r < 0) {
		log_error("cannot start %s, it is tried again: %s", role->name, strerror(-r));
		restart_later(role);
	}
	return 0;
}

static void restart_later(struct role *role)
{
	uint64_t lived = clock_now_ns() - role->started_ns;
	int r;

	if (lived > LONG_LIFE_NS || role->pause_ns == 0)
		role->pause_ns = PAUSE_MIN_NS;
	role->n_restarts++;
	role->pause = sd_event_source_disable_unref(role->pause);
	r = sd_event_add_time_relative(role->serve->event, &role->pause, CLOCK_MONOTONIC,
		role->pause_ns / NS_PER_US, 0, on_pause_over, role);
	if (r < 0)
		log_error("cannot plan the restart of %s: %s", role->name, strerror(-r));
	role->pause_ns *= 2;
	if (role->pause_ns > PAUSE_MAX_NS)
		role->pause_ns = PAUSE_MAX_NS;
}

static int on_exit_of(sd_event_source *source, const siginfo_t *info, void *userdata)
{
	struct role *role = userdata;
	struct serve *serve = role->serve;

	(void)source;
	role->child = sd_event_source_disable_unref(role->child);
	if (role->id == ROLE_LEARNER)
		hold_let_go(&serve->hold);
	role->pid = 0;
	role_disconnect(role);
	if (role->stopping) {
		serve_check_drained(serve);
		return 0;
	}
	log_write(LOG_WARNING, NULL, "%s ended (%s %d), it is started again in %u ms", role->name,
		info->si_code == CLD_EXITED ? "exit status" : "signal", info->si_status,
		(unsigned)((role->pause_ns > 0 ? role->pause_ns : PAUSE_MIN_NS) / NS_PER_MS));
	restart_later(role);
	if (role->id == ROLE_INGEST)
		decoder_lost(serve);
	else
		rounds_lost(serve);
	return 0;
}

/* What systemd told serve is not for the others. OpenMP's variables they sort out themselves. */
static bool is_for_serve(const char *variable)
{
	static const char *const names[] = { "NOTIFY_SOCKET=", "WATCHDOG_", "LISTEN_" };

	for (unsigned i = 0; i < ARRAY_SIZE(names); i++)
		if (strncmp(variable, names[i], strlen(names[i])) == 0)
			return true;
	return false;
}

/*
 * A role that starts again must not read the files anew: they may have become wrong meanwhile, and
 * serve has said that it stays with what it read.
 */
static int make_config(const struct config *config, int *ret_fd)
{
	const int seals = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;
	_cleanup_(freep) char *text = NULL;
	_cleanup_(closep) int fd = -1;
	size_t n_bytes;
	ssize_t n;
	int r;

	r = config_text(config, &text, &n_bytes);
	if (r < 0)
		return r;
	fd = memfd_create("kamend.conf", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		return -errno;
	n = write(fd, text, n_bytes);
	if (n != (ssize_t)n_bytes)
		return n < 0 ? -errno : -EIO;
	if (fcntl(fd, F_ADD_SEALS, seals) < 0)
		return -errno;
	*ret_fd = TAKE_FD(fd);
	return 0;
}

/* The effective paths go along: the command line of serve may have overruled the file. */
static void make_arguments(
	const struct role *role, char role_text[32], char config_path[32], char **argv)
{
	const struct config *config = role->serve->boot;
	unsigned n = 0;

	(void)snprintf(role_text, 32, "--role=%s", role->name);
	(void)snprintf(config_path, 32, "/proc/self/fd/%d", ROLE_CONFIG);
	argv[n++] = (char *)"kamend";
	argv[n++] = role_text;
	argv[n++] = (char *)"--config";
	argv[n++] = config_path;
	if (config->model_path[0]) {
		argv[n++] = (char *)"--model";
		argv[n++] = (char *)config->model_path;
	}
	argv[n++] = (char *)"--state";
	argv[n++] = (char *)config->state_dir;
	argv[n++] = (char *)"--runtime";
	argv[n++] = (char *)config->runtime_dir;
	argv[n] = NULL;
}

/* What the child gets, numbered so that its dup2() overwrites none of them. */
struct role_fds {
	int sock, base, config;
};

static int spawn_with(
	const struct role *role, const struct role_fds *fds, char **environment, pid_t *ret_pid)
{
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attr;
	sigset_t none, all;
	char role_text[32], config_path[32];
	char *argv[16];
	int r;

	make_arguments(role, role_text, config_path, argv);
	(void)sigemptyset(&none);
	(void)sigfillset(&all);
	(void)posix_spawn_file_actions_init(&actions);
	(void)posix_spawnattr_init(&attr);
	(void)posix_spawn_file_actions_adddup2(&actions, fds->sock, ROLE_SOCKET);
	(void)posix_spawn_file_actions_adddup2(&actions, fds->config, ROLE_CONFIG);
	if (role->id == ROLE_LEARNER)
		(void)posix_spawn_file_actions_adddup2(&actions, fds->base, ROLE_BASE);
	else
		(void)posix_spawn_file_actions_addclose(&actions, ROLE_BASE);
	/*
	 * The kernel lets us go on before it closes what is marked close-on-exec: a child that is slow
	 * to start would hold the lock of the state folder beyond our death.
	 */
	(void)posix_spawn_file_actions_addclosefrom_np(&actions, ROLE_CONFIG + 1);
	(void)posix_spawnattr_setsigmask(&attr, &none);
	(void)posix_spawnattr_setsigdefault(&attr, &all);
	(void)posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
	r = -posix_spawn(ret_pid, role->serve->self, &actions, &attr, argv, environment);
	(void)posix_spawnattr_destroy(&attr);
	(void)posix_spawn_file_actions_destroy(&actions);
	return r;
}

static int watch_child(struct role *role, int sock)
{
	int r;

	role->io = sd_event_source_disable_unref(role->io);
	r = sd_event_add_child(
		role->serve->event, &role->child, role->pid, WEXITED, on_exit_of, role);
	if (r >= 0)
		r = sd_event_add_io(role->serve->event, &role->io, sock, EPOLLIN, on_socket, role);
	if (r >= 0)
		return 0;
	/* Nobody would notice its end: it must not run. */
	role->child = sd_event_source_disable_unref(role->child);
	(void)kill(role->pid, SIGKILL);
	(void)waitpid(role->pid, NULL, 0);
	role->pid = 0;
	return r;
}

static int role_spawn(struct role *role)
{
	_cleanup_(freep) char **environment = NULL;
	_cleanup_(closep) int ours = -1, low = -1, sock = -1, base = -1, text = -1, config = -1;
	int pair[2], r;

	/* Before anything can fail: pauses grow by it. */
	role->started_ns = clock_now_ns();
	environment = environment_copy(is_for_serve, NULL);
	if (!environment)
		return -ENOMEM;
	r = make_config(role->serve->boot, &text);
	if (r < 0)
		return r;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
		return -errno;
	ours = pair[0];
	low = pair[1];
	sock = fcntl(low, F_DUPFD_CLOEXEC, 10);
	base = fcntl(base_fd(role->serve->base), F_DUPFD_CLOEXEC, 10);
	config = fcntl(text, F_DUPFD_CLOEXEC, 10);
	if (sock < 0 || base < 0 || config < 0)
		return -errno;
	r = spawn_with(role, &(struct role_fds){ sock, base, config }, environment, &role->pid);
	if (r < 0) {
		role->pid = 0;
		return r;
	}
	r = watch_child(role, ours);
	if (r < 0)
		return r;
	role->sock = TAKE_FD(ours);
	return 0;
}

void roles_init(struct serve *serve)
{
	static const char *const names[N_ROLES] = { "ingest", "learner" };

	for (unsigned i = 0; i < N_ROLES; i++) {
		struct role *role = &serve->roles[i];

		*role = (struct role){
			.serve = serve, .id = (enum role_id)i, .name = names[i], .sock = -1
		};
		packet_queue_init(&role->out);
	}
}

int roles_start(struct serve *serve)
{
	int r;

	for (unsigned i = 0; i < N_ROLES; i++) {
		if (i == ROLE_LEARNER && !serve->config.learner_on)
			continue;
		r = role_spawn(&serve->roles[i]);
		if (r < 0)
			return r;
	}
	return 0;
}

static bool reap(struct role *role, uint64_t until_ns)
{
	_cleanup_(closep) int fd = (int)syscall(SYS_pidfd_open, role->pid, 0);
	uint64_t now = clock_now_ns();
	struct pollfd poll_fd = { .fd = fd, .events = POLLIN };
	int left_ms = until_ns > now ? (int)((until_ns - now) / NS_PER_MS) : 0;

	if (fd >= 0 && poll(&poll_fd, 1, left_ms) <= 0)
		return false;
	return waitpid(role->pid, NULL, fd >= 0 ? 0 : WNOHANG) == role->pid;
}

/* Its last word is what it writes to disk; who was not ready has none. */
static void role_end(struct role *role)
{
	if (role->id == ROLE_LEARNER)
		hold_let_go(&role->serve->hold);
	if (role->pid > 0 && role->sock >= 0 && !role->ready)
		(void)kill(role->pid, SIGKILL);
	role_disconnect(role);
}

void roles_end(struct serve *serve, enum role_id id)
{
	struct role *role = &serve->roles[id];

	role->stopping = true;
	role->pause = sd_event_source_disable_unref(role->pause);
	role_end(role);
}

void roles_kill(struct serve *serve)
{
	for (unsigned i = 0; i < N_ROLES; i++)
		if (serve->roles[i].pid > 0)
			(void)kill(serve->roles[i].pid, SIGKILL);
}

void roles_resume(struct serve *serve)
{
	for (unsigned i = 0; i < N_ROLES; i++) {
		struct role *role = &serve->roles[i];

		role->pid = 0;
		role->stopping = false;
		if (i != ROLE_LEARNER || serve->config.learner_on)
			restart_later(role);
	}
}

void roles_drain(struct serve *serve)
{
	for (unsigned i = 0; i < N_ROLES; i++) {
		struct role *role = &serve->roles[i];

		role->stopping = true;
		role->pause = sd_event_source_disable_unref(role->pause);
	}
	/* It writes its checkpoint while clients still get their answers. */
	role_end(&serve->roles[ROLE_LEARNER]);
}

void roles_stop(struct serve *serve)
{
	uint64_t until_ns = clock_now_ns() + SERVE_ROLE_GRACE_NS;

	for (unsigned i = 0; i < N_ROLES; i++) {
		struct role *role = &serve->roles[i];

		role->stopping = true;
		role->pause = sd_event_source_disable_unref(role->pause);
		/* Ours to reap from here on. */
		role->child = sd_event_source_disable_unref(role->child);
		role_end(role);
	}
	for (unsigned i = 0; i < N_ROLES; i++) {
		struct role *role = &serve->roles[i];

		if (role->pid == 0 || reap(role, until_ns))
			continue;
		log_warning("%s did not end in time and is killed", role->name);
		(void)kill(role->pid, SIGKILL);
		(void)reap(role, clock_now_ns() + SERVE_ROLE_GRACE_NS);
	}
}
