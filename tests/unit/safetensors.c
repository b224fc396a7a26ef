/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <math.h>
#include <string.h>
#include <cmocka.h>

#include "model/safetensors.h"

/* A file image in a block of exactly its size, so that a sanitizer sees every byte too far. */
static uint8_t *file_of(const char *header, size_t n_data, size_t *ret_n_bytes)
{
	uint64_t n_header = strlen(header);
	uint8_t *file = malloc(8 + n_header + n_data);

	assert_non_null(file);
	memcpy(file, &n_header, 8);
	memcpy(file + 8, header, n_header);
	for (size_t i = 0; i < n_data; i++)
		file[8 + n_header + i] = (uint8_t)i;
	*ret_n_bytes = 8 + n_header + n_data;
	return file;
}

static int open_header(const char *header, size_t n_data, struct diag *diag)
{
	_cleanup_(safetensors_freep) struct safetensors *st = NULL;
	size_t n_bytes;
	_cleanup_(freep) uint8_t *file = file_of(header, n_data, &n_bytes);

	diag->text[0] = 0;
	return safetensors_open(&st, file, n_bytes, diag);
}

static void what_was_encoded_is_read_back(void **state)
{
	static const float a[6] = { 1, -2, 3.5f, 0, INFINITY, 1e-42f };
	static const float b[1] = { 7 };
	const struct tensor_out out[] = {
		{ "z.weight", 2, { 2, 3 }, a },
		{ "a \"quoted\" name", 0, { 0 }, b },
		{ "none", 2, { 0, 5 }, NULL },
	};
	const char *const metadata[] = { "num_heads", "3", "format", "pt", NULL };
	_cleanup_(safetensors_freep) struct safetensors *st = NULL;
	_cleanup_(freep) void *data = NULL;
	const struct tensor *tensor;
	float back[6] = { 0 };
	uint64_t n_header;
	size_t n_bytes;

	(void)state;
	assert_int_equal(safetensors_encode(out, 3, metadata, &data, &n_bytes), 0);
	memcpy(&n_header, data, 8);
	assert_int_equal(n_header % 8, 0);
	assert_int_equal(safetensors_open(&st, data, n_bytes, NULL), 0);
	assert_int_equal(safetensors_count(st), 3);
	assert_string_equal(safetensors_at(st, 0)->name, "z.weight");
	assert_null(safetensors_at(st, 3));
	tensor = safetensors_find(st, "z.weight");
	assert_non_null(tensor);
	assert_int_equal(tensor->n_dims, 2);
	assert_int_equal(tensor->dims[0], 2);
	assert_int_equal(tensor->dims[1], 3);
	assert_int_equal(tensor->n_elements, 6);
	assert_int_equal(tensor->n_bytes, 24);
	tensor_to_f32(back, tensor);
	assert_memory_equal(back, a, sizeof(a));
	tensor = safetensors_find(st, "a \"quoted\" name");
	assert_int_equal(tensor->n_dims, 0);
	assert_int_equal(tensor->n_elements, 1);
	assert_int_equal(safetensors_find(st, "none")->n_elements, 0);
	assert_null(safetensors_find(st, "z.weigh"));
	assert_null(safetensors_find(st, "__metadata__"));
	assert_string_equal(safetensors_metadata(st, "num_heads"), "3");
	assert_null(safetensors_metadata(st, "heads"));
}

static void a_file_without_tensors_is_a_file(void **state)
{
	_cleanup_(safetensors_freep) struct safetensors *st = NULL;
	_cleanup_(freep) void *data = NULL;
	size_t n_bytes;

	(void)state;
	assert_int_equal(safetensors_encode(NULL, 0, NULL, &data, &n_bytes), 0);
	assert_int_equal(safetensors_open(&st, data, n_bytes, NULL), 0);
	assert_int_equal(safetensors_count(st), 0);
	assert_null(safetensors_metadata(st, "any"));
	assert_null(safetensors_find(st, "any"));
}

