/* SPDX-License-Identifier: Apache-2.0 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>

#include "ingest/spool.h"
#include "ingest/spool_move.h"
#include "ops/log.h"

enum {
	RESCAN_MS = 2000,
	QUIET_MS = 60000,  /* where inotify misses nothing: only a folder that was made anew */
	PAUSE_MS = 2000,   /* after serve could not take an image */
	BROKEN_MS = 30000, /* after a file could not be moved: do not read it over and over */
	MAX_NAMES = 4096,  /* of one walk */
	MAX_READING = 16,
	N_TROUBLES = 64,    /* files that are remembered for what the decoder did with them */
	MAX_DEATHS = 2,     /* of decoders, after which it is the file that is bad */
	MAX_SHORTAGES = 30, /* a minute of too little memory: it is the file that wants too much */
};

/* A file that the decoder has had trouble with, though it may be good. */
struct trouble {
	struct spool_identity identity; /* inode 0: free */
	unsigned n;
};

struct spool {
	struct ingest *ingest;
	struct ingest_site *site;
	struct spool_move move; /* dir_fd -1: the folder is not there */
	sd_event_source *inotify, *timer;
	char **names; /* of the last walk, sorted */
	size_t n_names, next_name;
	bool is_dirty; /* the folder may hold what the last walk has not seen */
	bool is_local; /* on a file system that has no writers but this machine's */
	bool is_quiet; /* the timer is set to QUIET_MS */
	bool is_missing_told;
	uint64_t paused_until_ns;
	unsigned n_reading;
	struct trouble troubles[N_TROUBLES];
	unsigned next_trouble; /* to be overwritten */
};

/* A job's file. */
struct spool_file {
	struct spool_read read;
	struct arrival *job;
	char printable[256];
};

static bool ends_with(const char *name, const char *ending)
{
	size_t n = strlen(name), n_ending = strlen(ending);

	return n >= n_ending && strcmp(name + n - n_ending, ending) == 0;
}

static bool is_temporary(const char *name)
{
	return name[0] == '.' || name[0] == '_' || ends_with(name, ".tmp") ||
	       ends_with(name, ".part") || strlen(name) >= sizeof(((struct spool_read *)0)->name);
}

static bool is_in_flight(const struct spool *spool, const char *name)
{
	const struct arrival *job;

	TAILQ_FOREACH(job, &spool->ingest->jobs, link)
	if (job->source == ARRIVAL_SPOOL && job->site == spool->site &&
		strcmp(((struct spool_file *)job->source_data)->read.name, name) == 0)
		return true;
	return false;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static void forget_names(struct spool *spool)
{
	for (size_t i = 0; i < spool->n_names; i++)
		free(spool->names[i]);
	spool->n_names = spool->next_name = 0;
}

static DIR *open_again(int dir_fd)
{
	int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);

	if (!dir)
		closep(&fd);
	return dir;
}

/* Some file systems do not say in the entry what it is. */
static bool is_folder(DIR *dir, const struct dirent *entry)
{
	struct stat st;

	if (entry->d_type != DT_UNKNOWN)
		return entry->d_type == DT_DIR;
	return fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
	       S_ISDIR(st.st_mode);
}

static void walk(struct spool *spool)
{
	_cleanup_(closedirp) DIR *dir = open_again(spool->move.dir_fd);
	struct dirent *entry;

	forget_names(spool);
	spool->is_dirty = !dir;
	while (dir && (entry = readdir(dir))) {
		if (is_temporary(entry->d_name) || is_folder(dir, entry))
			continue;
		if (spool->n_names == MAX_NAMES) {
			spool->is_dirty = true;
			break;
		}
		spool->names[spool->n_names] = strdup(entry->d_name);
		if (!spool->names[spool->n_names]) {
			spool->is_dirty = true; /* the next scan finds it */
			break;
		}
		spool->n_names++;
	}
	qsort(spool->names, spool->n_names, sizeof(*spool->names), by_name);
}

static void make_printable(char *ret_text, const char *name)
{
	size_t i = 0;

	for (; name[i]; i++)
		ret_text[i] = isascii((unsigned char)name[i]) && isprint((unsigned char)name[i])
				      ? name[i]
				      : '?';
	ret_text[i] = 0;
}

static int start_read(struct spool *spool, const char *name)
{
	struct ingest *ingest = spool->ingest;
	struct spool_file *file = calloc(1, sizeof(*file));
	int r;

	if (!file)
		return -ENOMEM;
	r = arrival_new(
		&file->job, ingest, spool->site, ARRIVAL_SPOOL, ingest->config->ingest_max_bytes);
	if (r < 0) {
		free(file);
		return r;
	}
	file->job->source_data = file;
	file->read.dir_fd = spool->move.dir_fd;
	(void)snprintf(file->read.name, sizeof(file->read.name), "%s", name);
	make_printable(file->printable, file->read.name);
	(void)snprintf(file->job->part_id, sizeof(file->job->part_id), "%.63s", file->printable);
	file->read.max_bytes = ingest->config->ingest_max_bytes;
	file->read.settle_ms = spool->site->settle_ms;
	file->read.user = file;
	r = ingest->reader->submit(ingest->reader, &file->read);
	if (r < 0) {
		arrival_free(file->job);
		free(file);
		return r;
	}
	spool->n_reading++;
	return 0;
}

