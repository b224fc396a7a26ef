/* SPDX-License-Identifier: Apache-2.0 */
#include "ops/notes.h"

#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "engine.h"

#define RETRY_USEC (50 * 1000)

/* ---- one */

static int read_address(struct sockaddr_un *ret_address, socklen_t *ret_n)
{
	const char *path = getenv("NOTIFY_SOCKET");
	size_t n = path ? strlen(path) : 0;

	*ret_address = (struct sockaddr_un){ .sun_family = AF_UNIX };
	if (n < 2 || n >= sizeof(ret_address->sun_path) || (path[0] != '/' && path[0] != '@'))
		return -EAFNOSUPPORT;
	memcpy(ret_address->sun_path, path, n);
	if (path[0] == '@')
		ret_address->sun_path[0] = '\0';
	*ret_n = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n);
	return 0;
}

int note_send(const char *text, int fd)
{
	union {
		struct cmsghdr header;
		uint8_t room[CMSG_SPACE(sizeof(int))];
	} control = { .room = { 0 } };
	struct sockaddr_un address;
	struct iovec part = { .iov_base = (char *)text, .iov_len = strlen(text) };
	struct msghdr message = { .msg_name = &address, .msg_iov = &part, .msg_iovlen = 1 };
	_cleanup_(closep) int sock = -1;
	int r = read_address(&address, &message.msg_namelen);

	if (r < 0)
		return r;
	if (fd >= 0) {
		message.msg_control = &control;
		message.msg_controllen = sizeof(control);
		control.header.cmsg_level = SOL_SOCKET;
		control.header.cmsg_type = SCM_RIGHTS;
		control.header.cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(&control.header), &fd, sizeof(int));
	}
	sock = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (sock < 0)
		return -errno;
	return sendmsg(sock, &message, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -errno : 0;
}

/* ---- those that wait */

static void drop(struct notes *notes, unsigned at)
{
	notes->n--;
	memmove(notes->waiting[at], notes->waiting[at + 1],
		(notes->n - at) * sizeof(notes->waiting[0]));
}

static void flush(struct notes *notes)
{
	while (notes->n > 0 && note_send(notes->waiting[0], -1) != -EAGAIN)
		drop(notes, 0);
}

static int on_retry(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct notes *notes = userdata;

	(void)usec;
	flush(notes);
	if (notes->n == 0 || sd_event_source_set_time_relative(source, RETRY_USEC) < 0)
		return 0;
	(void)sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
	return 0;
}

/* What is there still of its kind is out of date. */
static void forget_kind(struct notes *notes, const char *text)
{
	size_t n = strcspn(text, "=") + 1;

	for (unsigned i = 0; i < notes->n; i++)
		if (strncmp(notes->waiting[i], text, n) == 0) {
			drop(notes, i);
			return;
		}
}

static int try_later(struct notes *notes, sd_event *event)
{
	int r;

	if (!notes->retry)
		return sd_event_add_time_relative(
			event, &notes->retry, CLOCK_MONOTONIC, RETRY_USEC, 0, on_retry, notes);
	r = sd_event_source_set_time_relative(notes->retry, RETRY_USEC);
	return r < 0 ? r : sd_event_source_set_enabled(notes->retry, SD_EVENT_ONESHOT);
}

void notes_say(struct notes *notes, sd_event *event, const char *format, ...)
{
	char text[sizeof(notes->waiting[0])];
	va_list ap;

	va_start(ap, format);
	(void)vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	flush(notes);
	if (notes->n == 0 && note_send(text, -1) != -EAGAIN)
		return;
	forget_kind(notes, text);
	if (notes->n == ARRAY_SIZE(notes->waiting))
		drop(notes, 0);
	memcpy(notes->waiting[notes->n++], text, sizeof(text));
	(void)try_later(notes, event);
}

void notes_done(struct notes *notes)
{
	flush(notes);
	notes->retry = sd_event_source_disable_unref(notes->retry);
}
