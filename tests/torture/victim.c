/* SPDX-License-Identifier: Apache-2.0 */
#include "victim.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <grp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine.h"
#include "fixture/flaw.h"

/* What one user may have is tight enough to be reached; the honest stay far below. */
static const char config_text[] =
	"[serve]\nthreads = 1\nprecision = f32\nmax_clients = 48\nuid_clients = 24\n"
	"uid_bytes = 1G\nuid_depth = 96\nuid_rate = 2500\nuid_burst = 250\n[learner]\nenabled = "
	"off\n";
static const char shared_config_text[] =
	"[serve]\nthreads = 1\nprecision = f32\nmax_clients = 48\nuid_clients = 0\n"
	"uid_bytes = 0\nuid_depth = 0\nuid_rate = 0\n[learner]\nenabled = off\n";
enum { LOOP_NICENESS = -5 };

static const char site_text[] = "[site]\nreplay_bytes = 1M\n";

static int write_file(const char *dir, const char *name, const void *data, size_t n_bytes)
{
	char path[128];

	(void)snprintf(path, sizeof(path), "%s/%s", dir, name);
	return blob_write(AT_FDCWD, path, data, n_bytes);
}

static int make_folder(struct victim *victim, bool is_alone)
{
	_cleanup_(freep) void *model = NULL;
	const char *config = is_alone ? config_text : shared_config_text;
	char path[128];
	size_t n_bytes;
	int r;

	(void)snprintf(victim->dir, sizeof(victim->dir), "/tmp/kamen-torture-XXXXXX");
	if (!mkdtemp(victim->dir))
		return -errno;
	(void)snprintf(path, sizeof(path), "%s/sites.d", victim->dir);
	if (mkdir(path, 0755) < 0)
		return -errno;
	r = random_vit_encode(&flaw_shape, 11, &model, &n_bytes);
	if (r >= 0)
		r = write_file(victim->dir, "model.safetensors", model, n_bytes);
	if (r >= 0)
		r = write_file(victim->dir, "kamend.conf", config, strlen(config));
	if (r >= 0)
		r = write_file(
			victim->dir, "sites.d/honest.conf", site_text, sizeof(site_text) - 1);
	if (r >= 0)
		r = write_file(victim->dir, "sites.d/liar.conf", site_text, sizeof(site_text) - 1);
	return r;
}

static uid_t given_uid(const char *dir, uid_t uid)
{
	static const char *const names[] = { "", "/sites.d", "/sites.d/honest.conf",
		"/sites.d/liar.conf", "/model.safetensors", "/kamend.conf", "/notify" };
	char path[128];

	for (unsigned i = 0; uid != (uid_t)-1 && i < ARRAY_SIZE(names); i++) {
		(void)snprintf(path, sizeof(path), "%s%s", dir, names[i]);
		if (chown(path, uid, (gid_t)uid) < 0)
			return (uid_t)-1;
	}
	return uid;
}

/* Only this process and those that it starts see it. */
static int name_group(const char *dir)
{
	char path[96];

	(void)snprintf(path, sizeof(path), "%s/group", dir);
	if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
		mount(path, "/etc/group", NULL, MS_BIND, NULL) < 0)
		return -errno;
	return 0;
}

static bool can_name_group(const char *dir)
{
	int status = -1;
	pid_t pid = fork();

	if (pid == 0)
		_exit(name_group(dir) < 0);
	return pid > 0 && waitpid(pid, &status, 0) == pid && status == 0;
}

/* The machine's groups, and one more. */
static int write_groups(const struct victim *victim, uid_t gid)
{
	char path[96];
	FILE *file;
	int n;

	(void)snprintf(path, sizeof(path), "%s/group", victim->dir);
	file = fopen(path, "we");
	if (!file)
		return -errno;
	n = fprintf(file, "root:x:0:\nkamen:x:%u:\n", gid);
	return fclose(file) == 0 && n > 0 && chmod(path, 0644) == 0 && chmod(victim->dir, 0711) == 0
		       ? 0
		       : -EIO;
}

