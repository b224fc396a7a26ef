/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "site/manifest.h"
#include "state_fixture.h"

int fixture_setup(void **state)
{
	struct fixture *fixture = calloc(1, sizeof(*fixture));
	struct config config;
	struct diag diag = { "" };

	if (!fixture)
		return -1;
	(void)snprintf(fixture->dir, sizeof(fixture->dir), "%s", "/tmp/kamen-state-XXXXXX");
	if (!mkdtemp(fixture->dir))
		return -1;
	config_default(&config);
	fixture->defaults = config.site_defaults;
	if (state_open(&fixture->state, fixture->dir, &fixture->defaults, &diag) < 0) {
		(void)fprintf(stderr, "%s\n", diag.text);
		return -1;
	}
	*state = fixture;
	return 0;
}

int fixture_teardown(void **state)
{
	struct fixture *fixture = *state;
	char command[96];

	state_free(fixture->state);
	(void)snprintf(command, sizeof(command), "rm -rf %s", fixture->dir);
	if (system(command) != 0)
		return -1;
	free(fixture);
	return 0;
}

void fixture_open_disk(struct fixture *fixture)
{
	struct diag diag = { "" };

	if (state_disk_open(&fixture->disk, fixture->state, &diag) < 0)
		fail_msg("%s", diag.text);
}

void fixture_reopen(struct fixture *fixture)
{
	bool has_disk = fixture->disk;
	struct diag diag = { "" };

	state_disk_free(TAKE_PTR(fixture->disk));
	state_free(TAKE_PTR(fixture->state));
	if (state_open(&fixture->state, fixture->dir, &fixture->defaults, &diag) < 0)
		fail_msg("%s", diag.text);
	if (has_disk)
		fixture_open_disk(fixture);
}

struct digest fixture_hash(uint32_t i)
{
	uint8_t bytes[FIXTURE_BLOB_BYTES] = { 0 };

	memcpy(bytes, &i, sizeof(i));
	return digest_of(bytes, sizeof(bytes));
}

struct image_row fixture_image(struct fixture *fixture, const char *site, uint32_t i)
{
	struct image_row row = { .n_bytes = FIXTURE_BLOB_BYTES,
		.width = 10,
		.height = 10,
		.n_channels = 3,
		.source = "push" };
	uint8_t bytes[FIXTURE_BLOB_BYTES] = { 0 };
	char path[512], file[160], hex[DIGEST_HEX_CHARS + 1];

	memcpy(bytes, &i, sizeof(i));
	row.hash = fixture_hash(i);
	(void)snprintf(row.site, sizeof(row.site), "%s", site);
	digest_to_hex(&row.hash, hex);
	(void)snprintf(row.blob, sizeof(row.blob), "%s.kimg", hex);
	(void)snprintf(file, sizeof(file), "replay/%s", row.blob);
	assert_int_equal(state_path(fixture->state, path, site, file), 0);
	assert_int_equal(blob_write(AT_FDCWD, path, bytes, sizeof(bytes)), 0);
	return row;
}

void fixture_fill(struct fixture *fixture, const char *site, uint32_t from, uint32_t to)
{
	for (uint32_t i = from; i < to; i++) {
		struct image_row row = fixture_image(fixture, site, i);

		assert_int_equal(state_admit(fixture->state, &row), 1);
	}
	assert_int_equal(state_commit(fixture->state), 0);
	if (fixture->disk)
		assert_int_equal(state_disk_sync(fixture->disk), 0);
}

uint32_t fixture_count_files(const struct fixture *fixture, const char *site, const char *folder)
{
	_cleanup_(closedirp) DIR *dir = NULL;
	const struct dirent *entry;
	uint32_t n = 0;
	char path[512];

	assert_int_equal(state_path(fixture->state, path, site, folder), 0);
	dir = opendir(path);
	while (dir && (entry = readdir(dir)))
		n += entry->d_name[0] != '.';
	return n;
}

static void put(struct fixture *fixture, const char *site, const char *file, const void *data,
	size_t n_bytes)
{
	char path[512];

	assert_int_equal(state_path(fixture->state, path, site, file), 0);
	assert_int_equal(blob_write(AT_FDCWD, path, data, n_bytes), 0);
}

/* dim at least 2, at most 4 */
static void put_reference(struct fixture *fixture, const char *site, const char *file,
	const struct digest *space, uint32_t dim)
{
	static const float embeddings[8] = { 1, 0, 0, 0, 0, 1, 0, 0 };
	static const float held[2] = { .1f, .2f };
	_cleanup_(reference_freep) struct reference *reference = NULL;
	_cleanup_(freep) void *data = NULL;
	size_t n_bytes;

	assert_int_equal(reference_new(&reference, embeddings, 2, held, 2, dim, space), 0);
	assert_int_equal(reference_encode(reference, &data, &n_bytes), 0);
	put(fixture, site, file, data, n_bytes);
}

/* As if the blob of the first image had been lost. */
static struct digest put_manifest(struct fixture *fixture, const char *site)
{
	_cleanup_(manifest_done) struct manifest manifest = { 0 };
	_cleanup_(freep) char *used = NULL;
	_cleanup_(freep) void *text = NULL;
	char path[512];
	size_t n;

	assert_int_equal(state_path(fixture->state, path, site, "round/manifest"), 0);
	assert_int_equal(blob_read(AT_FDCWD, path, 1 << 20, &text, &n), 0);
	assert_int_equal(manifest_read(&manifest, text, n, NULL), 0);
	memmove(manifest.entries, manifest.entries + 1, --manifest.n * sizeof(*manifest.entries));
	assert_int_equal(manifest_write(&manifest, &used, &n), 0);
	put(fixture, site, "round/candidate.manifest", used, n);
	return manifest_digest(&manifest);
}

