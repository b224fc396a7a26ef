/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/handover.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "engine.h"
#include "ops/environment.h"
#include "ops/log.h"
#include "ops/notes.h"
#include "ops/openmp.h"

#define VARIABLE "KAMEN_HANDOVER"
/* systemd passes all names in one variable, which has 128 KiB at the most. */
#define MAX_ITEMS 8192u

/* ---- from the process before */

static int set_inherited(int fd, bool is_inherited)
{
	return fcntl(fd, F_SETFD, is_inherited ? 0 : FD_CLOEXEC) < 0 ? -errno : 0;
}

/* Takes fd in any case. */
static int add(struct handover *handover, const char *name, int fd)
{
	_cleanup_(closep) int held = fd;
	struct handed *items;

	if (strlen(name) >= HANDOVER_NAME_BYTES || handover->n >= MAX_ITEMS)
		return -E2BIG;
	if (handover->n == handover->n_room) {
		uint32_t n_room = handover->n_room ? 2 * handover->n_room : 64;

		items = realloc(handover->items, n_room * sizeof(*items));
		if (!items)
			return -ENOMEM;
		handover->items = items;
		handover->n_room = n_room;
	}
	items = &handover->items[handover->n++];
	(void)snprintf(items->name, sizeof(items->name), "%s", name);
	items->fd = TAKE_FD(held);
	return 0;
}

static int read_store(struct handover *handover)
{
	char **names = NULL;
	int n = sd_listen_fds_with_names(1, &names), r = 0;

	for (int i = 0; i < n; i++) {
		int r_one = add(handover, names[i], SD_LISTEN_FDS_START + i);

		r = r_one < 0 ? r_one : r;
		free(names[i]);
	}
	free(names);
	return n < 0 ? n : r;
}

static int read_list(struct handover *handover, int list_fd)
{
	_cleanup_(fclosep) FILE *list = fdopen(list_fd, "r");
	char name[HANDOVER_NAME_BYTES];
	int fd, r = 0, r_one;

	if (!list)
		return -errno;
	rewind(list);
	if (fscanf(list, "%" SCNu64, &handover->since_ns) != 1)
		return -EBADMSG;
	while (fscanf(list, "%47s %d", name, &fd) == 2) {
		if (fd <= STDERR_FILENO || set_inherited(fd, false) < 0)
			return -EBADMSG;
		r_one = add(handover, name, fd);
		r = r_one < 0 ? r_one : r;
	}
	handover->was_executed = true;
	return r;
}

static int read_inherited(struct handover *handover)
{
	const char *value = getenv(VARIABLE);
	int pid, fd, n;

	if (!value)
		return 0;
	n = sscanf(value, "%d %d", &pid, &fd);
	(void)unsetenv(VARIABLE);
	/* A variable that went astray is of another process. */
	if (n != 2 || pid != getpid() || fd <= STDERR_FILENO || set_inherited(fd, false) < 0)
		return 0;
	return read_list(handover, fd);
}

int handover_read(struct handover *handover)
{
	const char *store = getenv("FDSTORE");
	int r, r_list;

	*handover = (struct handover){ .items = NULL };
	if (store && getenv("NOTIFY_SOCKET"))
		handover->max_stored = (uint32_t)strtoul(store, NULL, 10);
	r = read_store(handover);
	r_list = read_inherited(handover);
	/* What the serve before had in the store is there still. */
	handover->n_stored = handover->max_stored > 0 ? handover->n : 0;
	return r < 0 ? r : r_list;
}

void handover_done(struct handover *handover)
{
	for (uint32_t i = 0; i < handover->n; i++) {
		if (handover->items[i].fd < 0)
			continue;
		handover_forget(handover, handover->items[i].name);
		/* A session's that is not complete; systemd has a copy still. */
		if (!handover->is_leaving)
			(void)shutdown(handover->items[i].fd, SHUT_RDWR);
		(void)close(handover->items[i].fd);
	}
	free(handover->items);
	handover->items = NULL;
	handover->n = handover->n_room = 0;
}

int handover_take(struct handover *handover, const char *name)
{
	for (uint32_t i = 0; i < handover->n; i++)
		if (handover->items[i].fd >= 0 && strcmp(handover->items[i].name, name) == 0)
			return TAKE_FD(handover->items[i].fd);
	return -1;
}

/* ---- systemd's store */

void handover_uncount(struct handover *handover, uint32_t n)
{
	handover->n_stored -= n < handover->n_stored ? n : handover->n_stored;
}

bool handover_has_room(const struct handover *handover, uint32_t n)
{
	return handover->n_stored + n <= handover->max_stored;
}

/* One whose peer hangs up is let go by systemd itself. */
static int store(const char *name, int fd)
{
	char text[32 + HANDOVER_NAME_BYTES];
	int r;

	(void)snprintf(text, sizeof(text), "FDSTORE=1\nFDNAME=%s", name);
	r = note_send(text, fd);
	if (r == -EAGAIN)
		return r;
	if (r < 0)
		log_warning("%s is not in systemd's store: %s", name, strerror(-r));
	return 0;
}

