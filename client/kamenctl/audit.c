/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "audit_chain.h"
#include "cleanup.h"
#include "control.h"
#include "ctl.h"
#include "output.h"

#define DEFAULT_LAST 50
#define MAX_LINE 65536

/* What is done with each row; an exit status other than EXIT_DONE ends the walk. */
typedef int row_fn(void *data, const Kamen__Reply *reply);

/* One request. ret_seq: of the last row that came; unchanged where none did. */
static int page(struct control *control, Kamen__AuditShow *show, row_fn *take, void *data,
	uint64_t *ret_seq)
{
	Kamen__Request request = KAMEN__REQUEST__INIT;
	const Kamen__Reply *reply = NULL;
	int status;

	request.verb_case = KAMEN__REQUEST__VERB_AUDIT_SHOW;
	request.audit_show = show;
	status = control_send(control, &request, -1);
	while (status == EXIT_DONE) {
		status = control_next(control, false, &reply);
		if (status != EXIT_DONE || !reply)
			break;
		if (reply->row_case != KAMEN__REPLY__ROW_AUDIT)
			continue;
		*ret_seq = reply->audit->seq;
		status = take(data, reply);
	}
	return status;
}

/* Page by page, until one has no rows. last 0: all of them. */
static int walk(struct ctl *ctl, const char *site, uint32_t last, row_fn *take, void *data)
{
	_cleanup_(control_freep) struct control *control = NULL;
	Kamen__AuditShow show = KAMEN__AUDIT_SHOW__INIT;
	uint64_t seq = 0;
	int status = control_open(ctl, &control);

	show.site = (char *)(uintptr_t)site;
	show.has_last = last > 0;
	show.last = last;
	do {
		show.after = seq;
		if (status == EXIT_DONE)
			status = page(control, &show, take, data, &seq);
		show.has_last = false;
		show.has_after = true;
	} while (status == EXIT_DONE && seq > show.after);
	return status;
}

/* ---- show, export */

static void person_print(const Kamen__AuditRow *row)
{
	time_t seconds = (time_t)(row->time_us / 1000000);
	char when[32] = "?";
	struct tm tm;

	if (gmtime_r(&seconds, &tm))
		(void)strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%SZ", &tm);
	(void)printf(
		"%" PRIu64 " %s %s %s ", row->seq, when, *row->site ? row->site : "-", row->what);
	/* Reasons are lines; here a row is one. */
	for (const char *p = row->detail; *p; p++)
		(void)(*p == '\n' ? fputs("; ", stdout) : putchar(*p));
	(void)putchar('\n');
}

static int row_show(void *data, const Kamen__Reply *reply)
{
	const struct ctl *ctl = data;

	if (ctl->json)
		return output_reply(ctl, reply, false);
	person_print(reply->audit);
	return EXIT_DONE;
}

int audit_show_run(struct ctl *ctl, int argc, char **argv)
{
	const char *site = NULL, *last = NULL;
	const struct option_spec specs[] = {
		{ "site", "SITE", "rows of this site only", &site, NULL },
		{ "last", "N", "the last N rows, default 50; 0: all", &last, NULL },
	};
	unsigned long long n = DEFAULT_LAST;
	int first, status;

	if (!options_parse(ctl, argc, argv, specs, 2, 0, 0, &first, &status))
		return status;
	if (last && !number_parse(last, UINT32_MAX, &n))
		return ctl_fail(ctl, EXIT_USAGE, "--last %s: not a number", last);
	return walk(ctl, site, (uint32_t)n, row_show, ctl);
}

int audit_export_run(struct ctl *ctl, int argc, char **argv)
{
	int first, status;

	if (!options_parse(ctl, argc, argv, NULL, 0, 0, 0, &first, &status))
		return status;
	ctl->json = true;
	return walk(ctl, NULL, 0, row_show, ctl);
}

/* ---- verify */

struct verification {
	const struct ctl *ctl;
	struct audit_chain chain;
};