static const char *const names[] = { "a.weight", "a.bias" };
static const size_t sizes[] = { 1000, 70 };

void fixture_hardness(struct fixture *fixture, const struct version_row *row)
{
	const struct hardness_info info = {
		.base = row->base,
		.mask = row->mask,
		.width = FIXTURE_WIDTH,
		.grid = 2,
		.inner = 8,
		.depth = 1,
		.n_heads = 2,
		.n_mlp = 16,
	};
	_cleanup_(freep) float *values = calloc(hardness_n_values(&info), sizeof(*values));
	_cleanup_(freep) void *data = NULL;
	size_t n_bytes;

	assert_non_null(values);
	assert_int_equal(hardness_encode(&info, values, &data, &n_bytes), 0);
	put(fixture, row->site, "round/candidate.khard", data, n_bytes);
}

struct version_row fixture_results(
	struct fixture *fixture, const char *site, uint32_t version, bool passed)
{
	_cleanup_(mask_layout_freep) struct mask_layout *layout = NULL;
	_cleanup_(mask_freep) struct mask *mask = NULL;
	_cleanup_(freep) void *data = NULL;
	struct kmask_header header = {
		.base = digest_of("base", 4), .prep = digest_of("prep", 4), .seed = 7, .steps = 50
	};
	struct version_row row = { .version = version,
		.density = .99,
		.lowest_density = .9,
		.loss_ratio = .8,
		.seconds = 12.5,
		.n_elements = 1070,
		.n_flips = 3,
		.seed = UINT64_MAX,
		.steps = 50,
		.n_images = 40,
		.threads = 2,
		.isa = "avx2",
		.frozen = { 32, .2f, 2, 50 },
		.candidate = { 32, .4f, 3, 42, .02f, .1f },
		.passed = passed };
	size_t n_bytes;

	assert_int_equal(mask_layout_new(&layout, 2, names, sizes), 0);
	assert_int_equal(mask_new(&mask, layout), 0);
	for (uint32_t i = 0; i < 3; i++)
		mask_put(mask, 0, i * 7, false);
	assert_int_equal(kmask_encode(mask, &header, &data, &n_bytes), 0);
	put(fixture, site, "round/candidate.kmask", data, n_bytes);
	(void)snprintf(row.site, sizeof(row.site), "%s", site);
	(void)snprintf(
		row.reasons, sizeof(row.reasons), "%s", passed ? "" : "two-view retrieval\nmargin");
	row.manifest = put_manifest(fixture, site);
	row.base = header.base;
	row.prep = header.prep;
	row.mask = mask_digest(mask);
	row.space = digest_of("space", 5);
	put_reference(fixture, site, "round/candidate.kref", &row.space, FIXTURE_WIDTH);
	put_reference(fixture, site, "round/base.kref", &row.base, FIXTURE_WIDTH);
	return row;
}

/* One dimension less than the base. */
static struct mask_set *make_cascade(const struct mask_layout *layout)
{
	struct mask *masks[3] = { NULL };
	struct mask_set_parts parts = { .n_experts = 2, .width = FIXTURE_WIDTH, .masks = masks };
	struct mask_set *set = NULL;

	for (uint32_t m = 0; m < 3; m++) {
		assert_int_equal(mask_new(&masks[m], layout), 0);
		mask_put(masks[m], 0, m, false);
	}
	assert_int_equal(whiten_new(&parts.route, FIXTURE_WIDTH, 2), 0);
	assert_int_equal(gmm_new(&parts.mixture, 2, 2), 0);
	assert_int_equal(whiten_new(&parts.fusion, 3 * FIXTURE_WIDTH, FIXTURE_WIDTH - 1), 0);
	memset(parts.route->mean, 0, FIXTURE_WIDTH * sizeof(float));
	memset(parts.route->axes, 0, (size_t)2 * FIXTURE_WIDTH * sizeof(float));
	memset(parts.mixture->bias, 0, 2 * sizeof(float));
	memset(parts.mixture->means, 0, 4 * sizeof(float));
	memset(parts.mixture->factors, 0, 2 * gmm_factor_size(2) * sizeof(float));
	memset(parts.fusion->mean, 0, (size_t)3 * FIXTURE_WIDTH * sizeof(float));
	memset(parts.fusion->axes, 0,
		(size_t)(FIXTURE_WIDTH - 1) * 3 * FIXTURE_WIDTH * sizeof(float));
	assert_int_equal(mask_set_join(&set, &parts), 0);
	return set;
}

void fixture_make_cascade(struct fixture *fixture, const char *site, struct version_row *row)
{
	_cleanup_(mask_layout_freep) struct mask_layout *layout = NULL;
	_cleanup_(mask_set_freep) struct mask_set *set = NULL;
	const struct mask_set_header header = { .base = row->base, .prep = row->prep };
	_cleanup_(freep) void *data = NULL;
	char path[512];
	size_t n_bytes;

	assert_int_equal(mask_layout_new(&layout, 2, names, sizes), 0);
	set = make_cascade(layout);
	assert_int_equal(mask_set_encode(set, &header, &data, &n_bytes), 0);
	put(fixture, site, "round/candidate.kcas", data, n_bytes);
	assert_int_equal(state_path(fixture->state, path, site, "round/candidate.kmask"), 0);
	assert_int_equal(unlink(path), 0);
	row->mask = set->id;
	row->n_flips = mask_set_n_flips(set);
	put_reference(fixture, site, "round/candidate.kref", &row->space, set->n_out);
}