int handover_try_store(struct handover *handover, const char *name, int fd)
{
	int r = handover_say(handover) ? store(name, fd) : -EAGAIN;

	handover->n_stored += r == 0;
	return r;
}

static int forget_at_once(struct handover *handover, const char *name)
{
	char text[32 + HANDOVER_NAME_BYTES];
	int r;

	(void)snprintf(text, sizeof(text), "FDSTOREREMOVE=1\nFDNAME=%s", name);
	r = note_send(text, -1);
	if (r == -EAGAIN)
		return r;
	if (handover->n_stored > 0)
		handover->n_stored--;
	return 0;
}

/* Takes fd in any case. The room of a name in the store counts until it is said that it is
 * forgotten, which bounds how many there are. */
static int keep_unsaid(struct handover *handover, const char *name, int fd)
{
	_cleanup_(closep) int held = fd;
	struct handed *unsaid = handover->unsaid;

	if (handover->n_unsaid == handover->unsaid_room) {
		uint32_t n_room = handover->unsaid_room ? 2 * handover->unsaid_room : 64;

		unsaid = realloc(unsaid, n_room * sizeof(*unsaid));
		if (!unsaid)
			return -ENOMEM;
		handover->unsaid = unsaid;
		handover->unsaid_room = n_room;
	}
	unsaid += handover->n_unsaid++;
	(void)snprintf(unsaid->name, sizeof(unsaid->name), "%s", name);
	unsaid->fd = TAKE_FD(held);
	return 0;
}

void handover_store(struct handover *handover, const char *name, int fd)
{
	/* A copy: until it is said the number may be another's. */
	int copy, r = handover_try_store(handover, name, fd);

	if (r != -EAGAIN)
		return;
	copy = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
	r = copy < 0 ? -errno : keep_unsaid(handover, name, copy);
	if (r < 0)
		log_warning("%s is not in systemd's store: %s", name, strerror(-r));
	else
		handover->n_stored++;
}

void handover_forget(struct handover *handover, const char *name)
{
	if (handover->max_stored == 0 || handover->is_leaving)
		return;
	if (handover_say(handover) && forget_at_once(handover, name) >= 0)
		return;
	if (keep_unsaid(handover, name, -1) < 0)
		log_warning("%s stays in systemd's store: no memory", name);
}

bool handover_say(struct handover *handover)
{
	uint32_t n = 0;
	int r = 0;

	/* In their order: a name may be forgotten first and then stored anew. */
	for (; n < handover->n_unsaid && r >= 0; n += r >= 0) {
		struct handed *unsaid = &handover->unsaid[n];

		r = unsaid->fd >= 0 ? store(unsaid->name, unsaid->fd)
				    : forget_at_once(handover, unsaid->name);
		if (r >= 0)
			closep(&unsaid->fd);
	}
	if (n == 0)
		return handover->n_unsaid == 0;
	handover->n_unsaid -= n;
	memmove(handover->unsaid, handover->unsaid + n,
		handover->n_unsaid * sizeof(*handover->unsaid));
	return handover->n_unsaid == 0;
}

void handover_unsaid_done(struct handover *handover)
{
	(void)handover_say(handover);
	for (uint32_t i = 0; i < handover->n_unsaid; i++)
		closep(&handover->unsaid[i].fd);
	free(handover->unsaid);
	handover->unsaid = NULL;
	handover->n_unsaid = handover->unsaid_room = 0;
}

/* ---- to the program that takes our place */

static int write_list(const struct handed *items, uint32_t n, uint64_t since_ns, int *ret_fd)
{
	_cleanup_(closep) int fd = memfd_create("kamen-handover", MFD_CLOEXEC);

	if (fd < 0 || dprintf(fd, "%" PRIu64 "\n", since_ns) < 0)
		return -errno;
	for (uint32_t i = 0; i < n; i++)
		if (dprintf(fd, "%s %d\n", items[i].name, items[i].fd) < 0)
			return -errno;
	*ret_fd = TAKE_FD(fd);
	return 0;
}

static int keep_open(const struct handed *items, uint32_t n, bool is_inherited)
{
	int r = 0, r_one;

	for (uint32_t i = 0; i < n; i++) {
		r_one = set_inherited(items[i].fd, is_inherited);
		r = r_one < 0 ? r_one : r;
	}
	return r;
}

int handover_execute(const struct handed *items, uint32_t n, uint64_t since_ns, const char *path,
	char *const *argv)
{
	_cleanup_(freep) char **environment = NULL;
	_cleanup_(closep) int list = -1;
	char ours[64];
	int r;

	r = write_list(items, n, since_ns, &list);
	if (r < 0)
		return r;
	(void)snprintf(ours, sizeof(ours), VARIABLE "=%d %d", (int)getpid(), list);
	environment = environment_copy(openmp_is_ours, ours);
	if (!environment)
		return -ENOMEM;
	r = keep_open(items, n, true);
	if (r >= 0)
		r = set_inherited(list, true);
	if (r >= 0) {
		(void)execve(path, argv, environment);
		r = -errno;
	}
	(void)keep_open(items, n, false);
	return r;
}
