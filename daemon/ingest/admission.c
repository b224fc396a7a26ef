/* SPDX-License-Identifier: Apache-2.0 */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "ingest/admission.h"
#include "ingest/kimg.h"
#include "ingest/memfile.h"
#include "ingest/spool.h"
#include "ops/log.h"

static const char *const source_names[] = { "spool", "zmq", "push", "infer" };

#define OWN_ID (UINT64_C(1) << 63)
/* Since its last image a sender counts as there. */
#define ABOUT_NS (100 * NS_PER_MS)

static bool is_own(const struct arrival *job)
{
	return job->source == ARRIVAL_SPOOL || job->source == ARRIVAL_ZMQ;
}

int arrival_new(struct arrival **ret_job, struct ingest *ingest, struct ingest_site *site,
	enum arrival_source source, uint64_t n_reserved)
{
	struct arrival *job = calloc(1, sizeof(*job));

	if (!job)
		return -ENOMEM;
	job->ingest = ingest;
	job->site = site;
	job->source = source;
	job->fd = -1;
	if (site)
		site->n_jobs++;
	if (is_own(job)) {
		job->id = OWN_ID | ++ingest->n_ids;
		job->n_reserved = n_reserved;
		ingest->n_jobs++;
		ingest->n_bytes += n_reserved;
	} else {
		ingest->n_asked++;
	}
	TAILQ_INSERT_TAIL(&ingest->jobs, job, link);
	*ret_job = job;
	return 0;
}

void arrival_reserve(struct arrival *job, uint64_t n_bytes)
{
	job->ingest->n_bytes += n_bytes - job->n_reserved;
	job->n_reserved = n_bytes;
}

void arrival_free(struct arrival *job)
{
	struct ingest *ingest = job->ingest;

	TAILQ_REMOVE(&ingest->jobs, job, link);
	if (is_own(job)) {
		ingest->n_jobs--;
		ingest->n_bytes -= job->n_reserved;
	} else {
		ingest->n_asked--;
	}
	closep(&job->fd);
	if (job->site) {
		job->site->n_jobs--;
		ingest_site_unref(job->site);
	}
	free(job);
	ingest_kick(ingest);
}

static void send_decoded(struct arrival *job, const struct decode_result *result)
{
	Kamen__RoleMessage message = KAMEN__ROLE_MESSAGE__INIT;
	Kamen__Decoded decoded = KAMEN__DECODED__INIT;

	decoded.id = job->id;
	decoded.code = result->code;
	if (result->code < 0) {
		decoded.reason = (char *)(uintptr_t)result->reason;
	} else {
		decoded.has_width = decoded.has_height = decoded.has_n_channels = true;
		decoded.width = result->width;
		decoded.height = result->height;
		decoded.n_channels = result->n_channels;
	}
	message.kind_case = KAMEN__ROLE_MESSAGE__KIND_DECODED;
	message.decoded = &decoded;
	if (outbox_put(job->ingest->outbox, &message, result->fd) < 0)
		log_error("no memory to answer job %llu", (unsigned long long)job->id);
}

void admission_refuse(struct arrival *job, int code, const char *reason)
{
	struct ingest *ingest = job->ingest;

	if (job->source == ARRIVAL_INFER) {
		struct decode_result result = { .code = code, .fd = -1 };

		(void)snprintf(result.reason, sizeof(result.reason), "%s", reason);
		send_decoded(job, &result);
	} else {
		(void)outbox_put_refused(ingest->outbox, job->site ? job->site->name : "",
			source_names[job->source],
			job->source == ARRIVAL_SPOOL ? spool_arrival_name(job) : job->part_id,
			reason, is_own(job) ? 0 : job->id);
	}
	if (job->source == ARRIVAL_SPOOL)
		spool_end(job, SPOOL_BAD, reason);
	arrival_free(job);
}

/* We are at fault; a file can wait, others are told. */
static void fail(struct arrival *job, const char *what, int code)
{
	log_error("site %s: %s: %s", job->site ? job->site->name : "(none)", what, strerror(-code));
	if (job->source == ARRIVAL_SPOOL) {
		spool_end(job, SPOOL_AGAIN, what);
		arrival_free(job);
		return;
	}
	admission_refuse(job, code, what);
}

