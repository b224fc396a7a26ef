/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_SITE_STATE_H
#define KAMEN_SITE_STATE_H

#include "engine.h"
#include "kamen.pb-c.h"
#include "ops/config.h"
#include "site/classes.h"
#include "site/drift.h"
#include "site/watch.h"

/*
 * state.db (SQLite, WAL, synchronous=FULL) and the folders beside it: what survives a power cut.
 * Only serve opens it, only its loop thread calls in here. On disk, below the state folder:
 *
 *   state.db
 *   sites/SITE/replay/BLOB.kimg     canonical images (ingest/blob.h), one row each
 *   sites/SITE/masks/VERSION.kmask  or VERSION.kcas where it is a cascade; VERSION.kref (references
 *                                   of that version), VERSION.manifest, 0.kref (of the base),
 *                                   VERSION.khard where its objective learns what is hard
 *   sites/SITE/round/               manifest, checkpoint and results while a round runs; import.kmask
 *                                   where a foreign mask is to be judged
 *
 * Blob first, row second; deletion the other way round; what has no row is swept at open.
 */
struct state;

enum version_state { /* stored as text */
	VERSION_LEARNING,
	VERSION_CANDIDATE, /* passed the gate, not promoted */
	VERSION_HELD,      /* did not pass; the reasons are stored */
	VERSION_CHAMPION,
	VERSION_RETIRED, /* was champion */
	VERSION_FAILED,
};
const char *version_state_name(enum version_state state);

/** What an operator has told a site; stored as text. */
enum site_hold {
	SITE_ACTIVE,
	SITE_PAUSED, /* no round begins; images are taken, masks may be promoted */
	SITE_FROZEN, /* no round, no promotion, no new image; going back to an earlier mask works */
};
const char *site_hold_name(enum site_hold hold); /* "", "paused", "frozen" */

/** One row of the table of sites. Strings are fixed so that the struct is a plain value. */
struct site_row {
	char site[64];
	struct site_settings settings; /* what state.db holds, over the defaults */
	uint32_t champion;             /* 0: the frozen base */
	uint32_t predecessor;          /* what rollback goes back to */
	uint64_t n_images, n_duplicates, n_rejected, n_gaps, replay_bytes;
	uint64_t n_new;    /* images since the last round began, however that ended */
	uint64_t round_us; /* when it began; without one: when the site was made */
	enum site_hold hold;
};

/** The little of it that decides whether a site should learn. */
struct site_need {
	char site[64];
	enum site_hold hold;
	uint64_t n_images, n_new, round_us;
};

struct judgement_row {
	uint32_t n;
	float retrieval, margin, effective_rank;
	float retrieval_error, margin_error; /* of the candidate's differences; 0 in the frozen's */
	/* Of the candidate, where they were measured. */
	bool has_entropy, has_neighbours;
	float entropy;    /* of the learnt head's assignments, as a share of ln K */
	float neighbours; /* mean share of common nearest neighbours with the champion */
};

/** Nearest class mean on labelled held-out images, with 1 and with 5 images a class. */
struct shots_row {
	uint32_t n, n_classes; /* n = 0: too few have a label */
	double frozen1, frozen5, candidate1, candidate5;
	double lo1, hi1, lo5, hi5; /* 95 % of candidate minus frozen, paired by image */
};

/** What the objective of its round reports, by its own name. */
#define VERSION_MAX_FIGURES 16u
struct named_figure {
	char name[32];
	double value;
};

/** What a candidate did beside the champion, on a sample of the live requests. Means are over n. */
struct shadow_row {
	uint64_t n, n_agreed, n_ng, n_champion_ng;
	double novelty, champion_novelty, cosine, seconds;
};

/** What a site's champion has shown on the line. */
struct live_row {
	uint32_t version;           /* whose answers these are */
	uint64_t space;             /* 48 bits of its digest: by whose references */
	double threshold;           /* of what counts as NG */
	struct watch_counts counts; /* of late */
	struct watch watch;         /* its trial */
	struct drift drift;
	bool drift_learnt; /* a round began for the alarm that is up: one is enough */
};