void spool_pump(struct spool *spool)
{
	struct ingest *ingest = spool->ingest;
	bool has_walked = false;

	if (spool->move.dir_fd < 0 || clock_now_ns() < spool->paused_until_ns)
		return;
	while (spool->n_reading < MAX_READING &&
		ingest_has_room(ingest, ingest->config->ingest_max_bytes)) {
		if (spool->next_name == spool->n_names) {
			if (!spool->is_dirty || has_walked)
				break;
			walk(spool);
			has_walked = true;
			continue;
		}
		if (!is_in_flight(spool, spool->names[spool->next_name]) &&
			start_read(spool, spool->names[spool->next_name]) < 0)
			break;
		spool->next_name++;
	}
	if (ingest->reader->flush(ingest->reader) < 0)
		log_error("site %s: the spool's reader does not take requests", spool->site->name);
}

static bool is_transient(int code)
{
	return code == -EAGAIN || code == -EMFILE || code == -ENFILE || code == -ENOMEM ||
	       code == -EIO || code == -EBUSY || code == -EINTR || code == -ENOSPC ||
	       code == -ESTALE || code == -ETIMEDOUT;
}

static struct trouble *find_trouble(struct spool *spool, const struct spool_identity *identity)
{
	for (unsigned i = 0; i < N_TROUBLES; i++) {
		const struct spool_identity *other = &spool->troubles[i].identity;

		if (other->inode == identity->inode && other->size == identity->size &&
			other->mtime_s == identity->mtime_s &&
			other->mtime_ns == identity->mtime_ns)
			return &spool->troubles[i];
	}
	return NULL;
}

bool spool_retry(struct arrival *job, int code, const char *reason)
{
	const struct spool_file *file = job->source_data;
	struct spool *spool = job->site->spool;
	bool has_died = code == -EFAULT || code == -ETIMEDOUT;
	struct trouble *trouble;

	if (!has_died && !is_transient(code))
		return false;
	trouble = find_trouble(spool, &file->read.identity);
	if (!trouble) {
		trouble = &spool->troubles[spool->next_trouble++ % N_TROUBLES];
		*trouble = (struct trouble){ .identity = file->read.identity };
	}
	if (++trouble->n >= (has_died ? MAX_DEATHS : MAX_SHORTAGES)) {
		*trouble = (struct trouble){ 0 };
		return false;
	}
	spool_end(job, has_died ? SPOOL_NEXT_SCAN : SPOOL_AGAIN, reason);
	return true;
}

void spool_read_done(struct spool_read *read)
{
	struct spool_file *file = read->user;
	struct arrival *job = file->job;
	struct spool *spool = job->site->spool;

	spool->n_reading--;
	if (read->code == 0) {
		job->n_bytes = read->bytes.n_bytes;
		job->fd = TAKE_FD(read->bytes.fd);
		memfile_done(&read->bytes);
		arrival_reserve(job, job->n_bytes);
		admission_take(job);
		return;
	}
	if (is_transient(read->code) || read->code == -ENOENT) {
		free(file);
		arrival_free(job);
		return;
	}
	admission_refuse(
		job, read->code, read->reason.text[0] ? read->reason.text : strerror(-read->code));
}

static void move_failed(struct spool *spool, const struct spool_file *file, int r)
{
	log_error("site %s: %s cannot be moved out of the spool: %s; it stays closed for %d s",
		spool->site->name, file->printable, strerror(-r), BROKEN_MS / 1000);
	spool->paused_until_ns = clock_now_ns() + BROKEN_MS * NS_PER_MS;
}

void spool_end(struct arrival *job, enum spool_end end, const char *reason)
{
	struct spool *spool = job->site->spool;
	struct spool_file *file = job->source_data;
	int r = 0;

	if (end == SPOOL_AGAIN || end == SPOOL_NEXT_SCAN) {
		log_warning("site %s: %s stays in the spool: %s", spool->site->name,
			file->printable, reason ? reason : "not taken");
		if (end == SPOOL_AGAIN)
			spool->paused_until_ns = clock_now_ns() + PAUSE_MS * NS_PER_MS;
	} else {
		r = spool_move_file(&spool->move, file->read.name, &file->read.identity,
			end == SPOOL_DONE ? NULL : reason);
	}
	/* Gone, or another file by now, which the next scan reads. */
	if (r < 0 && r != -ENOENT && r != -ESTALE)
		move_failed(spool, file, r);
	job->source_data = NULL;
	free(file);
}

