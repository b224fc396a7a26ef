/* SPDX-License-Identifier: Apache-2.0 */
/* What a site's champion shows on the line, over rounds and restarts. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "serve/promotion.h"
#include "serve/serve.h"
#include "serve/shadow.h"
#include "site/state_internal.h"
#include "state_fixture.h"

/* What serve has in memory: gone with a restart. */
struct line {
	struct serve serve;
	struct site site;
	struct serving serving[2];
	struct reference reference[2];
};

static void line_open(struct line *line, struct fixture *fixture)
{
	*line = (struct line){ .serve.state = fixture->state };
	(void)snprintf(line->site.name, sizeof(line->site.name), "%s", "a");
	line->site.settings = fixture->defaults;
	line->site.settings.watch_answers = 100;
	for (uint32_t i = 0; i < 2; i++) {
		line->reference[i].n_held = 40;
		line->serving[i].version = i;
		line->serving[i].space = digest_of(&i, sizeof(i));
		line->serving[i].reference = &line->reference[i];
	}
}

static void restart(struct line *line, struct fixture *fixture, uint32_t champion)
{
	live_close(&line->serve, &line->site);
	fixture_reopen(fixture);
	line_open(line, fixture);
	live_champion(&line->serve, &line->site, &line->serving[champion]);
}

static void answer(struct line *line, uint32_t version, unsigned n, float novelty)
{
	struct request request = { .site = &line->site };

	request.wire.verb = SHM_INFER;
	request.wire.mask = SHM_MASK_CHAMPION;
	for (unsigned i = 0; i < n; i++) {
		const struct answer told = { .version = version, .novelty = novelty };

		live_answer(&line->serve, &request, &told);
	}
}

/* Of one batch that failed; its number stands for when it began. */
static void failures(struct line *line, uint32_t version, uint64_t batch, unsigned n)
{
	struct request request = { .site = &line->site };

	request.wire.verb = SHM_INFER;
	request.wire.mask = SHM_MASK_CHAMPION;
	for (unsigned i = 0; i < n; i++) {
		const struct answer told = {
			.version = version,
			.code = -EIO,
			.is_broken = true,
			.queue_ns = batch * 1000 - i,
		};

		request.received_ns = i;
		live_answer(&line->serve, &request, &told);
	}
}

/* Version 1, learnt and passed by the gate. */
static void make_candidate(struct fixture *fixture)
{
	struct version_row row;
	uint32_t version;

	assert_int_equal(state_site_create(fixture->state, "a", &fixture->defaults), 0);
	fixture_fill(fixture, "a", 0, 40);
	assert_int_equal(state_round_begin(fixture->state, "a",
				 &(struct round_wish){ "test", 32, 50, 7 }, &version, NULL),
		0);
	row = fixture_results(fixture, "a", version, true);
	assert_int_equal(state_round_end(fixture->state, &row), 0);
	assert_int_equal(version, 1);
}

static void promote(struct line *line, struct fixture *fixture)
{
	assert_int_equal(state_promote(fixture->state, "a", 1, "test"), 0);
	line->site.live.promoted = 1;
}

/* A round's end publishes first what it wrote, then what is promoted. */
static void new_references_of_the_base_undo_nothing(void **state)
{
	struct fixture *fixture = *state;
	const struct live_row *row;
	struct line line;

	make_candidate(fixture);
	line_open(&line, fixture);
	row = &line.site.live.row;
	live_champion(&line.serve, &line.site, &line.serving[0]);
	answer(&line, 0, 300, .995f);
	assert_int_equal(row->counts.n_ng, 300);
	assert_int_equal(row->drift.alarm, DRIFT_TAIL);

	line.reference[0].n_held = 47;
	live_champion(&line.serve, &line.site, &line.serving[0]);
	assert_int_equal(row->drift.alarm, DRIFT_TAIL);
	assert_int_equal(row->drift.n_held, 47);
	assert_int_equal(row->counts.n_ng, 300);
	promote(&line, fixture);
	live_champion(&line.serve, &line.site, &line.serving[1]);
	assert_int_equal(row->watch.version, 1);
	assert_int_equal(row->watch.before.n_ng, 300);
	assert_int_equal(row->drift.alarm, DRIFT_NONE);
	assert_int_equal(row->counts.n, 0);

	/* Of another preprocessing: that was another line. */
	line.serving[1].space.bytes[0] ^= 1;
	answer(&line, 1, 5, .5f);
	live_champion(&line.serve, &line.site, &line.serving[1]);
	assert_int_equal(row->counts.n, 0);
	assert_false(watch_is_on(&row->watch));
}