struct version_row {
	char site[64];
	uint32_t version;
	enum version_state state;
	double density, lowest_density, loss_ratio, seconds;
	uint64_t n_bytes, n_elements, n_flips, seed, created_us;
	uint64_t hardness_bytes; /* of its .khard, 0: it has none */
	uint32_t steps, n_images, threads;
	uint32_t kept_step; /* the step whose mask it is */
	char isa[32];
	struct digest base, prep, mask, manifest, recipe, space;
	struct judgement_row frozen, candidate;
	bool passed;
	char reasons[1024];  /* separated by newlines; "" when passed */
	char withdrawn[160]; /* why it was rolled back by itself; "": it was not */
	struct shadow_row shadow;
	struct shots_row shots;
	struct named_figure figures[VERSION_MAX_FIGURES]; /* (n_figures) by name */
	uint32_t n_figures;
	bool keep;          /* pinned: never removed for its age */
	char why[96];       /* why the round began */
	bool drifted;       /* the round began for drift: what it learnt may be the fault */
	char objective[16]; /* what it was asked to learn by; "": by the recipe's own */
	/* Whole, so that the version can be learnt again: recipe_text(), and KEY=VALUE of [site]. */
	char recipe_text[sizeof(struct recipe_text)], prep_text[384];
};

/** What ingest asks to have accepted. */
struct image_row {
	char site[64];
	struct digest hash;
	char blob[128];
	uint64_t n_bytes;
	uint32_t width, height, n_channels;
	char source[8], sender[64], part_id[64];
	uint64_t capture_us;
};

/**
 * Opens or creates; checks the schema's version; rounds that were running stay LEARNING and are
 * resumable; sweeps orphaned blobs and torn temporaries. diag: one clear error naming the file.
 * -EBUSY: another process has this folder, -EBADMSG: damaged, -ENOTEMPTY: sites without state.db.
 */
int state_open(struct state **ret_state, const char *dir, const struct site_settings *defaults,
	struct diag *diag);
void state_free(struct state *state);
DEFINE_CLEANUP(struct state *, state_free)

/* ---- sites */
/** -EEXIST, -EINVAL. Makes the folders, then the row and its audit row. Keys that differ from the
 * defaults are stored as the site's own. */
int state_site_create(struct state *state, const char *site, const struct site_settings *settings);
/** The same, but keys says which are the site's own: bit i is config_site_keys[i]. who: for the audit,
 * as everywhere below: "uid 0", or the policy or file that asked. */
int state_site_create_with(struct state *state, const char *site,
	const struct site_settings *settings, uint32_t keys, const char *who);
/** What every site has that does not have it otherwise: after the configuration was read again. */
void state_set_defaults(struct state *state, const struct site_settings *defaults);
/** The rows are gone, the name is free; the files wait for state_tidy(), at the latest for a start. */
int state_site_delete(struct state *state, const char *site, const char *who);
/** Removes at most n_entries files of deleted sites. @return 1: there are more, 0, or an error */
int state_tidy(struct state *state, unsigned n_entries);
int state_site_get(struct state *state, const char *site, struct site_row *ret_row); /* -ENOENT */
/** Sorted by name; *ret_rows malloc'ed. */
int state_site_list(struct state *state, struct site_row **ret_rows, uint32_t *ret_n);
/** Of every site, by name; cheap enough for every second. *ret_rows malloc'ed. */
int state_need_list(struct state *state, struct site_need **ret_rows, uint32_t *ret_n);
/**
 * Pause, freeze or resume, with an audit row; saying it again is 0 and changes nothing. -ENOENT,
 * -EBUSY: a frozen site cannot be paused.
 */
int state_site_hold(struct state *state, const char *site, enum site_hold hold, const char *who);
/** Back to the base: champion 0, the versions stay, rollback undoes it. -ENOENT, -EROFS: frozen. */
int state_site_reset(struct state *state, const char *site, const char *who);

/* ---- images; batched: nothing is accepted before state_commit() returned 0 */
/**
 * Joins the open batch. 1: a new row, 0: a duplicate (row unchanged, counted), -ENOENT: no site,
 * -ESTALE: the blob is not there in this size (evicted meanwhile: write it again), -EINVAL: blob's
 * name, -EEXIST: another image has this blob, -EROFS: the site is frozen. Other errors: the batch is
 * lost, commit will say so.
 */
int state_admit(struct state *state, const struct image_row *row);
/**
 * Ends the batch: one fsync, or none where there is a state_disk.h. On failure nothing of the batch is
 * accepted. A verb that needs its own transaction commits an open batch first; what came of that is
 * still told here.
 */