/* In the child. */
static void become(const struct victim *victim, const char *program, uid_t uid)
{
	char config[96], model[96], state[96], run[96], log[96], notify[96];
	const char *argv[] = { program, "--foreground", "--config", config, "--state", state,
		"--runtime", run, "--model", model, NULL };
	int fd;

	(void)snprintf(config, sizeof(config), "%s/kamend.conf", victim->dir);
	(void)snprintf(model, sizeof(model), "%s/model.safetensors", victim->dir);
	(void)snprintf(state, sizeof(state), "%s/state", victim->dir);
	(void)snprintf(run, sizeof(run), "%s/run", victim->dir);
	(void)snprintf(log, sizeof(log), "%s/log", victim->dir);
	(void)snprintf(notify, sizeof(notify), "%s/notify", victim->dir);
	fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
	if (fd < 0 || dup2(fd, STDOUT_FILENO) < 0 || dup2(fd, STDERR_FILENO) < 0)
		_exit(127);
	if (victim->has_group && name_group(victim->dir) < 0)
		_exit(127);
	if (uid != (uid_t)-1 &&
		(setgroups(0, NULL) < 0 || setgid((gid_t)uid) < 0 || setuid(uid) < 0))
		_exit(127);
	/* A change of user forgets it. */
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	(void)setenv("NOTIFY_SOCKET", notify, 1);
	(void)setenv("OMP_WAIT_POLICY", "passive", 1);
	(void)execv(program, (char *const *)(uintptr_t)argv);
	_exit(127);
}

static int listen_for_notes(const struct victim *victim)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int sock = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	(void)snprintf(address.sun_path, sizeof(address.sun_path), "%s/notify", victim->dir);
	if (sock < 0 || bind(sock, (const void *)&address, sizeof(address)) < 0)
		return -errno;
	return sock;
}

static int wait_until_ready(const struct victim *victim, int sock, int timeout_ms)
{
	struct pollfd pollers[] = { { .fd = sock, .events = POLLIN },
		{ .fd = victim->pidfd, .events = POLLIN } };
	char text[512];

	for (;;) {
		ssize_t n;

		if (poll(pollers, 2, timeout_ms) <= 0)
			return -ETIMEDOUT;
		if (!pollers[0].revents)
			return -ECHILD;
		n = recv(sock, text, sizeof(text) - 1, MSG_DONTWAIT);
		text[n > 0 ? n : 0] = '\0';
		if (strstr(text, "READY=1"))
			return 0;
	}
}

/* Its one child: the learner is off. */
static pid_t child_of(pid_t pid)
{
	_cleanup_(fclosep) FILE *file = NULL;
	char path[64];
	int child = 0;

	(void)snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)pid, (int)pid);
	file = fopen(path, "re");
	if (!file || fscanf(file, "%d", &child) != 1)
		return 0;
	return child;
}

int victim_start(struct victim *victim, const char *program, uid_t uid, int timeout_ms)
{
	_cleanup_(closep) int sock = -1;
	int r;

	*victim = (struct victim){ .pid = -1, .pidfd = -1 };
	r = make_folder(victim, uid != (uid_t)-1);
	if (r >= 0)
		r = sock = listen_for_notes(victim);
	if (r < 0) {
		(void)fprintf(stderr, "%s: %s\n", victim->dir, strerror(-r));
		return r;
	}
	if (given_uid(victim->dir, uid) != uid)
		return -EPERM;
	victim->has_group =
		uid != (uid_t)-1 && write_groups(victim, uid) >= 0 && can_name_group(victim->dir);
	victim->pid = fork();
	if (victim->pid == 0)
		become(victim, program, uid);
	if (victim->pid > 0)
		victim->pidfd = (int)syscall(SYS_pidfd_open, victim->pid, 0);
	if (victim->pidfd < 0)
		return -errno;
	r = wait_until_ready(victim, sock, timeout_ms);
	if (r < 0)
		(void)fprintf(stderr, "%s does not start: %s\n", program, strerror(-r));
	victim->ingest = child_of(victim->pid);
	/* The two loops, as the unit's LimitNICE= lets them do themselves. */
	(void)setpriority(PRIO_PROCESS, (id_t)victim->pid, LOOP_NICENESS);
	if (victim->ingest > 0)
		(void)setpriority(PRIO_PROCESS, (id_t)victim->ingest, LOOP_NICENESS);
	return r;
}

