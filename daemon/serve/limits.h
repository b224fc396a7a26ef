/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_SERVE_LIMITS_H
#define KAMEN_SERVE_LIMITS_H

/* What hostile or careless peers may make the daemon hold. */
#define SERVE_MAX_MASK_BYTES (64u << 20)
#define SERVE_MAX_REFERENCE_BYTES (64u << 20)
#define SERVE_MAX_PX 640u /* side of an input, unless the model's own is larger */
#define SERVE_MAX_BATCH 64u
#define SERVE_MAX_SHARED_BYTES (UINT64_C(4) << 30)  /* regions of all sessions */
#define SERVE_MAX_DECODED_BYTES (UINT64_C(1) << 30) /* pixels that wait for their forward */
/* A session's turn of the loop, and what a user may take of it before all others: see quota.h. */
#define SERVE_TURN_NS (100 * NS_PER_US)
#define SERVE_CREDIT_NS (200 * NS_PER_US)
#define SERVE_DEBT_NS (50 * NS_PER_MS)     /* of the largest turn that others are made up for */
#define SERVE_WELCOME_NS (200 * NS_PER_US) /* what a session costs to open and to close */
#define SERVE_ABOUT_NS (100 * NS_PER_MS)   /* since its last turn another user counts as there */
/* Sessions of one user: so many at once, then one each so often; who breaks the rules waits longer. */
#define SERVE_OPEN_BURST_NS (64 * NS_PER_MS)
#define SERVE_OPEN_NS NS_PER_MS
#define SERVE_OFFENCE_NS (16 * NS_PER_MS)
#define SERVE_MAX_OPEN_NS (500 * NS_PER_MS) /* of the waiting that this may add up to */
#define SERVE_LOOK_NS (5 * NS_PER_US)       /* what a look costs at least, with its event */
#define SERVE_READ_AT_ONCE (640u << 10)     /* bytes; more are read in parts */
#define SERVE_READ_BYTES (256u << 10)       /* a part */
#define SERVE_COPY_AT_ONCE (64u << 10) /* bytes of an image for a decoder, which takes longer */
#define SERVE_UNMAP_AT_ONCE (256u << 10)
#define SERVE_MAX_LEAVING_BYTES (UINT64_C(512) << 20) /* given back and counted for nobody */
#define SERVE_LATER_EVENTS 8u      /* after which what waits for a quiet loop is not put off */
#define SERVE_MAX_SITE_QUEUE 1024u /* requests that may wait for one site */
#define SERVE_MAX_CONTROL 64u      /* control connections, of which admins may use all */
#define SERVE_CONTROL_RESERVED 8u  /* of these for admins alone */
#define SERVE_CONTROL_OF_UID 16u   /* of one uid that is no admin */
#define SERVE_MAX_CONTROL_QUEUE (4u << 20) /* bytes of answers that a client has not read */
#define SERVE_MAX_KEYS_BYTES (1u << 20)    /* of a list of trusted keys */
#define SERVE_ACCEPT_PAUSE_NS (100 * NS_PER_MS)
#define SERVE_FLOOD_AT_ONCE 8u /* connections, then a pause of their kind */
#define SERVE_FLOOD_PAUSE_NS NS_PER_MS
#define SERVE_MAX_STRANGERS 32u    /* connections that have not said hello, or are to be refused */
#define SERVE_STRANGERS_OF_UID 16u /* of these of one uid */
#define SERVE_MAX_USERS 2048u      /* uids with quotas: more than there can be connections */
#define SERVE_HELLO_NS (5 * NS_PER_S)
#define SERVE_DRAIN_NS (10 * NS_PER_S)
#define SERVE_PAUSE_NS NS_PER_S /* for what is being computed when the daemon executes itself */
#define SERVE_MAX_HARDEST 1000u /* rows of one answer */
#define SERVE_MAX_LABELS 1000u  /* of one request */
#define SERVE_COMMIT_ROWS 256u  /* rows of a group commit that does not wait for more */
#define SERVE_COMMIT_MOST 1280u /* that the loop does not wait for the disk with: all of ingest's */
#define SERVE_COMMIT_NS (5 * NS_PER_MS)
/* Of the hand that copies: megabytes of somebody's do not take the CPUs from what others wait for. */
#define SERVE_MEMORY_NICENESS 5
#define SERVE_ROLE_GRACE_NS (8 * NS_PER_S) /* a step of learning and its checkpoint */

#endif