/* The content as it came: a raw frame's bytes mean nothing without its size. */
static int hash_content(struct arrival *job)
{
	enum { CHUNK = 64 << 10 };
	_cleanup_(freep) uint8_t *chunk = malloc(CHUNK);
	struct digest_state state;

	if (!chunk)
		return -ENOMEM;
	digest_init(&state);
	if (job->format != DECODE_ENCODED) {
		uint32_t size[4] = { htole32(job->format), htole32(job->width),
			htole32(job->height), htole32(job->stride) };

		digest_update(&state, size, sizeof(size));
	}
	for (uint64_t n_done = 0; n_done < job->n_bytes;) {
		uint64_t n_left = job->n_bytes - n_done;
		ssize_t n = pread(job->fd, chunk, n_left < CHUNK ? n_left : CHUNK, (off_t)n_done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EBADMSG;
		digest_update(&state, chunk, (size_t)n);
		n_done += (uint64_t)n;
	}
	job->hash = digest_final(&state);
	return 0;
}

/* Behind the sender's own that wait; a new sender's first is as early as anybody's next. */
static uint64_t turn_of(const struct arrival *job)
{
	const struct arrival *other;
	uint64_t turn = job->ingest->turn;

	TAILQ_FOREACH(other, &job->ingest->jobs, link)
	if (other->state == ARRIVAL_WAITING && other->turn > turn &&
		strcmp(other->sender, job->sender) == 0)
		turn = other->turn;
	return turn + 1;
}

static struct arrival *job_of(struct errand *errand)
{
	return (struct arrival *)((char *)errand - offsetof(struct arrival, errand));
}

static void await_decoder(struct arrival *job)
{
	job->turn = turn_of(job);
	job->state = ARRIVAL_WAITING;
	ingest_kick(job->ingest);
}

static bool hash(struct errand *errand)
{
	struct arrival *job = job_of(errand);

	job->r = hash_content(job);
	return false;
}

static void on_hashed(struct errand *errand)
{
	struct arrival *job = job_of(errand);

	if (job->r < 0)
		fail(job, "the bytes cannot be read", job->r);
	else
		await_decoder(job);
}

void admission_take(struct arrival *job)
{
	if (job->source == ARRIVAL_INFER) {
		await_decoder(job);
		return;
	}
	job->errand = (struct errand){ .run = hash, .done = on_hashed };
	hand_give(job->ingest->hand, &job->errand);
}

/* One of a kind, so that a duplicate never takes the place of a blob that has its row. */
static void name_blob(struct arrival *job)
{
	char hex[DIGEST_HEX_CHARS + 1];

	digest_to_hex(&job->hash, hex);
	(void)snprintf(job->blob, sizeof(job->blob), "%.16s-%llx-%llx.kimg", hex,
		(unsigned long long)clock_wall_us(), (unsigned long long)++job->ingest->n_blobs);
}

static int blob_path(const struct arrival *job, char *path, size_t n_bytes)
{
	int n = snprintf(path, n_bytes, "%s/%s", job->site->replay, job->blob);

	return n < 0 || (size_t)n >= n_bytes ? -ENAMETOOLONG : 0;
}

static int write_blob(struct arrival *job)
{
	const struct decode_result *result = &job->decoded;
	size_t n_pixels = (size_t)result->width * result->height * result->n_channels;
	_cleanup_(image_freep) struct image *image = NULL;
	_cleanup_(freep) void *data = NULL;
	struct image_view view;
	char path[700];
	int r;

	r = image_new(&image, result->width, result->height, result->n_channels);
	if (r < 0)
		return r;
	r = memfile_read(result->fd, image->pixels, n_pixels);
	if (r < 0)
		return r;
	view = image_view(image);
	r = kimg_encode(&view, &data, &job->n_blob);
	if (r < 0)
		return r;
	r = blob_path(job, path, sizeof(path));
	return r < 0 ? r : blob_write(AT_FDCWD, path, data, job->n_blob);
}

static void drop_blob(const struct arrival *job)
{
	char path[700];

	if (blob_path(job, path, sizeof(path)) == 0)
		(void)unlink(path);
}

static int ask_admission(struct arrival *job)
{
	const struct decode_result *result = &job->decoded;
	Kamen__RoleMessage message = KAMEN__ROLE_MESSAGE__INIT;
	Kamen__Admit admit = KAMEN__ADMIT__INIT;

	admit.id = job->id;
	admit.site = job->site->name;
	admit.hash = (ProtobufCBinaryData){ DIGEST_BYTES, job->hash.bytes };
	admit.blob = job->blob;
	admit.n_bytes = job->n_blob;
	admit.width = result->width;
	admit.height = result->height;
	admit.n_channels = result->n_channels;
	admit.source = (char *)(uintptr_t)source_names[job->source];
	admit.sender = job->sender[0] ? job->sender : NULL;
	admit.part_id = job->part_id[0] ? job->part_id : NULL;
	admit.has_capture_us = job->capture_us != 0;
	admit.capture_us = job->capture_us;
	message.kind_case = KAMEN__ROLE_MESSAGE__KIND_ADMIT;
	message.admit = &admit;
	return outbox_put(job->ingest->outbox, &message, -1);
}

static bool write_decoded(struct errand *errand)
{
	struct arrival *job = job_of(errand);

	job->r = write_blob(job);
	closep(&job->decoded.fd);
	job->decoded.fd = -1;
	return false;
}

static void on_written(struct errand *errand)
{
	struct arrival *job = job_of(errand);
	int r = job->r;

	if (r < 0) {
		fail(job, "the image cannot be stored", r);
		return;
	}
	job->state = ARRIVAL_ADMITTING;
	r = ask_admission(job);
	if (r < 0) {
		drop_blob(job);
		fail(job, "the image cannot be admitted", r);
	}
}

/* Takes the descriptor. */
static void admit(struct arrival *job, const struct decode_result *result)
{
	/* The bytes as they came are not needed any more, and may be large. */
	closep(&job->fd);
	job->fd = -1;
	if (is_own(job))
		arrival_reserve(job, 0);
	name_blob(job);
	job->decoded = *result;
	job->state = ARRIVAL_WRITING;
	job->errand = (struct errand){ .run = write_decoded, .done = on_written };
	hand_give(job->ingest->hand, &job->errand);
}

static void on_decoded(void *user, const struct decode_result *result)
{
	struct arrival *job = user;
	int fd = result->fd;

	ingest_kick(job->ingest); /* a worker is free */
	if (job->source == ARRIVAL_INFER) {
		send_decoded(job, result); /* takes the descriptor */
		arrival_free(job);
		return;
	}
	if (result->code < 0 && job->source == ARRIVAL_SPOOL &&
		spool_retry(job, result->code, result->reason))
		arrival_free(job);
	else if (result->code < 0)
		admission_refuse(job, result->code, result->reason);
	else {
		admit(job, result);
		fd = -1;
	}
	closep(&fd);
}

static bool is_before(const struct arrival *a, const struct arrival *b)
{
	static const unsigned ranks[] = {
		[ARRIVAL_INFER] = 0, [ARRIVAL_PUSH] = 1, [ARRIVAL_SPOOL] = 2, [ARRIVAL_ZMQ] = 2
	};

	return ranks[a->source] != ranks[b->source] ? ranks[a->source] < ranks[b->source]
						    : a->turn < b->turn;
}

/* Whether another sender than that has had a decoder lately. */
static bool has_company(const struct ingest *ingest, const char *sender, uint64_t now)
{
	bool is_last = strcmp(ingest->last_sender, sender) == 0;
	uint64_t others_ns = is_last ? ingest->other_ns : ingest->last_ns;

	return others_ns > 0 && now - others_ns < ABOUT_NS;
}

static void note_sender(struct ingest *ingest, const char *sender, uint64_t now)
{
	if (strcmp(ingest->last_sender, sender) != 0) {
		ingest->other_ns = ingest->last_ns;
		(void)snprintf(ingest->last_sender, sizeof(ingest->last_sender), "%s", sender);
	}
	ingest->last_ns = now;
}

/*
 * Nobody has all decoders: whoever asks next finds one that is idle, or is about to be. While others
 * are about nobody has more than one: two take the CPUs from what the others' answers need.
 */
static bool has_its_share(const struct arrival *job, uint64_t now)
{
	unsigned n = 0,
		 share = has_company(job->ingest, job->sender, now) ? 1 : DECODER_N_WORKERS - 1;
	const struct arrival *other;

	TAILQ_FOREACH(other, &job->ingest->jobs, link)
	n += other->state == ARRIVAL_DECODING && strcmp(other->sender, job->sender) == 0;
	return n >= share;
}

static struct arrival *next_waiting(struct ingest *ingest)
{
	struct arrival *job, *first = NULL;
	uint64_t now = clock_now_ns();

	TAILQ_FOREACH(job, &ingest->jobs, link)
	if (job->state == ARRIVAL_WAITING && (!first || is_before(job, first)) &&
		!has_its_share(job, now))
		first = job;
	return first;
}

static int submit(struct arrival *job)
{
	struct decode_request request = { .fd = job->fd,
		.format = job->format,
		.n_bytes = job->n_bytes,
		.width = job->width,
		.height = job->height,
		.stride = job->stride,
		.shorter_px = job->source == ARRIVAL_INFER ? 0 : job->site->shorter_px };

	return decoder_decode(job->ingest->decoder, &request, on_decoded, job);
}

void admission_feed(struct ingest *ingest)
{
	struct arrival *job;

	while (decoder_is_ready(ingest->decoder) && (job = next_waiting(ingest))) {
		int r = submit(job);

		if (r == -EBUSY || r == -EAGAIN)
			return;
		if (r < 0)
			fail(job, "the decoder does not take it", r);
		else {
			ingest->turn = job->turn;
			note_sender(ingest, job->sender, clock_now_ns());
			job->state = ARRIVAL_DECODING;
		}
	}
}

void admission_reply(struct ingest *ingest, const Kamen__AdmitReply *reply)
{
	struct arrival *job;

	TAILQ_FOREACH(job, &ingest->jobs, link)
	if (job->id == reply->id && job->state == ARRIVAL_ADMITTING)
		break;
	if (!job) {
		log_warning("an answer to job %llu, which is not waiting for one",
			(unsigned long long)reply->id);
		return;
	}
	if (reply->outcome != KAMEN__OUTCOME__ACCEPTED)
		drop_blob(job);
	if (job->source == ARRIVAL_SPOOL)
		spool_end(job,
			reply->outcome == KAMEN__OUTCOME__REJECTED ? SPOOL_AGAIN : SPOOL_DONE,
			reply->reason);
	arrival_free(job);
}

/* Raw pixels of serve's are dense. */
static const char *check_ask(const struct arrival *job, uint64_t n_here)
{
	uint64_t n_channels = decode_n_channels(job->format);

	if (job->n_bytes == 0 || n_here < job->n_bytes)
		return "the bytes are not there";
	if (job->format > DECODE_BGR8)
		return "no such pixel format";
	if (job->format == DECODE_ENCODED)
		return job->n_bytes > job->ingest->config->ingest_max_bytes ? "file too large"
									    : NULL;
	if (job->width == 0 || job->width > IMAGE_MAX_SIDE || job->height == 0 ||
		job->height > IMAGE_MAX_SIDE ||
		(uint64_t)job->width * job->height * n_channels != job->n_bytes)
		return "the size is not that of the pixels";
	return NULL;
}

void admission_ask(struct ingest *ingest, const Kamen__DecodeJob *ask, int fd)
{
	struct ingest_site *site = ingest_find_site(ingest, ask->site);
	struct stat st = { 0 };
	const char *reason;
	struct arrival *job;

	if (arrival_new(&job, ingest, site, ask->push ? ARRIVAL_PUSH : ARRIVAL_INFER, 0) < 0) {
		log_error("no memory for job %llu", (unsigned long long)ask->id);
		closep(&fd);
		return;
	}
	job->id = ask->id;
	job->fd = fd;
	job->n_bytes = ask->n_bytes;
	job->format = (uint32_t)ask->format;
	job->width = ask->width;
	job->height = ask->height;
	job->stride = job->width * decode_n_channels(job->format);
	(void)snprintf(job->sender, sizeof(job->sender), "%s", ask->sender ? ask->sender : "");
	reason = ingest->n_asked > INGEST_MAX_ASKED ? "too many at once"
		 : fd < 0 || fstat(fd, &st) < 0     ? "no descriptor"
		 : ask->push && !site               ? "no such site"
						    : check_ask(job, (uint64_t)st.st_size);
	if (reason)
		admission_refuse(job, -EINVAL, reason);
	else
		admission_take(job);
}