struct damage {
	const char *what; /* a word that the diag must hold */
	const char *header;
	size_t n_data;
	int error;
};

#define F32(name, shape, begin, end) \
	"\"" name "\":{\"dtype\":\"F32\",\"shape\":" shape ",\"data_offsets\":[" #begin "," #end \
	"]}"

static void each_damage_has_its_message(void **state)
{
	static const struct damage damages[] = {
		{ "header", "", 0, EBADMSG },
		{ "header", "{", 0, EBADMSG },
		{ "header", "[]", 0, EBADMSG },
		{ "header", "{} x", 0, EBADMSG },
		{ "header", "{\"a\\u0000b\":1}", 0, EBADMSG },
		{ "header", "{" F32("a", "[1]", 0, 4) "," F32("a", "[1]", 4, 8) "}", 8, EBADMSG },
		{ "'a': not an object", "{\"a\":[]}", 0, EBADMSG },
		{ "'a': no dtype", "{\"a\":{}}", 0, EBADMSG },
		{ "'a': no dtype", "{\"a\":{\"dtype\":1}}", 0, EBADMSG },
		{ "'I64'", "{\"a\":{\"dtype\":\"I64\",\"shape\":[1],\"data_offsets\":[0,8]}}", 8,
			EOPNOTSUPP },
		{ "'a': shape", "{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4, EBADMSG },
		{ "'a': shape", "{" F32("a", "4", 0, 4) "}", 4, EBADMSG },
		{ "'a': shape[0]", "{" F32("a", "[-1]", 0, 4) "}", 4, EBADMSG },
		{ "'a': shape[1]", "{" F32("a", "[1, 1.0]", 0, 4) "}", 4, EBADMSG },
		{ "'a': shape[0]", "{" F32("a", "[\"1\"]", 0, 4) "}", 4, EBADMSG },
		{ "'a': shape", "{" F32("a", "[1,1,1,1,1,1,1,1,1]", 0, 4) "}", 4, EBADMSG },
		{ "'a': shape overflows", "{" F32("a", "[4294967296,4294967296]", 0, 0) "}", 0,
			EBADMSG },
		{ "'a': shape overflows", "{" F32("a", "[4611686018427387904]", 0, 0) "}", 0,
			EBADMSG },
		{ "header", "{" F32("a", "[18446744073709551616]", 0, 0) "}", 0, EBADMSG },
		{ "'a': data_offsets", "{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, EBADMSG },
		{ "'a': data_offsets",
			"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4,4]}}", 4,
			EBADMSG },
		{ "'a': data_offsets", "{" F32("a", "[1]", 0, "4") "}", 4, EBADMSG },
		{ "outside", "{" F32("a", "[1]", -4, 0) "}", 4, EBADMSG },
		{ "outside", "{" F32("a", "[1]", 4, 0) "}", 4, EBADMSG },
		{ "outside", "{" F32("a", "[1]", 0, 4) "}", 3, EBADMSG },
		{ "outside", "{" F32("a", "[1]", 9223372036854775804, 9223372036854775807) "}", 4,
			EBADMSG },
		{ "4 bytes, shape and dtype 8", "{" F32("a", "[2]", 0, 4) "}", 8, EBADMSG },
		{ "overlap", "{" F32("a", "[2]", 0, 8) "," F32("b", "[2]", 4, 12) "}", 12,
			EBADMSG },
		{ "overlap", "{" F32("a", "[2]", 0, 8) "," F32("b", "[2]", 0, 8) "}", 8, EBADMSG },
		{ "overlap", "{" F32("a", "[2]", 0, 8) "," F32("b", "[0]", 4, 4) "}", 8, EBADMSG },
		{ "hole", "{" F32("a", "[1]", 4, 8) "}", 8, EBADMSG },
		{ "belong to none", "{" F32("a", "[1]", 0, 4) "}", 8, EBADMSG },
		{ "__metadata__", "{\"__metadata__\":[]}", 0, EBADMSG },
		{ "'k'", "{\"__metadata__\":{\"k\":1}}", 0, EBADMSG },
	};
	struct diag diag;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(damages); i++) {
		int r = open_header(damages[i].header, damages[i].n_data, &diag);

		if (r != -damages[i].error || !strstr(diag.text, damages[i].what))
			fail_msg("%s: %d, '%s'", damages[i].header, r, diag.text);
	}
	assert_int_equal(open_header("{" F32("a", "[1]", 0, 4) "}  ", 4, &diag), 0);
}

static void a_wrong_header_length_is_refused(void **state)
{
	static const uint64_t lengths[] = { 3, 1, 0, 17 << 20, INT64_MAX, UINT64_MAX,
		UINT64_MAX - 7 };
	_cleanup_(safetensors_freep) struct safetensors *st = NULL;
	struct diag diag;
	uint8_t file[10] = { 2, 0, 0, 0, 0, 0, 0, 0, '{', '}' };

	(void)state;
	for (size_t n = 0; n < sizeof(file); n++)
		assert_int_equal(safetensors_open(&st, file, n, &diag), -EBADMSG);
	for (size_t i = 0; i < ARRAY_SIZE(lengths); i++) {
		memcpy(file, &lengths[i], 8);
		assert_int_equal(safetensors_open(&st, file, sizeof(file), &diag), -EBADMSG);
		assert_non_null(strstr(diag.text, "header"));
	}
	file[0] = 2;
	memset(file + 1, 0, 7);
	assert_int_equal(safetensors_open(&st, file, sizeof(file), &diag), 0);
}

/* The definition of the formats, in double: sign, exponent, mantissa of given widths. */
static double half_value(unsigned bits, int n_exponent, int n_mantissa)
{
	int bias = (1 << (n_exponent - 1)) - 1;
	int exponent = (int)(bits >> n_mantissa) & ((1 << n_exponent) - 1);
	double mantissa = (double)(bits & ((1u << n_mantissa) - 1)) / (1 << n_mantissa);
	double sign = bits & 0x8000 ? -1 : 1;

	if (exponent == (1 << n_exponent) - 1)
		return mantissa > 0 ? (double)NAN : sign * INFINITY;
	if (exponent == 0)
		return sign * ldexp(mantissa, 1 - bias);
	return sign * ldexp(1 + mantissa, exponent - bias);
}

static void every_half_number_widens_exactly(void **state)
{
	static uint8_t bytes[2 * 65536 + 1]; /* read from an odd address */
	static float wide[65536];
	struct tensor tensor = { .n_elements = 65536, .n_bytes = 131072, .data = bytes + 1 };

	(void)state;
	for (unsigned i = 0; i < 65536; i++) {
		bytes[1 + 2 * i] = (uint8_t)i;
		bytes[2 + 2 * i] = (uint8_t)(i >> 8);
	}
	for (int brain = 0; brain < 2; brain++) {
		tensor.dtype = brain ? TENSOR_BF16 : TENSOR_F16;
		tensor_to_f32(wide, &tensor);
		for (unsigned i = 0; i < 65536; i++) {
			float want = (float)half_value(i, brain ? 8 : 5, brain ? 7 : 10);

			if (isnan(want) ? !isnan(wide[i]) : wide[i] != want)
				fail_msg("%s 0x%04x: %g, not %g", brain ? "bf16" : "f16", i,
					(double)wide[i], (double)want);
			assert_int_equal(!!signbit(wide[i]), i >> 15);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_was_encoded_is_read_back),
		cmocka_unit_test(a_file_without_tensors_is_a_file),
		cmocka_unit_test(each_damage_has_its_message),
		cmocka_unit_test(a_wrong_header_length_is_refused),
		cmocka_unit_test(every_half_number_widens_exactly),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
