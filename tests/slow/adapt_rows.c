/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>
#include <sys/stat.h>

#include "adapt_rows.h"
#include "base/blob.h"
#include "base/cleanup.h"
#include "csv.h"

#define MAX_DETAIL_BYTES (64u << 20)

static const char head[] =
	"set,arm,resize,base,images,recipe,px,seed,learn,held,classes,steps,kept_step,knn,shot1,"
	"shot1_ci,shot5,shot5_ci,linear,ms,density,lowest_density,loss_ratio,seconds,bytes,flips,"
	"retrieval,margin,rank,base_retrieval,base_margin,base_rank,entropy,neighbours,passed,"
	"reasons\n";

static bool parse(struct adapt_row *row, char *line)
{
	char *reasons = strchr(line, '"'), *end = strrchr(line, '"');
	size_t n;

	*row = (struct adapt_row){ 0 };
	if (!reasons || end == reasons)
		return false;
	*reasons++ = 0;
	*end = 0;
	n = strlen(reasons);
	memcpy(row->reasons, reasons,
		(n < sizeof(row->reasons) ? n : sizeof(row->reasons) - 1) * sizeof(char));
	return sscanf(line,
		       "%47[^,],%15[^,],%7[^,],%16[^,],%16[^,],%16[^,],%" SCNu32 ",%" SCNu64
		       ",%" SCNu32 ",%" SCNu32 ",%" SCNu32 ",%" SCNu32 ",%" SCNu32
		       ",%lf,%lf,%lf,%lf,%lf,%lf,%lf,%lf,%lf,%lf,%lf,%" SCNu64 ",%" SCNu64
		       ",%lf,%lf,%lf,%lf,%lf,%lf,%lf,%lf,%d,",
		       row->set, row->arm, row->resize, row->base, row->images, row->recipe,
		       &row->px, &row->seed, &row->n_learn, &row->n_held, &row->n_classes,
		       &row->steps, &row->kept_step, &row->knn, &row->shot1, &row->shot1_ci,
		       &row->shot5, &row->shot5_ci, &row->linear, &row->ms, &row->density,
		       &row->lowest_density, &row->loss_ratio, &row->seconds, &row->n_bytes,
		       &row->n_flips, &row->retrieval, &row->margin, &row->rank,
		       &row->base_retrieval, &row->base_margin, &row->base_rank, &row->entropy,
		       &row->neighbours, &row->passed) == 35;
}

static int keep(struct adapt_rows *rows, const struct adapt_row *row)
{
	struct adapt_row *more = realloc(rows->rows, (rows->n + 1) * sizeof(*more));

	if (!more)
		return -ENOMEM;
	rows->rows = more;
	rows->rows[rows->n++] = *row;
	return 0;
}

int adapt_rows_open(struct adapt_rows *rows, const char *path)
{
	_cleanup_(fclosep) FILE *file = NULL;
	_cleanup_(freep) char *line = NULL;
	struct adapt_row row;
	size_t n_room = 0;
	int r = 0;

	*rows = (struct adapt_rows){ 0 };
	if (strlen(path) > 400)
		return -ENAMETOOLONG;
	(void)snprintf(rows->path, sizeof(rows->path), "%s", path);
	(void)snprintf(rows->dir, sizeof(rows->dir), "%s.d", path);
	r = csv_make_parents(path);
	if (r == 0)
		r = csv_check(path, head);
	if (r < 0)
		return r;
	if (mkdir(rows->dir, 0777) < 0 && errno != EEXIST)
		return -errno;
	file = fopen(path, "re");
	if (!file)
		return errno == ENOENT ? 0 : -errno;
	while (r == 0 && getline(&line, &n_room, file) > 0)
		if (parse(&row, line))
			r = keep(rows, &row);
	return r;
}

void adapt_rows_done(struct adapt_rows *rows)
{
	free(rows->rows);
	*rows = (struct adapt_rows){ 0 };
}

const struct adapt_row *adapt_rows_find(
	const struct adapt_rows *rows, const struct adapt_row *wanted)
{
	for (uint32_t i = rows->n; i-- > 0;) {
		const struct adapt_row *row = &rows->rows[i];

		if (strcmp(row->set, wanted->set) == 0 && strcmp(row->arm, wanted->arm) == 0 &&
			strcmp(row->resize, wanted->resize) == 0 &&
			strcmp(row->base, wanted->base) == 0 &&
			strcmp(row->images, wanted->images) == 0 &&
			strcmp(row->recipe, wanted->recipe) == 0 && row->px == wanted->px &&
			row->seed == wanted->seed)
			return row;
	}
	return NULL;
}

void adapt_rows_path(const struct adapt_rows *rows, const struct adapt_row *row, const char *suffix,
	char ret_path[1024])
{
	(void)snprintf(ret_path, 1024, "%s/%s-%s-%s-%s-%s-%s-%u-%" PRIu64 ".%s", rows->dir,
		row->set, row->base, row->images, row->arm, row->resize, row->recipe, row->px,
		row->seed, suffix);
}

