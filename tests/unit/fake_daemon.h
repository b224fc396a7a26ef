/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_TESTS_FAKE_DAEMON_H
#define KAMEN_TESTS_FAKE_DAEMON_H

/* The daemon's end of one session, as small as it can be, in a thread: what libkamen is tested against. */
enum fake_mode {
	FAKE_HONEST,
	FAKE_HANGS_UP, /* closes instead of a Welcome */
	FAKE_FULL,     /* Welcome with an error */
	FAKE_OTHER_MAJOR,
	FAKE_SHORT_FILE, /* a region that is smaller than said */
	FAKE_WRONG_SIZE, /* sizes that are not the layout's */
	FAKE_NO_FDS,
	FAKE_OLD_LAYOUT,
	FAKE_LATE, /* honest, but every answer comes well after its deadline */
};

/* What a request's part_id asks of the honest one. */
enum fake_part {
	PART_ANSWER = 0,
	PART_SILENT = 100, /* answered together with the next request */
	PART_HELD,         /* answered once the client has sent a byte on the socket */
	PART_DIE,          /* closes the session */
	PART_ANSWER_DIE,   /* both */
	PART_LIE,          /* a completion cursor from nowhere */
	PART_STRANGER, /* completions of slots and ids that were not asked for, then the answer */
	PART_OVERFULL, /* strings without an end, a wild verdict, too long an embedding */
};

struct fake;

/* The embedding is the frame's first three bytes, through this mask the next three. */
#define FAKE_OTHER_MASK 7u

struct fake *fake_start(enum fake_mode mode);
/** Serves this many sessions, one after the other. */
struct fake *fake_start_sessions(enum fake_mode mode, unsigned n_sessions);
const char *fake_path(const struct fake *fake);
/** Waits for the end of the last session. */
void fake_stop(struct fake *fake);

#endif
