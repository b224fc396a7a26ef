/* SPDX-License-Identifier: Apache-2.0 */
/* The same over sd-event, systemd's loop: example_sd_event SITE FILE... */
#include <systemd/sd-event.h>

#include "inspect.h"

struct loop {
	struct inspection inspection;
	sd_event *event;
	sd_event_source *timer;
};

/* Whatever woke us: do what can be done, then say until when there is nothing to do. */
static int turn(struct loop *loop)
{
	uint64_t until;
	int r;

	if (!inspection_turn(&loop->inspection, &until))
		return sd_event_exit(loop->event, 0);
	if (until == UINT64_MAX)
		return sd_event_source_set_enabled(loop->timer, SD_EVENT_OFF);
	r = sd_event_source_set_time(loop->timer, until / 1000 + 1);
	return r < 0 ? r : sd_event_source_set_enabled(loop->timer, SD_EVENT_ONESHOT);
}

static int on_answer(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
	(void)source;
	(void)fd;
	(void)revents;
	return turn(userdata);
}

static int on_time(sd_event_source *source, uint64_t usec, void *userdata)
{
	(void)source;
	(void)usec;
	return turn(userdata);
}

static int run(struct loop *loop)
{
	struct kamen_client *client = loop->inspection.client;
	int r;

	/* Events of poll() and of epoll have the same values. */
	r = sd_event_add_io(loop->event, NULL, kamen_client_get_fd(client),
		(uint32_t)kamen_client_get_events(client), on_answer, loop);
	if (r < 0)
		return r;
	r = sd_event_add_time(loop->event, &loop->timer, CLOCK_MONOTONIC, 0, 1, on_time, loop);
	if (r < 0)
		return r;
	/* The timer is due at once: the first turn. */
	r = sd_event_loop(loop->event);
	(void)sd_event_source_disable_unref(loop->timer);
	return r;
}

int main(int argc, char **argv)
{
	struct loop loop = { 0 };
	int r = inspection_begin(&loop.inspection, argc, argv);

	if (r != 0)
		return r;
	r = sd_event_new(&loop.event);
	if (r >= 0)
		r = run(&loop);
	if (r < 0)
		loop.inspection.r = r;
	(void)sd_event_unref(loop.event);
	return inspection_end(&loop.inspection);
}