static int append(const struct adapt_rows *rows, const struct adapt_row *row)
{
	char reasons[sizeof(row->reasons)], line[sizeof(row->reasons) + 1024];

	(void)snprintf(reasons, sizeof(reasons), "%s", row->reasons);
	for (char *c = strchr(reasons, '"'); c; c = strchr(c, '"'))
		*c = '\'';
	(void)snprintf(line, sizeof(line),
		"%s,%s,%s,%s,%s,%s,%" PRIu32 ",%" PRIu64 ",%" PRIu32 ",%" PRIu32 ",%" PRIu32
		",%" PRIu32 ",%" PRIu32
		",%.6f,%.6f,%.6f,%.6f,%.6f,%.6f,%.4f,%.7f,%.7f,%.5f,%.1f,%" PRIu64 ",%" PRIu64
		",%.5f,%.5f,%.3f,%.5f,%.5f,%.3f,%.4f,%.4f,%d,\"%s\"\n",
		row->set, row->arm, row->resize, row->base, row->images, row->recipe, row->px,
		row->seed, row->n_learn, row->n_held, row->n_classes, row->steps, row->kept_step,
		row->knn, row->shot1, row->shot1_ci, row->shot5, row->shot5_ci, row->linear,
		row->ms, row->density, row->lowest_density, row->loss_ratio, row->seconds,
		row->n_bytes, row->n_flips, row->retrieval, row->margin, row->rank,
		row->base_retrieval, row->base_margin, row->base_rank, row->entropy,
		row->neighbours, row->passed, reasons);
	return csv_append(rows->path, head, line);
}

/* Native order: read by the machine that wrote it. */
struct detail_head {
	uint32_t n, n_episodes;
};

static int write_detail(
	const struct adapt_rows *rows, const struct adapt_row *row, const struct adapt_detail *d)
{
	struct detail_head counts = { d->n, d->figures.n_episodes };
	size_t n_shots = counts.n_episodes * sizeof(double);
	size_t n_bytes = sizeof(counts) + 2 * (size_t)counts.n + 2 * n_shots;
	_cleanup_(freep) char *data = malloc(n_bytes);
	char path[1024], *at = data;

	if (!data)
		return -ENOMEM;
	memcpy(at, &counts, sizeof(counts));
	at += sizeof(counts);
	memcpy(at, d->figures.knn_right, counts.n);
	memcpy(at + counts.n, d->linear_right, counts.n);
	at += 2 * (size_t)counts.n;
	memcpy(at, d->figures.shot1, n_shots);
	memcpy(at + n_shots, d->figures.shot5, n_shots);
	adapt_rows_path(rows, row, "detail", path);
	return blob_write(AT_FDCWD, path, data, n_bytes);
}

/* Times as a reader of the file gets them: a table of one run and of the next are the same. */
static struct adapt_row as_read(const struct adapt_row *row)
{
	struct adapt_row read = *row;

	read.ms = round(row->ms * 1e4) / 1e4;
	read.seconds = round(row->seconds * 10) / 10;
	return read;
}

int adapt_rows_add(
	struct adapt_rows *rows, const struct adapt_row *row, const struct adapt_detail *detail)
{
	struct adapt_row read = as_read(row);
	int r = write_detail(rows, row, detail);

	if (r == 0)
		r = append(rows, &read);
	return r < 0 ? r : keep(rows, &read);
}

static int split(struct adapt_detail *detail, const char *data, size_t n_bytes)
{
	struct detail_head counts;
	size_t n_shots;

	if (n_bytes < sizeof(counts))
		return -EBADMSG;
	memcpy(&counts, data, sizeof(counts));
	n_shots = counts.n_episodes * sizeof(double);
	if (n_bytes != sizeof(counts) + 2 * (size_t)counts.n + 2 * n_shots)
		return -EBADMSG;
	detail->n = counts.n;
	detail->figures.n_episodes = counts.n_episodes;
	detail->figures.knn_right = malloc(counts.n + 1u);
	detail->linear_right = malloc(counts.n + 1u);
	detail->figures.shot1 = malloc(n_shots + 1);
	detail->figures.shot5 = malloc(n_shots + 1);
	if (!detail->figures.knn_right || !detail->linear_right || !detail->figures.shot1 ||
		!detail->figures.shot5)
		return -ENOMEM;
	data += sizeof(counts);
	memcpy(detail->figures.knn_right, data, counts.n);
	memcpy(detail->linear_right, data + counts.n, counts.n);
	data += 2 * (size_t)counts.n;
	memcpy(detail->figures.shot1, data, n_shots);
	memcpy(detail->figures.shot5, data + n_shots, n_shots);
	return 0;
}

int adapt_rows_detail(
	struct adapt_detail *ret_detail, const struct adapt_rows *rows, const struct adapt_row *row)
{
	struct adapt_detail detail = { 0 };
	_cleanup_(freep) void *data = NULL;
	char path[1024];
	size_t n_bytes;
	int r;

	adapt_rows_path(rows, row, "detail", path);
	r = blob_read(AT_FDCWD, path, MAX_DETAIL_BYTES, &data, &n_bytes);
	if (r == 0)
		r = split(&detail, data, n_bytes);
	if (r < 0) {
		adapt_detail_done(&detail);
		return r;
	}
	*ret_detail = detail;
	return 0;
}

void adapt_detail_done(struct adapt_detail *detail)
{
	figures_detail_done(&detail->figures);
	free(detail->linear_right);
	*detail = (struct adapt_detail){ 0 };
}
