/* SPDX-License-Identifier: Apache-2.0 */
#include "serve/hard_store.h"

#include <errno.h>

#include "ops/log.h"
#include "serve/serve.h"

#define N_ROWS 32u /* some hundred microseconds */
#define PAUSE_NS (5 * NS_PER_MS)

struct hard_task {
	struct site *site; /* referenced */
	struct hard_list list;
	uint32_t n_put;
	bool is_clean; /* what was known before is forgotten */
	struct hard_task *next;
};

static void task_free(struct hard_task *task)
{
	site_unref(task->site);
	hard_list_done(&task->list);
	free(task);
}

static int clean(struct serve *serve, struct hard_task *task)
{
	int r = state_hardness_forget(serve->state, task->site->name, N_ROWS);

	task->is_clean = r >= 0 && r < (int)N_ROWS;
	return r;
}

static int put(struct serve *serve, struct hard_task *task)
{
	uint32_t n = task->list.n - task->n_put;
	int r;

	n = n < N_ROWS ? n : N_ROWS;
	r = state_hardness_put(serve->state, task->site->name, task->list.images + task->n_put, n);
	task->n_put += n;
	return r;
}

static void do_some(struct serve *serve)
{
	struct hard_task *task = serve->hard_store.head;
	struct site *site;
	int r = 0;

	if (!task->site->gone) {
		r = task->is_clean ? put(serve, task) : clean(serve, task);
		if (r >= 0)
			admission_joined(serve);
	}
	if (r < 0)
		log_error("site %s: cannot keep how hard its images are: %s", task->site->name,
			strerror(-r));
	if (r >= 0 && !task->site->gone && task->n_put < task->list.n)
		return;
	serve->hard_store.head = task->next;
	site = site_ref(task->site);
	task_free(task);
	/* It has waited for this. */
	admission_trim(serve, site);
	site_unref(site);
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct serve *serve = userdata;

	(void)usec;
	if (!serve->hard_store.head)
		return 0;
	do_some(serve);
	if (!serve->hard_store.head ||
		sd_event_source_set_time_relative(source, PAUSE_NS / NS_PER_US) < 0)
		return 0;
	(void)sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
	return 0;
}

static int begin(struct serve *serve)
{
	struct hard_store *store = &serve->hard_store;
	int r;

	if (!store->timer)
		return sd_event_add_time_relative(
			serve->event, &store->timer, CLOCK_MONOTONIC, 0, 0, on_timer, serve);
	r = sd_event_source_set_time_relative(store->timer, 0);
	return r < 0 ? r : sd_event_source_set_enabled(store->timer, SD_EVENT_ONESHOT);
}

void hard_store_take(struct serve *serve, struct site *site, struct hard_list *list)
{
	struct hard_task **at = &serve->hard_store.head;
	struct hard_task *task = calloc(1, sizeof(*task));

	if (!task) {
		log_error("site %s: no memory for how hard its images are", site->name);
		return;
	}
	task->site = site_ref(site);
	task->list = *list;
	*list = (struct hard_list){ 0 };
	while (*at)
		at = &(*at)->next;
	*at = task;
	if (begin(serve) < 0)
		hard_store_finish(serve);
}

bool hard_store_waits(const struct serve *serve, const struct site *site)
{
	const struct hard_task *task = serve->hard_store.head;

	while (task && task->site != site)
		task = task->next;
	return task;
}

void hard_store_finish(struct serve *serve)
{
	while (serve->hard_store.head)
		do_some(serve);
}

void hard_store_close(struct serve *serve)
{
	hard_store_finish(serve);
	serve->hard_store.timer = sd_event_source_disable_unref(serve->hard_store.timer);
}