const char *spool_arrival_name(const struct arrival *job)
{
	return ((const struct spool_file *)job->source_data)->printable;
}

/* FUSE, 9P and network mounts change behind inotify's back. */
static bool is_local(int dir_fd)
{
	static const unsigned long known[] = { EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC, BTRFS_SUPER_MAGIC,
		F2FS_SUPER_MAGIC, TMPFS_MAGIC, OVERLAYFS_SUPER_MAGIC };
	struct statfs fs;

	if (fstatfs(dir_fd, &fs) < 0)
		return false;
	for (unsigned i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if ((unsigned long)fs.f_type == known[i])
			return true;
	return false;
}

static void arm(struct spool *spool, bool is_quiet)
{
	uint32_t settle_ms = spool->site->settle_ms;
	uint32_t ms = is_quiet                                 ? QUIET_MS
		      : settle_ms > 0 && settle_ms < RESCAN_MS ? settle_ms
							       : RESCAN_MS;

	spool->is_quiet = is_quiet;
	(void)sd_event_source_set_time_relative(spool->timer, (uint64_t)ms * 1000);
	(void)sd_event_source_set_enabled(spool->timer, SD_EVENT_ONESHOT);
}

static int on_inotify(sd_event_source *source, const struct inotify_event *event, void *user)
{
	struct spool *spool = user;

	(void)source;
	/* An overflow has no name: then anything may have come. */
	if (event->len > 0 && is_temporary(event->name))
		return 0;
	spool->is_dirty = true;
	/* What stays in the folder, for whatever reason, is looked at again soon. */
	if (spool->is_quiet)
		arm(spool, false);
	ingest_kick(spool->ingest);
	return 0;
}

static void open_folder(struct spool *spool)
{
	const char *path = spool->site->spool_path;
	int r = spool_move_open(&spool->move, path);

	if (r == 0) {
		r = sd_event_add_inotify_fd(spool->ingest->event, &spool->inotify,
			spool->move.dir_fd, IN_MOVED_TO | IN_CLOSE_WRITE | IN_ONLYDIR, on_inotify,
			spool);
		spool->is_local = r == 0 && is_local(spool->move.dir_fd);
		/* Without it there is still the scan. */
		if (r < 0)
			log_warning("site %s: spool %s is not watched, only scanned: %s",
				spool->site->name, path, strerror(-r));
		spool->is_dirty = true;
		spool->is_missing_told = false;
		return;
	}
	if (!spool->is_missing_told)
		log_error("site %s: spool %s cannot be used: %s", spool->site->name, path,
			strerror(-r));
	spool->is_missing_told = true;
}

static void close_folder(struct spool *spool)
{
	spool->inotify = sd_event_source_disable_unref(spool->inotify);
	spool_move_close(&spool->move);
}

static int on_timer(sd_event_source *source, uint64_t usec, void *user)
{
	struct spool *spool = user;
	/* The last walk came to its end and found nothing. */
	const bool is_empty = !spool->is_dirty && spool->n_names == 0 && spool->n_reading == 0;
	struct stat st;

	(void)source;
	(void)usec;
	/* The folder may have been deleted and made anew; reads still hold the old one. */
	if (spool->move.dir_fd >= 0 && spool->n_reading == 0 &&
		(stat(spool->site->spool_path, &st) < 0 || !spool_move_is(&spool->move, &st)))
		close_folder(spool);
	if (spool->move.dir_fd < 0)
		open_folder(spool);
	spool->is_dirty = true;
	arm(spool, is_empty && spool->move.dir_fd >= 0 && spool->is_local);
	ingest_kick(spool->ingest);
	return 0;
}

int spool_new(struct spool **ret_spool, struct ingest *ingest, struct ingest_site *site)
{
	struct spool *spool = calloc(1, sizeof(*spool));
	int r;

	if (!spool)
		return -ENOMEM;
	spool->ingest = ingest;
	spool->site = site;
	spool->move = (struct spool_move){ -1, -1, -1 };
	spool->names = calloc(MAX_NAMES, sizeof(*spool->names));
	r = !spool->names ? -ENOMEM
			  : sd_event_add_time(ingest->event, &spool->timer, CLOCK_MONOTONIC, 0, 0,
				    on_timer, spool);
	if (r < 0) {
		spool_free(spool);
		return r;
	}
	open_folder(spool);
	arm(spool, false);
	ingest_kick(ingest);
	*ret_spool = spool;
	return 0;
}

void spool_free(struct spool *spool)
{
	if (!spool)
		return;
	close_folder(spool);
	(void)sd_event_source_disable_unref(spool->timer);
	forget_names(spool);
	free(spool->names);
	free(spool);
}