static void a_trial_outlives_a_restart(void **state)
{
	struct fixture *fixture = *state;
	struct live_row before;
	struct line line;

	make_candidate(fixture);
	line_open(&line, fixture);
	live_champion(&line.serve, &line.site, &line.serving[0]);
	answer(&line, 0, 50, .3f);
	promote(&line, fixture);
	live_champion(&line.serve, &line.site, &line.serving[1]);
	answer(&line, 1, 30, .6f);
	failures(&line, 1, 7, 8);
	failures(&line, 1, 7, 1);
	before = line.site.live.row;
	assert_int_equal(before.watch.now.n, 30);
	assert_int_equal(before.watch.now.n_failed, 1);
	assert_int_equal(before.watch.before.n, 50);

	restart(&line, fixture, 1);
	assert_memory_equal(&line.site.live.row.watch, &before.watch, sizeof(before.watch));
	assert_memory_equal(&line.site.live.row.counts, &before.counts, sizeof(before.counts));
	for (unsigned i = 0; i < DRIFT_BETS; i++)
		assert_true(line.site.live.row.drift.fortunes[i] >= before.drift.fortunes[i] &&
			    line.site.live.row.drift.fortunes[i] <= before.drift.fortunes[i]);
	assert_int_equal(line.site.live.row.drift.n, before.drift.n);

	answer(&line, 1, 70, .6f);
	assert_false(watch_is_on(&line.site.live.row.watch));
	restart(&line, fixture, 1);
	assert_false(watch_is_on(&line.site.live.row.watch));
	assert_int_equal(line.site.live.row.counts.n, 100);
}

static void a_promotion_that_a_crash_followed_is_on_trial(void **state)
{
	struct fixture *fixture = *state;
	uint32_t version;
	struct line line;

	make_candidate(fixture);
	line_open(&line, fixture);
	live_champion(&line.serve, &line.site, &line.serving[0]);
	answer(&line, 0, 50, .995f);
	live_store(&line.serve, &line.site);
	/* In state.db, and then nothing more of this process. */
	assert_int_equal(state_promote(fixture->state, "a", 1, "test"), 0);
	line.site.live.is_stored = true;
	restart(&line, fixture, 1);
	assert_int_equal(line.site.live.row.watch.version, 1);
	assert_int_equal(line.site.live.row.watch.before.n_ng, 50);

	assert_int_equal(state_rollback(fixture->state, "a", "test", &version), 0);
	line.site.live.is_stored = true;
	restart(&line, fixture, 0);
	assert_false(watch_is_on(&line.site.live.row.watch));
	assert_int_equal(line.site.live.row.version, 0);
}

static void an_alarm_outlives_a_restart(void **state)
{
	struct fixture *fixture = *state;
	struct line line;

	make_candidate(fixture);
	line_open(&line, fixture);
	live_champion(&line.serve, &line.site, &line.serving[0]);
	answer(&line, 0, 300, .995f);
	line.site.live.row.drift_learnt = true;
	live_store(&line.serve, &line.site);
	restart(&line, fixture, 0);
	assert_int_equal(line.site.live.row.drift.alarm, DRIFT_TAIL);
	assert_true(line.site.live.row.drift_learnt);
	assert_true(line.site.live.row.drift.mean > .9);
}