int state_commit(struct state *state);
bool state_batch_open(const struct state *state);
/** A row of a batch whose sync has failed, if it is there: its blob goes. */
int state_take_back(struct state *state, const char *site, const struct digest *hash);
/** Joins the open batch, so commit it soon: as state_audit(), but the row is one of the batch's. */
int state_audit_soon(struct state *state, const char *site, const char *what, const char *detail);
/** Joins the open batch, so commit it soon; without a crash nothing is lost. */
int state_count_refused(
	struct state *state, const char *site, uint64_t n_rejected, uint64_t n_gaps);
/**
 * Brings a site under its replay_bytes by deleting rows (then blobs): keeps the newest half and a
 * seeded sample of the older, in which labelled images come before the others; images named
 * by a running round's manifest stay. The sample is uniform, or prefers_hard: an image among the
 * hardest is 16 times as likely to stay as one among the easiest.
 */
int state_evict(struct state *state, const char *site, uint64_t max_bytes, bool prefers_hard);
/**
 * Deletes near-duplicates, rows first: of each pair the second image. Only where both are
 * still there, none of a running round's, none with a label, and never below n_min images. Audited.
 */
struct twins;
int state_thin(struct state *state, const char *site, const struct twins *twins, uint64_t n_min,
	uint32_t *ret_n);

/** An image that was hard for the last version that tells such. */
struct hard_row {
	struct digest hash;
	double hardness;
	char source[8], sender[64], part_id[64], label[64]; /* label: its class; "": none */
	uint64_t capture_us, arrived_us;
};
/**
 * What a version says of images, in parts, each durable with state_commit(): first all that was said
 * before is forgotten, because no two versions' numbers can be compared.
 *
 * @return how many images were forgotten: n_max, and there may be more
 */
int state_hardness_forget(struct state *state, const char *site, uint32_t n_max);
struct hard_image;
int state_hardness_put(
	struct state *state, const char *site, const struct hard_image *images, uint32_t n);
/** At most n_max, the hardest first; *ret_rows malloc'ed. */
int state_hardest(struct state *state, const char *site, uint32_t n_max, struct hard_row **ret_rows,
	uint32_t *ret_n);

/* ---- labels: the class of an image, said by a person; it goes with its image */
struct label {
	struct digest hash; /* of the image */
	const char *name;   /* of the class, wire_class_name_check(); NULL: none any more */
};
struct label_counts {
	uint32_t n_added, n_changed, n_removed; /* had no class, another one, have none any more */
	uint32_t n_unknown;                     /* images that the site does not have: left out */
};
#define LABEL_MAX_CLASSES CLASSES_MAX /* of a site */
/**
 * One decision: one transaction, one row of the audit where anything changed. Of two labels of an
 * image the later one holds.
 *
 * @param is_unknown  (n), set for images that the site does not have; NULL: nobody asks
 * @return 0, -ENOENT: no site, -EROFS: it is frozen, -E2BIG: more than LABEL_MAX_CLASSES; then
 *         nothing has changed
 */
int state_label_set(struct state *state, const char *site, const struct label *labels, uint32_t n,
	const char *who, bool *is_unknown, struct label_counts *ret_counts);
struct label_class {
	char name[64];
	uint64_t n_images;
};
/** By name; *ret_rows malloc'ed. -ENOENT */
int state_label_list(
	struct state *state, const char *site, struct label_class **ret_rows, uint32_t *ret_n);

/* ---- classes: what a site tells apart, shown by a few images of each (supports). These stay, while
 * their class does: another mask sees them anew. What came as a support alone is not learnt from: a
 * person chose it, the line did not; until the line sends it too. */
#define CLASS_MAX 64u          /* of a site */
#define CLASS_MAX_SUPPORTS 16u /* of a class */
#define FEATURE_MAX 4096u      /* numbers that a model says of an image */
struct class_row {
	char name[CLASSES_NAME_BYTES];
	uint32_t n_supports;
	uint64_t created_us;
};
/** How many it has, or a negative errno. */
int state_class_count(struct state *state, const char *site);
/** By name; *ret_rows malloc'ed. -ENOENT */
int state_class_list(
	struct state *state, const char *site, struct class_row **ret_rows, uint32_t *ret_n);

