/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <zmq.h>
#include <cmocka.h>

#include "base/blob.h"
#include "base/digest.h"
#include "image/image.h"
#include "item.h"
#include "wire.h"

enum { PX = 160 };

struct fixture {
	char dir[64];
};

static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	(void)snprintf(f->dir, sizeof(f->dir), "/tmp/kamen-sim-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	*state = f;
	return 0;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	(void)nftw(f->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	free(f);
	return 0;
}

static void path_of(const struct fixture *f, const char *name, char ret_path[256])
{
	(void)snprintf(ret_path, 256, "%s/%s", f->dir, name);
}

static struct source *parts(enum item_format format, uint32_t start, uint32_t defects_ppm)
{
	const struct source_parts_options options = { .seed = 5,
		.start = start,
		.px = PX,
		.n_channels = 3,
		.defects_ppm = defects_ppm,
		.format = format };
	struct source *source = NULL;

	assert_int_equal(source_parts_new(&source, &options), 0);
	return source;
}

static void a_part_depends_on_its_number_alone(void **state)
{
	_cleanup_(source_freep) struct source *all = parts(ITEM_RAW, 0, 0);
	_cleanup_(source_freep) struct source *third = parts(ITEM_RAW, 2, 0);
	struct item a, b;

	(void)state;
	for (int i = 0; i < 3; i++) {
		assert_int_equal(all->next(all, &a), 1);
		if (i < 2)
			item_done(&a);
	}
	assert_int_equal(third->next(third, &b), 1);
	assert_string_equal(a.part_id, "part-000002");
	assert_string_equal(a.part_id, b.part_id);
	assert_int_equal(a.n_bytes, PX * PX * 3);
	assert_memory_equal(a.data, b.data, a.n_bytes);
	item_done(&a);
	item_done(&b);
}

static void a_spool_gets_whole_files_only(void **state)
{
	struct fixture *f = *state;
	_cleanup_(source_freep) struct source *source = parts(ITEM_PNG, 7, 0);
	_cleanup_(sink_freep) struct sink *sink = NULL;
	_cleanup_(image_freep) struct image *image = NULL;
	_cleanup_(freep) void *data = NULL;
	char path[256];
	struct item item;
	size_t n;

	assert_int_equal(sink_spool_new(&sink, f->dir), 0);
	assert_int_equal(source->next(source, &item), 1);
	assert_int_equal(sink->put(sink, &item), 0);
	item_done(&item);
	assert_int_equal(sink->finish(sink), 0);
	path_of(f, "part-000007.png", path);
	assert_int_equal(blob_read(AT_FDCWD, path, 1 << 20, &data, &n), 0);
	assert_int_equal(image_decode(&image, data, n, NULL), 0);
	assert_int_equal(image->width, PX);
	path_of(f, ".part-000007.png.tmp", path);
	assert_int_equal(access(path, F_OK), -1);
}

static void the_truth_names_every_file_and_its_defect(void **state)
{
	enum { N_PARTS = 12 };
	struct fixture *f = *state;
	_cleanup_(source_freep) struct source *source = parts(ITEM_PNG, 0, 500000);
	_cleanup_(sink_freep) struct sink *sink = NULL;
	_cleanup_(fclosep) FILE *truth = NULL;
	char path[256], name[128], kind[32], defect[32];
	unsigned n = 0, n_defects = 0, n_told = 0, box[4];

	assert_int_equal(sink_classes_new(&sink, f->dir), 0);
	for (int i = 0; i < N_PARTS; i++) {
		struct item item;

		assert_int_equal(source->next(source, &item), 1);
		assert_int_equal(sink->put(sink, &item), 0);
		n_defects += item.part.defect != PART_GOOD;
		item_done(&item);
	}
	assert_int_equal(sink->finish(sink), 0);
	path_of(f, "_truth.tsv", path);
	truth = fopen(path, "r");
	assert_non_null(truth);
	assert_non_null(fgets(path, sizeof(path), truth));
	assert_string_equal(path, "file\tclass\tdefect\tx\ty\twidth\theight\n");
	while (fscanf(truth, "%127s %31s %31s %u %u %u %u", name, kind, defect, &box[0], &box[1],
		       &box[2], &box[3]) == 7) {
		path_of(f, name, path);
		assert_int_equal(access(path, R_OK), 0);
		assert_memory_equal(name, kind, strlen(kind));
		assert_int_equal(strcmp(defect, "good") == 0, box[2] == 0);
		assert_true(box[0] + box[2] <= PX && box[1] + box[3] <= PX);
		n_told += box[2] > 0;
		n++;
	}
	assert_int_equal(n, N_PARTS);
	assert_int_equal(n_told, n_defects);
	assert_in_range(n_defects, 1, N_PARTS - 1);
}

static void write_text(const struct fixture *f, const char *name, const char *text)
{
	char path[256];

	path_of(f, name, path);
	assert_int_equal(blob_write(AT_FDCWD, path, text, strlen(text)), 0);
}

static unsigned count(
	const struct fixture *f, enum folder_part part, char *ret_names, size_t n_bytes)
{
	_cleanup_(source_freep) struct source *source = NULL;
	struct item item;
	unsigned n = 0;
	int r;

	ret_names[0] = 0;
	assert_int_equal(source_folder_new(&source, f->dir, part), 0);
	while ((r = source->next(source, &item)) == 1) {
		size_t length = strlen(ret_names);

		(void)snprintf(ret_names + length, n_bytes - length, "%s ", item.part_id);
		item_done(&item);
		n++;
	}
	assert_int_equal(r, 0);
	return n;
}

static void a_folder_is_walked_in_order_and_split(void **state)
{
	struct fixture *f = *state;
	char path[256], names[1024];
	unsigned n_learn, n_held;

	path_of(f, "b", path);
	assert_int_equal(mkdir(path, 0700), 0);
	path_of(f, "_aside", path);
	assert_int_equal(mkdir(path, 0700), 0);
	write_text(f, "c.JPG", "1");
	write_text(f, "b/z.png", "2");
	write_text(f, "b/a.ppm", "3");
	write_text(f, "a.pgm", "4");
	write_text(f, "_aside/x.png", "5");
	write_text(f, ".hidden.png", "6");
	write_text(f, "_truth.tsv", "7");
	write_text(f, "notes.txt", "8");
	assert_int_equal(count(f, FOLDER_ALL, names, sizeof(names)), 4);
	assert_string_equal(names, "000000-a.pgm 000001-a.ppm 000002-z.png 000003-c.JPG ");
	n_learn = count(f, FOLDER_LEARN, names, sizeof(names));
	n_held = count(f, FOLDER_HELD, names, sizeof(names));
	assert_int_equal(n_learn + n_held, 4);
	assert_int_equal(n_held, digest_is_held("1", 1) + digest_is_held("2", 1) +
					 digest_is_held("3", 1) + digest_is_held("4", 1));
}

static void receive(void *socket, struct wire *wire, uint64_t sequence, const struct item *item)
{
	const Kamen__StreamFrame *frame;
	ProtobufCMessage *message;
	zmq_msg_t header, image;

	(void)zmq_msg_init(&header);
	(void)zmq_msg_init(&image);
	assert_true(zmq_msg_recv(&header, socket, 0) > 0);
	assert_true(zmq_msg_more(&header));
	assert_true(zmq_msg_recv(&image, socket, 0) > 0);
	assert_false(zmq_msg_more(&image));
	assert_int_equal(wire_decode(wire, &kamen__stream_frame__descriptor, zmq_msg_data(&header),
				 zmq_msg_size(&header), &message),
		0);
	frame = (const Kamen__StreamFrame *)message;
	assert_string_equal(frame->sender, "cam");
	assert_int_equal(frame->sequence, sequence);
	assert_string_equal(frame->part_id, item->part_id);
	assert_int_equal(frame->format, KAMEN__PIXEL_FORMAT__RGB8);
	assert_int_equal(frame->width, PX);
	assert_int_equal(zmq_msg_size(&image), item->n_bytes);
	assert_memory_equal(zmq_msg_data(&image), item->data, item->n_bytes);
	(void)zmq_msg_close(&header);
	(void)zmq_msg_close(&image);
}

static void a_stream_has_no_holes(void **state)
{
	struct fixture *f = *state;
	_cleanup_(source_freep) struct source *source = parts(ITEM_RAW, 40, 0);
	_cleanup_(sink_freep) struct sink *sink = NULL;
	_cleanup_(wire_freep) struct wire *wire = NULL;
	void *context = zmq_ctx_new(), *socket = zmq_socket(context, ZMQ_PULL);
	int timeout_ms = 20000;
	char endpoint[128];

	(void)snprintf(endpoint, sizeof(endpoint), "ipc://%s/pull", f->dir);
	assert_int_equal(wire_new(&wire), 0);
	assert_int_equal(zmq_setsockopt(socket, ZMQ_RCVTIMEO, &timeout_ms, sizeof(timeout_ms)), 0);
	assert_int_equal(zmq_bind(socket, endpoint), 0);
	assert_int_equal(sink_zmq_new(&sink, endpoint, "cam", 20000), 0);
	for (uint64_t i = 0; i < 4; i++) {
		struct item item;

		assert_int_equal(source->next(source, &item), 1);
		assert_int_equal(sink->put(sink, &item), 0);
		receive(socket, wire, i, &item);
		item_done(&item);
	}
	assert_int_equal(sink->finish(sink), 0);
	(void)zmq_close(socket);
	(void)zmq_ctx_term(context);
}

static void nobody_there_is_an_error_in_time(void **state)
{
	struct fixture *f = *state;
	_cleanup_(source_freep) struct source *source = parts(ITEM_RAW, 0, 0);
	_cleanup_(sink_freep) struct sink *sink = NULL;
	char endpoint[128];
	struct item item;

	(void)snprintf(endpoint, sizeof(endpoint), "ipc://%s/nobody", f->dir);
	assert_int_equal(sink_zmq_new(&sink, endpoint, "cam", 50), 0);
	assert_int_equal(source->next(source, &item), 1);
	assert_int_equal(sink->put(sink, &item), -ETIMEDOUT);
	item_done(&item);
}

#define SIM_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		SIM_TEST(a_part_depends_on_its_number_alone),
		SIM_TEST(a_spool_gets_whole_files_only),
		SIM_TEST(the_truth_names_every_file_and_its_defect),
		SIM_TEST(a_folder_is_walked_in_order_and_split),
		SIM_TEST(a_stream_has_no_holes),
		SIM_TEST(nobody_there_is_an_error_in_time),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
