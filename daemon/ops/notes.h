/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_OPS_NOTES_H
#define KAMEN_OPS_NOTES_H

#include <systemd/sd-event.h>

/**
 * What systemd is told ($NOTIFY_SOCKET). libsystemd's sd_notify() waits where systemd does not keep
 * up, and everybody would wait with us: these never do.
 */
struct notes {
	sd_event_source *retry;
	/* (n) in their order; of a kind (READY=, STATUS=, ...) there is one, the latest. */
	char waiting[8][256];
	unsigned n;
};

/**
 * A note, now or as soon as systemd takes it; that is tried again by the event loop, and so not
 * before it runs. Without a systemd nothing.
 */
void notes_say(struct notes *notes, sd_event *event, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/** The last attempt. */
void notes_done(struct notes *notes);

/**
 * One datagram, at once or not at all.
 *
 * @param fd  goes with it; -1: none
 * @return 0, -EAGAIN: systemd's queue is full, -EAFNOSUPPORT: there is nobody to tell, ...
 */
int note_send(const char *text, int fd);

#endif