#define FEATURE_OF_LINE UINT32_MAX
#define FEATURE_N_LINE 64u
/** An image that the classes of a site need in some space: a support, or one of the line's latest. */
struct feature_row {
	int64_t image;
	char blob[128];
	uint32_t class; /* index of its name, or FEATURE_OF_LINE */
	bool is_known;  /* its values are there */
	bool is_new;    /* and not stored yet */
};
struct features {
	struct digest space;
	uint32_t n_classes, n, dim;
	char (*names)[CLASSES_NAME_BYTES]; /* (n_classes) by their bytes */
	struct feature_row *rows; /* (n) supports class by class, then the line's, oldest first */
	float *values;            /* (n, dim) */
};
void features_done(struct features *features);
/** Those of the site's supports and of the FEATURE_N_LINE latest other images; without a class none.
 * What is stored in another size is not known. -ENOENT, -EBADMSG */
int state_features_read(struct state *state, const char *site, const struct digest *space,
	uint32_t dim, struct features *ret_features);
/** Stores what is new, of images that are still there. */
int state_features_store(struct state *state, const char *site, const struct features *features);
/** Forgets all but those of two spaces, and of the line's all but the latest. */
int state_features_trim(
	struct state *state, const char *site, const struct digest *a, const struct digest *b);

struct class_wish {
	const char *name;
	const struct digest *hashes; /* (n) of its supports */
	const bool *is_brought;      /* (n) it came as a support */
	uint32_t n;
	const char *who;
};
/**
 * What adding the class would need: as state_features_read(), and behind the others' the wish's, of a
 * class n_classes - 1 of its name.
 *
 * @return 0, -EEXIST: there is one of the name, or an image supports another, -E2BIG: too many,
 *         -ENODATA: an image is not there, -EROFS: the site is frozen (diag)
 */
int state_class_plan(struct state *state, const char *site, const struct class_wish *wish,
	const struct digest *space, uint32_t dim, struct features *ret_features, struct diag *diag);
/** Class, supports and the audit row in one transaction. Errors as state_class_plan(). */
int state_class_add(
	struct state *state, const char *site, const struct class_wish *wish, struct diag *diag);
/** The class, and the images that came for its sake and have no label. -ENODATA: there is none */
int state_class_remove(struct state *state, const char *site, const char *name, const char *who);
/** Images that came for a class which did not come about; what has a label, shows a class, or belongs to
 * a round that runs stays. -ENOENT, -EROFS */
int state_class_drop(struct state *state, const char *site, const struct digest *hashes, uint32_t n,
	uint32_t *ret_n_dropped);

/* ---- rounds and versions */
/**
 * Freezes a manifest: every image of the site, lines "L|H hash blob" sorted by hash; held out (H):
 * every fifth time block of the site's images in order of arrival (site/manifest.h). Inserts the next version as
 * LEARNING, with an audit row that says why. -EBUSY: a round runs, -ENODATA: fewer than min_images,
 * or too few labels for who wants them, -EROFS: paused or frozen (diag).
 */
struct round_wish {
	const char *who;
	uint32_t min_images, steps;
	uint64_t seed;
	const char *objective; /* asked for; NULL or "": the recipe's own */
	bool wants_labels;     /* that objective does */
	bool drifted;          /* begins because the line has drifted */
};
int state_round_begin(struct state *state, const char *site, const struct round_wish *wish,
	uint32_t *ret_version, struct diag *diag);
/** Of rounds left running by an earlier process. */
int state_round_list(struct state *state, struct version_row **ret_rows, uint32_t *ret_n);
/**
 * Takes candidate.kmask or candidate.kcas, candidate.kref, candidate.manifest (of the images really
 * used) and base.kref from the round folder to masks/, stores row and gate (state CANDIDATE or HELD),
 * removes the round folder. What began for drift leaves the base's references as they are: that never
 * widens what is normal. -EBADMSG: file is not what row says.
 */
int state_round_end(struct state *state, const struct version_row *row);
int state_round_fail(struct state *state, const char *site, uint32_t version, const char *reason);
/** A foreign mask, already decoded and verified by the caller, becomes the next version; a round
 * folder is prepared so that the learner can judge it (job judge_mask, round/import.kmask).
 * -EBUSY, -ENODATA: no images to judge it on. */
int state_import_begin(struct state *state, const char *site, const char *who, const void *kmask,
	size_t n_bytes, uint32_t *ret_version, struct diag *diag);

