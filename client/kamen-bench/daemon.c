/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "base/cleanup.h"
#include "untrained.h"

#define READY_MS 120000
#define STOP_MS 20000

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	(void)remove(path);
	return 0;
}

static int notify_bind(const struct daemon *daemon, struct sockaddr_un *ret_address, int *ret_sock)
{
	_cleanup_(closep) int sock = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	*ret_address = (struct sockaddr_un){ .sun_family = AF_UNIX };
	(void)snprintf(
		ret_address->sun_path, sizeof(ret_address->sun_path), "%s/notify", daemon->dir);
	if (sock < 0 || bind(sock, (const struct sockaddr *)ret_address, sizeof(*ret_address)) < 0)
		return -errno;
	*ret_sock = TAKE_FD(sock);
	return 0;
}

static int config_write(const struct daemon *daemon, const char *settings)
{
	char path[96];
	FILE *f;

	(void)snprintf(path, sizeof(path), "%s/kamend.conf", daemon->dir);
	f = fopen(path, "we");
	if (!f)
		return -errno;
	(void)fputs(settings, f);
	return fclose(f) == 0 ? 0 : -errno;
}

/* In the child: never returns. */
static void daemon_exec(const struct daemon *daemon, const char *model, const char *notify)
{
	char self[4096] = "", config[96], state[96], log[96], *slash;
	const char *argv[] = { "kamend", "--foreground", "--config", config, "--state", state,
		"--runtime", daemon->runtime, model ? "--model" : NULL, model, NULL };
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 8);
	int fd;

	/* Nobody else would end it where we are killed. */
	(void)prctl(PR_SET_PDEATHSIG, SIGTERM);
	(void)snprintf(config, sizeof(config), "%s/kamend.conf", daemon->dir);
	(void)snprintf(state, sizeof(state), "%s/state", daemon->dir);
	(void)snprintf(log, sizeof(log), "%s/log", daemon->dir);
	slash = n > 0 ? strrchr(self, '/') : NULL;
	if (!slash)
		_exit(127);
	(void)snprintf(slash + 1, sizeof(self) - (size_t)(slash + 1 - self), "kamend");
	fd = open(log, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0 || dup2(fd, STDOUT_FILENO) < 0 || dup2(fd, STDERR_FILENO) < 0 ||
		setenv("NOTIFY_SOCKET", notify, 1) < 0)
		_exit(127);
	(void)execv(self, (char *const *)(uintptr_t)argv);
	_exit(127);
}

static int ready_wait(const struct ctl *ctl, const struct daemon *daemon, int sock)
{
	struct pollfd pollers[] = { { .fd = sock, .events = POLLIN },
		{ .fd = daemon->pidfd, .events = POLLIN } };
	char text[512];

	for (;;) {
		ssize_t n;

		if (poll(pollers, 2, READY_MS) <= 0)
			return ctl_fail(ctl, EXIT_FAILED, "kamend is not ready after two minutes");
		if (pollers[0].revents) {
			n = recv(sock, text, sizeof(text) - 1, MSG_DONTWAIT);
			text[n > 0 ? n : 0] = 0;
			if (strstr(text, "READY=1"))
				return EXIT_DONE;
		} else if (pollers[1].revents) {
			return ctl_fail(ctl, EXIT_FAILED, "kamend has ended before it was ready");
		}
	}
}

static void log_tail(const struct daemon *daemon)
{
	char path[96], lines[2][512] = { "", "" };
	unsigned n = 0;
	FILE *f;

	(void)snprintf(path, sizeof(path), "%s/log", daemon->dir);
	f = fopen(path, "re");
	while (f && fgets(lines[n % 2], sizeof(lines[0]), f))
		n++;
	if (f)
		(void)fclose(f);
	if (n > 0)
		(void)fprintf(stderr, "kamend: %s", lines[(n - 1) % 2]);
}

static int folder_prepare(const struct ctl *ctl, struct daemon *daemon,
	const struct daemon_spec *spec, char *ret_model, size_t n_model)
{
	struct diag diag = { 0 };
	int r;

	if (!mkdtemp(daemon->dir))
		return ctl_fail(ctl, EXIT_FAILED, "%s: %s", daemon->dir, strerror(errno));
	(void)snprintf(daemon->runtime, sizeof(daemon->runtime), "%s/run", daemon->dir);
	if (config_write(daemon, spec->settings) < 0)
		return ctl_fail(ctl, EXIT_FAILED, "%s: cannot write there", daemon->dir);
	(void)snprintf(ret_model, n_model, "%s", spec->model ? spec->model : "");
	if (!spec->random)
		return EXIT_DONE;
	(void)snprintf(ret_model, n_model, "%s/model.safetensors", daemon->dir);
	r = untrained_write(spec->random, ret_model, &diag);
	return r == 0 ? EXIT_DONE
		      : ctl_fail(ctl, EXIT_USAGE, "%s", *diag.text ? diag.text : strerror(-r));
}

static int daemon_fork(const struct ctl *ctl, struct daemon *daemon, const char *model)
{
	_cleanup_(closep) int sock = -1;
	struct sockaddr_un address;
	int status;

	if (notify_bind(daemon, &address, &sock) < 0)
		return ctl_fail(ctl, EXIT_FAILED, "%s: %s", daemon->dir, strerror(errno));
	daemon->pid = fork();
	if (daemon->pid == 0)
		daemon_exec(daemon, *model ? model : NULL, address.sun_path);
	if (daemon->pid > 0)
		daemon->pidfd = (int)syscall(SYS_pidfd_open, daemon->pid, 0);
	if (daemon->pidfd < 0)
		return ctl_fail(ctl, EXIT_FAILED, "cannot start kamend: %s", strerror(errno));
	status = ready_wait(ctl, daemon, sock);
	if (status != EXIT_DONE)
		log_tail(daemon);
	return status;
}

int daemon_start(const struct ctl *ctl, const struct daemon_spec *spec, struct daemon *ret_daemon)
{
	struct daemon daemon = { .pid = -1, .pidfd = -1, .dir = "/tmp/kamen-bench-XXXXXX" };
	char model[4096];
	int status = folder_prepare(ctl, &daemon, spec, model, sizeof(model));

	if (status == EXIT_DONE)
		status = daemon_fork(ctl, &daemon, model);
	if (status != EXIT_DONE) {
		daemon_stop(&daemon);
		return status;
	}
	*ret_daemon = daemon;
	return EXIT_DONE;
}

void daemon_stop(struct daemon *daemon)
{
	struct pollfd poller = { .fd = daemon->pidfd, .events = POLLIN };

	if (daemon->pid > 0) {
		(void)kill(daemon->pid, SIGTERM);
		if (poller.fd < 0 || poll(&poller, 1, STOP_MS) <= 0)
			(void)kill(daemon->pid, SIGKILL);
		(void)waitpid(daemon->pid, NULL, 0);
		closep(&daemon->pidfd);
	}
	if (*daemon->dir)
		(void)nftw(daemon->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	*daemon = (struct daemon){ .pid = -1, .pidfd = -1 };
}