static int row_verify(void *data, const Kamen__Reply *reply)
{
	struct verification *verification = data;
	const Kamen__AuditRow *row = reply->audit;
	struct audit_text text = { row->seq, row->time_us, row->site, row->what, row->detail, NULL,
		NULL };
	char prev[AUDIT_HEX_CHARS + 1], hash[AUDIT_HEX_CHARS + 1], why[512];

	audit_hex(row->prev.data, row->prev.len, prev);
	audit_hex(row->hash.data, row->hash.len, hash);
	text.prev = prev;
	text.hash = hash;
	if (audit_chain_step(&verification->chain, &text, why, sizeof(why)) < 0)
		return ctl_fail(verification->ctl, EXIT_FAILED, "%s", why);
	return EXIT_DONE;
}

static int line_verify(struct verification *verification, const char *path, const char *line)
{
	_cleanup_(json_decrefp) json_t *row = json_loads(line, 0, NULL);
	struct audit_text text = { 0 };
	json_int_t seq, time_us;
	char why[512];

	if (!row || json_unpack(row, "{s:I, s:I, s:s, s:s, s:s, s:s, s:s}", "seq", &seq, "time_us",
			    &time_us, "site", &text.site, "what", &text.what, "detail",
			    &text.detail, "prev", &text.prev, "hash", &text.hash) < 0)
		return ctl_fail(verification->ctl, EXIT_FAILED,
			"%s: what follows row %" PRIu64 " is no row of an audit", path,
			verification->chain.n);
	text.seq = (uint64_t)seq;
	text.time_us = (uint64_t)time_us;
	if (audit_chain_step(&verification->chain, &text, why, sizeof(why)) < 0)
		return ctl_fail(verification->ctl, EXIT_FAILED, "%s: %s", path, why);
	return EXIT_DONE;
}

static int file_verify(struct verification *verification, const char *path)
{
	_cleanup_(fclosep) FILE *file = fopen(path, "re");
	_cleanup_(freep) char *line = malloc(MAX_LINE);
	int status = EXIT_DONE;

	if (!file || !line)
		return ctl_fail(verification->ctl, EXIT_FAILED, "%s: %s", path, strerror(errno));
	while (status == EXIT_DONE && fgets(line, MAX_LINE, file))
		status = line_verify(verification, path, line);
	if (status == EXIT_DONE && ferror(file))
		status = ctl_fail(verification->ctl, EXIT_FAILED, "%s: cannot be read", path);
	return status;
}

int audit_verify_run(struct ctl *ctl, int argc, char **argv)
{
	const char *head = NULL, *path = NULL;
	const struct option_spec specs[] = {
		{ "head", "HASH", "which a row of the chain must have, from the journal", &head,
			NULL },
		{ "file", "FILE", "what export wrote, without a daemon", &path, NULL },
	};
	struct verification verification = { .ctl = ctl };
	char hex[AUDIT_HEX_CHARS + 1];
	int first, status;

	if (!options_parse(ctl, argc, argv, specs, 2, 0, 0, &first, &status))
		return status;
	if (head && audit_chain_expect(&verification.chain, head) < 0)
		return ctl_fail(ctl, EXIT_USAGE, "--head %s: not 64 hexadecimal digits", head);
	status = path ? file_verify(&verification, path)
		      : walk(ctl, NULL, 0, row_verify, &verification);
	if (status != EXIT_DONE)
		return status;
	if (head && !verification.chain.found)
		return ctl_fail(ctl, EXIT_FAILED,
			"audit head %s is in none of the %" PRIu64
			" rows: the chain was cut or replaced",
			head, verification.chain.n);
	audit_hex(verification.chain.head, sizeof(verification.chain.head), hex);
	return output_row(ctl,
		json_pack("{s:b, s:I, s:s, s:o}", "intact", 1, "rows",
			(json_int_t)verification.chain.n, "head", hex, "found_at",
			head ? json_integer((json_int_t)verification.chain.found) : json_null()),
		true);
}