static void counts_go_with_the_threshold_they_are_of(void **state)
{
	struct fixture *fixture = *state;
	struct line line;

	make_candidate(fixture);
	line_open(&line, fixture);
	live_champion(&line.serve, &line.site, &line.serving[0]);
	answer(&line, 0, 50, .4f);
	line.site.settings.novelty_threshold = .3;
	live_champion(&line.serve, &line.site, &line.serving[0]);
	assert_int_equal(line.site.live.row.counts.n, 0);
	assert_int_equal(line.site.live.row.drift.n, 50);
}

/* Version 1 as it was loaded last: loading would need the model, which is not there. */
static void keep_loaded(struct line *line, struct fixture *fixture)
{
	char change[160], hex[DIGEST_HEX_CHARS + 1];
	struct digest prep = prep_digest(&line->site.prep);

	digest_to_hex(&prep, hex);
	(void)snprintf(change, sizeof(change), "UPDATE version SET prep = x'%s'", hex);
	assert_int_equal(sqlite3_exec(fixture->state->db, change, NULL, NULL, NULL), SQLITE_OK);
	line->serving[1].n_refs = 100;
	line->serving[1].threshold = line->site.settings.novelty_threshold;
	line->site.pinned[0] = &line->serving[1];
}

static void who_is_champion_already_is_on_no_trial(void **state)
{
	struct fixture *fixture = *state;
	struct diag diag = { .text = "" };
	struct line line;

	make_candidate(fixture);
	line_open(&line, fixture);
	keep_loaded(&line, fixture);
	live_champion(&line.serve, &line.site, &line.serving[0]);
	assert_int_equal(promotion_make(&line.serve, &line.site, 1, "test", &diag), 0);
	live_champion(&line.serve, &line.site, &line.serving[1]);
	line.site.champion = 1;
	answer(&line, 1, 100, .6f);
	assert_false(watch_is_on(&line.site.live.row.watch));
	assert_int_equal(promotion_make(&line.serve, &line.site, 1, "test", &diag), 0);
	line.serving[1].space.bytes[0] ^= 1;
	live_champion(&line.serve, &line.site, &line.serving[1]);
	assert_false(watch_is_on(&line.site.live.row.watch));
}

static void a_shadow_that_is_there_is_not_loaded_again(void **state)
{
	struct fixture *fixture = *state;
	struct line line;

	make_candidate(fixture);
	line_open(&line, fixture);
	(void)snprintf(
		line.site.settings.policy, sizeof(line.site.settings.policy), "%s", "shadow");
	keep_loaded(&line, fixture);
	shadow_choose(&line.serve, &line.site);
	assert_ptr_equal(line.site.live.shadow, &line.serving[1]);
	line.site.live.shadow_sum.n = 7;

	line.site.pinned[0] = NULL;
	shadow_choose(&line.serve, &line.site);
	assert_ptr_equal(line.site.live.shadow, &line.serving[1]);
	assert_int_equal(line.site.live.shadow_sum.n, 7);
	line.site.settings.policy[0] = '\0';
	shadow_choose(&line.serve, &line.site);
	assert_null(line.site.live.shadow);
}

#define with_state(test) cmocka_unit_test_setup_teardown(test, fixture_setup, fixture_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		with_state(new_references_of_the_base_undo_nothing),
		with_state(a_trial_outlives_a_restart),
		with_state(a_promotion_that_a_crash_followed_is_on_trial),
		with_state(an_alarm_outlives_a_restart),
		with_state(counts_go_with_the_threshold_they_are_of),
		with_state(a_shadow_that_is_there_is_not_loaded_again),
		with_state(who_is_champion_already_is_on_no_trial),
	};

	return cmocka_run_group_tests_name("live_site", tests, NULL, NULL);
}
