/* SPDX-License-Identifier: Apache-2.0 */
/* The same over libuv: example_libuv SITE FILE... */
#include <uv.h>

#include "inspect.h"

struct loop {
	struct inspection inspection;
	uv_poll_t poll;
	uv_timer_t timer;
};

static void turn(struct loop *loop);

static void on_time(uv_timer_t *timer)
{
	turn(timer->data);
}

static void on_answer(uv_poll_t *poll, int status, int events)
{
	(void)status;
	(void)events;
	turn(poll->data);
}

/* Whatever woke us: do what can be done, then say until when there is nothing to do. */
static void turn(struct loop *loop)
{
	uint64_t until, now;

	if (!inspection_turn(&loop->inspection, &until)) {
		uv_close((uv_handle_t *)&loop->poll, NULL);
		uv_close((uv_handle_t *)&loop->timer, NULL);
		return;
	}
	now = inspection_now_ns();
	if (until == UINT64_MAX)
		(void)uv_timer_stop(&loop->timer);
	else
		(void)uv_timer_start(
			&loop->timer, on_time, until > now ? (until - now) / 1000000 + 1 : 0, 0);
}

int main(int argc, char **argv)
{
	struct loop loop = { 0 };
	uv_loop_t uv;
	int r = inspection_begin(&loop.inspection, argc, argv);

	if (r != 0)
		return r;
	(void)uv_loop_init(&uv);
	(void)uv_timer_init(&uv, &loop.timer);
	/* libuv's errors are negative errno too. */
	r = uv_poll_init(&uv, &loop.poll, kamen_client_get_fd(loop.inspection.client));
	loop.poll.data = loop.timer.data = &loop;
	if (r == 0) {
		(void)uv_poll_start(&loop.poll, UV_READABLE, on_answer);
		turn(&loop);
	} else {
		loop.inspection.r = r;
		uv_close((uv_handle_t *)&loop.timer, NULL);
	}
	(void)uv_run(&uv, UV_RUN_DEFAULT);
	(void)uv_loop_close(&uv);
	return inspection_end(&loop.inspection);
}