bool victim_is_alive(const struct victim *victim)
{
	struct pollfd poller = { .fd = victim->pidfd, .events = POLLIN };

	/* A role that had to be started again has died, too. */
	return poll(&poller, 1, 0) == 0 && child_of(victim->pid) == victim->ingest;
}

static int hold(pid_t pid, struct holding *holding)
{
	_cleanup_(fclosep) FILE *file = NULL;
	char path[64], line[256];
	unsigned long kib;
	DIR *folder;

	(void)snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	folder = opendir(path);
	if (!folder)
		return -errno;
	while (readdir(folder))
		holding->n_fds++;
	(void)closedir(folder);
	(void)snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	file = fopen(path, "re");
	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "RssAnon: %lu kB", &kib) == 1)
			holding->anonymous += (uint64_t)kib * 1024;
	return 0;
}

int victim_holding(const struct victim *victim, struct holding *ret_holding)
{
	*ret_holding = (struct holding){ 0 };
	if (hold(victim->pid, ret_holding) < 0)
		return -ESRCH;
	return victim->ingest > 0 ? hold(victim->ingest, ret_holding) : 0;
}

int victim_stop(struct victim *victim, int timeout_ms)
{
	struct pollfd poller = { .fd = victim->pidfd, .events = POLLIN };
	int status = 0, r = 0;

	if (victim->pid <= 0)
		return 0;
	(void)kill(victim->pid, SIGTERM);
	if (poll(&poller, 1, timeout_ms) <= 0) {
		(void)kill(victim->pid, SIGKILL);
		r = -ETIMEDOUT;
	}
	(void)waitpid(victim->pid, &status, 0);
	closep(&victim->pidfd);
	victim->pidfd = -1;
	victim->pid = -1;
	return r < 0 ? r : WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static FILE *open_log(const struct victim *victim)
{
	char path[96];

	(void)snprintf(path, sizeof(path), "%s/log", victim->dir);
	return fopen(path, "re");
}

bool victim_is_unsound(const struct victim *victim)
{
	_cleanup_(fclosep) FILE *file = open_log(victim);
	bool is_unsound = false;
	char line[4096];

	while (file && fgets(line, sizeof(line), file))
		is_unsound |= strstr(line, "Sanitizer") || strstr(line, "runtime error:");
	return is_unsound;
}

void victim_tell(const struct victim *victim)
{
	_cleanup_(fclosep) FILE *file = open_log(victim);
	char text[16384];
	size_t n;

	if (!file)
		return;
	if (fseek(file, -(long)sizeof(text), SEEK_END) < 0)
		rewind(file);
	n = fread(text, 1, sizeof(text), file);
	(void)fwrite(text, 1, n, stderr);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	(void)remove(path);
	return 0;
}

void victim_remove(struct victim *victim)
{
	if (*victim->dir)
		(void)nftw(victim->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	*victim->dir = '\0';
}

bool victim_is_reachable(const char *path)
{
	char part[4096];
	struct stat st;
	char *slash;

	if (!realpath(path, part))
		return false;
	while ((slash = strrchr(part, '/'))) {
		if (stat(*part ? part : "/", &st) < 0 || !(st.st_mode & S_IXOTH))
			return false;
		*slash = '\0';
	}
	return true;
}
