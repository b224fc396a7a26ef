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
	/* Honest in the first session; what comes after it: */
	FAKE_THEN_FULL,   /* is full the second time */
	FAKE_THEN_DENIES, /* takes nobody any more */
	FAKE_THEN_FEWER,  /* has half as many slots */
	FAKE_THEN_SMALLER,
	FAKE_THEN_LARGER, /* has twice as many, twice as large */
	FAKE_THEN_OTHER_MAJOR,
};

/* What a request's part_id asks of the honest one. */
enum fake_part {
	PART_ANSWER = 0,
	PART_SILENT = 100, /* answered together with the next request */
	PART_HELD,         /* answered by fake_release() */
	PART_DIE,          /* closes the session */
	PART_DIE_ONCE,     /* the first session; later ones answer */
	PART_ANSWER_DIE,   /* answers, then closes */
	PART_LIE,          /* a completion cursor from nowhere */
	PART_STRANGER, /* completions of slots and ids that were not asked for, then the answer */
	PART_TWICE,    /* completed twice */
	PART_OVERFULL, /* strings without an end, a wild verdict, too long an embedding */
	PART_BELL_FDS, /* a bell with descriptors, then the answer */
	PART_RESUME, /* another results region as by request.version, an enum fake_resume, then the answer */
	PART_SCRIBBLE,      /* random bytes by that seed in results, rings and cursors */
	PART_ANSWER_RESUME, /* the answer without a bell, then that */
};

enum fake_resume {
	RESUME_WELL = 0,
	RESUME_MORE_FDS, /* than one */
	RESUME_SHORT_FILE,
	RESUME_WRONG_SIZE,
	RESUME_NO_FD,
	RESUME_OLD_LAYOUT,
	RESUME_LIE, /* its cursor is from nowhere */
	RESUME_SAME_GENERATION,
	RESUME_LONG_PACKET,
	RESUME_GARBAGE, /* this and beyond: random bytes by that seed */
};

struct fake;

/* The embedding is the frame's first three bytes, through this mask the next three. */
#define FAKE_OTHER_MASK 7u

struct fake *fake_start(enum fake_mode mode);
/** Serves this many sessions, one after the other. */
struct fake *fake_start_sessions(enum fake_mode mode, unsigned n_sessions);
/** Answers what is held; may be called before it has arrived. */
void fake_release(struct fake *fake);
const char *fake_path(const struct fake *fake);
/** Waits for the end of the last session. */
void fake_stop(struct fake *fake);

#endif
