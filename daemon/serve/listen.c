/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/listen.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "engine.h"
#include "serve/handover.h"
#include "serve/limits.h"

static int fill_address(struct sockaddr_un *address, const char *path)
{
	*address = (struct sockaddr_un){ .sun_family = AF_UNIX };
	if ((size_t)snprintf(address->sun_path, sizeof(address->sun_path), "%s", path) >=
		sizeof(address->sun_path))
		return -ENAMETOOLONG;
	return 0;
}

/* What a killed daemon left behind refuses connections; a living one accepts them. */
static int remove_stale(const struct sockaddr_un *address)
{
	_cleanup_(closep) int probe = -1;
	struct stat st;

	if (lstat(address->sun_path, &st) < 0)
		return errno == ENOENT ? 0 : -errno;
	if (!S_ISSOCK(st.st_mode))
		return -EEXIST;
	probe = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (probe < 0)
		return -errno;
	if (connect(probe, (const void *)address, sizeof(*address)) == 0 || errno == EAGAIN)
		return -EADDRINUSE;
	if (errno != ECONNREFUSED)
		return -errno;
	return unlink(address->sun_path) < 0 && errno != ENOENT ? -errno : 0;
}

static int on_pause_over(sd_event_source *source, uint64_t usec, void *userdata)
{
	(void)source;
	(void)usec;
	(void)sd_event_source_set_enabled(userdata, SD_EVENT_ON);
	return 0;
}

void listen_rest(sd_event_source *io, sd_event_source **pause, uint64_t ns)
{
	int r;

	if (*pause)
		r = sd_event_source_set_time_relative(*pause, ns / NS_PER_US);
	else
		r = sd_event_add_time_relative(sd_event_source_get_event(io), pause,
			CLOCK_MONOTONIC, ns / NS_PER_US, 1, on_pause_over, io);
	if (r >= 0)
		r = sd_event_source_set_enabled(*pause, SD_EVENT_ONESHOT);
	if (r >= 0)
		(void)sd_event_source_set_enabled(io, SD_EVENT_OFF);
}

int listen_accept(int fd, sd_event_source *io, sd_event_source **pause)
{
	int client = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (client >= 0)
		return client;
	switch (errno) {
	case EMFILE:
	case ENFILE:
	case ENOBUFS:
	case ENOMEM:
		/* Whoever waits there still waits: the loop would be told so again at once. */
		client = -errno;
		listen_rest(io, pause, SERVE_ACCEPT_PAUSE_NS);
		return client;
	default:
		return -errno;
	}
}

int listen_seqpacket(int *ret_fd, const char *path)
{
	_cleanup_(closep) int fd = -1;
	struct sockaddr_un address;
	int r;

	r = fill_address(&address, path);
	if (r < 0)
		return r;
	r = remove_stale(&address);
	if (r < 0)
		return r;
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	/* On the socket before bind(): the file is never wider open than this, not even for a moment. */
	if (fchmod(fd, 0660) < 0)
		return -errno;
	if (bind(fd, (const void *)&address, sizeof(address)) < 0)
		return -errno;
	if (chmod(path, 0660) < 0 || listen(fd, 64) < 0)
		return -errno;
	*ret_fd = TAKE_FD(fd);
	return 0;
}

/* Whose file is gone or another's is out of reach. */
static bool listens_at(int fd, const char *path)
{
	struct sockaddr_un address, bound;
	socklen_t n_bound = sizeof(bound), n_listens = sizeof(int);
	struct stat st;
	int listens = 0;

	(void)memset(&bound, 0, sizeof(bound));
	return fill_address(&address, path) >= 0 &&
	       getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &n_listens) == 0 && listens &&
	       getsockname(fd, (void *)&bound, &n_bound) == 0 &&
	       strncmp(bound.sun_path, address.sun_path, sizeof(bound.sun_path)) == 0 &&
	       lstat(path, &st) == 0 && S_ISSOCK(st.st_mode);
}

int listen_open(int *ret_fd, const char *path, struct handover *handover, const char *name)
{
	int r, fd = handover_take(handover, name);

	if (fd >= 0 && listens_at(fd, path)) {
		*ret_fd = fd;
		return 0;
	}
	if (fd >= 0) {
		handover_forget(handover, name);
		(void)close(fd);
	}
	r = listen_seqpacket(ret_fd, path);
	if (r >= 0 && handover_has_room(handover, 1))
		handover_store(handover, name, *ret_fd);
	return r;
}