int state_version_get(struct state *state, const char *site, uint32_t version,
	struct version_row *ret_row); /* -ENOENT */
int state_version_list(
	struct state *state, const char *site, struct version_row **ret_rows, uint32_t *ret_n);
/** Champion and audit row in one transaction. -ENOENT, -EPERM: the version is held or failed,
 * -EROFS: the site is frozen.
 * Promoting the champion again is 0 and changes nothing. version 0 goes back to the base. */
int state_promote(struct state *state, const char *site, uint32_t version, const char *who);
/** Back to the predecessor, and what was before that becomes the predecessor. -ENODATA: there is none. */
int state_rollback(struct state *state, const char *site, const char *who, uint32_t *ret_version);
/**
 * The same because live figures of the champion broke their limits; the version and every other one
 * of the same mask are marked. -ESTALE: another version is champion by now.
 */
int state_withdraw(struct state *state, const char *site, uint32_t version, const char *reason,
	uint32_t *ret_version);
/** @return 1: a version of these bits was withdrawn here, 0, or a negative errno */
int state_is_withdrawn(struct state *state, const char *site, const struct digest *mask);
/** Overwrites what a version did as a shadow. */
int state_shadow_store(
	struct state *state, const char *site, uint32_t version, const struct shadow_row *row);

/**
 * What was stored last. A promotion sets watch.version with its own transaction, so that a version
 * other than row.version there is on trial from its first answer on.
 *
 * @return 1, 0: nothing was stored yet, or a negative errno
 */
int state_live_get(struct state *state, const char *site, struct live_row *ret_row);
int state_live_store(struct state *state, const char *site, const struct live_row *row);

/** Pins a version, or no longer; audited. -ENOENT, -EPERM: it is being learnt or failed. */
int state_version_keep(
	struct state *state, const char *site, uint32_t version, bool keep, const char *who);
/**
 * Removes versions, rows first: all but the newest n_keep that did not fail and the newest n_keep that
 * did, the champion, its predecessor, in_use (0: none), and what is pinned or being learnt. Audited
 * one by one.
 */
int state_version_prune(
	struct state *state, const char *site, uint32_t n_keep, uint32_t in_use, uint32_t *ret_n);

/**
 * Makes ready to learn a version again: checks its record, and holds its images until
 * state_reproduce_end(). The folder "again" of the site is there, empty.
 *
 * @param ret_row   the version
 * @return 0, -ENOENT: no such version, -ENODATA: its recipe was never stored, or images are gone
 *         (diag counts them and names the first), -EBUSY: a round runs, -EBADMSG: manifest damaged
 */
int state_reproduce_begin(struct state *state, const char *site, uint32_t version,
	struct version_row *ret_row, struct diag *diag);
int state_reproduce_end(struct state *state, const char *site);

/** Absolute path of a file of a site, e.g. state_path(s, buf, site, "masks/3.kref"). */
int state_path(const struct state *state, char ret_path[512], const char *site, const char *file);
/** That of a mask set, whichever of the two files it is: state_mask_path(s, buf, site, "masks/3"). */
int state_mask_path(
	const struct state *state, char ret_path[512], const char *site, const char *stem);

/** Appends a row to the audit chain (BLAKE2b over the previous hash and the row). */
int state_audit(struct state *state, const char *site, const char *what, const char *detail);
/** Length and last hash, as stored; 0 and zeros: no row yet. */
int state_audit_head(struct state *state, uint64_t *ret_n, struct digest *ret_head);
/** Walks the chain. *ret_head: hash of its last row. -EBADMSG: diag names the row that is wrong. */
int state_audit_verify(
	struct state *state, uint64_t *ret_n, struct digest *ret_head, struct diag *diag);
/** How far back somebody may look in one go: the loop walks so many entries of an index. */
#define AUDIT_MAX_LAST 65536u
/** After which row the last rows begin; site "": of every site. -EINVAL: 0, or over AUDIT_MAX_LAST */
int state_audit_seek(struct state *state, const char *site, uint32_t last, uint64_t *ret_after);
/**
 * Hands at most max rows after that one to take(), as they are stored, checked by nobody; a row's
 * texts live as long as the call.
 *
 * @return how many
 */
typedef void state_audit_fn(void *data, const struct chain_row *row);
int state_audit_walk(struct state *state, const char *site, uint64_t after, uint32_t max,
	state_audit_fn *take, void *data);

#endif
