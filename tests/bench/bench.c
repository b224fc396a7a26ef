/* SPDX-License-Identifier: Apache-2.0 */
/* kamen-bench, argv[1], in its shortest form: every promised field is there and can be true. */
#include <math.h>
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <cmocka.h>
#include <jansson.h>

static const char *program;

static int run(char *out, size_t n_out, const char *args)
{
	char command[1024];
	FILE *pipe;
	size_t n;
	int status;

	(void)snprintf(command, sizeof(command), "%s %s", program, args);
	pipe = popen(command, "re");
	assert_non_null(pipe);
	n = fread(out, 1, n_out - 1, pipe);
	out[n] = 0;
	status = pclose(pipe);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static json_t *row_of(const char *args)
{
	char out[8192];
	json_error_t error;
	json_t *row;

	assert_int_equal(run(out, sizeof(out), args), 0);
	row = json_loads(out, 0, &error);
	if (!row)
		print_error("%s: %s\n", error.text, out);
	assert_non_null(row);
	return row;
}

static double number(const json_t *row, const char *key)
{
	const json_t *value = json_object_get(row, key);

	if (!json_is_number(value))
		print_error("%s is not there\n", key);
	assert_true(json_is_number(value));
	return json_number_value(value);
}

static void inference_stands_beside_its_floor(void **state)
{
	json_t *row = row_of(
		"infer --random vit_demo --size 32 --batch 2 --threads 1 --seconds 0 --json");

	(void)state;
	assert_string_equal(json_string_value(json_object_get(row, "model")), "vit_demo");
	assert_string_equal(json_string_value(json_object_get(row, "precision")), "f32");
	assert_non_null(json_object_get(row, "machine"));
	assert_int_equal(number(row, "threads"), 1);
	assert_true(number(row, "images_per_s") > 0);
	assert_true(number(row, "gemm_floor_ms") > 0);
	/* A forward pass does all of its products, and more. */
	assert_true(number(row, "ratio_to_floor") > .8);
	json_decref(row);
}

static void a_switch_stands_beside_a_pass(void **state)
{
	json_t *row = row_of("switch --random vit_demo --size 32 --density .99 --threads 1 "
			     "--seconds 0 --json");

	(void)state;
	assert_true(fabs(number(row, "density") - .99) < .002);
	assert_true(number(row, "flips") > 0);
	assert_true(number(row, "switch_ms_p50") > 0);
	assert_true(number(row, "infer_ms_p50") > 0);
	assert_true(fabs(number(row, "ratio") * number(row, "infer_ms_p50") -
			    number(row, "switch_ms_p50")) < 1e-6);
	/* A hundredth of 448 k weights, with two bytes each, and less than their bits. */
	assert_true(number(row, "bytes_per_cold_site") < 448e3 / 8);
	assert_true(number(row, "bytes_coded") < number(row, "bytes_per_cold_site"));
	json_decref(row);
}

static void a_learning_step_stands_beside_its_floor(void **state)
{
	json_t *row = row_of("learn --random vit_demo --size 64 --batch 4 --threads 1 --steps 1 "
			     "--precision f32 --json");

	(void)state;
	assert_string_equal(json_string_value(json_object_get(row, "model")), "vit_demo");
	assert_string_equal(json_string_value(json_object_get(row, "precision")), "f32");
	assert_non_null(json_object_get(row, "machine"));
	assert_int_equal(number(row, "threads"), 1);
	assert_int_equal(number(row, "batch"), 4);
	assert_int_equal(number(row, "large_px"), 64);
	assert_true(fabs(number(row, "images_per_s") * number(row, "step_s") - 4) < 1e-6);
	assert_true(number(row, "gemm_floor_s") > 0);
	/* A step does all of its products, and more. */
	assert_true(number(row, "ratio_to_floor") > .8);
	assert_true(fabs(number(row, "ratio_to_floor") * number(row, "gemm_floor_s") -
			    number(row, "step_s")) < 1e-6);
	/* Bits move. */
	assert_true(number(row, "density") > .99 && number(row, "density") < 1);
	json_decref(row);
}

static void nothing_is_lost_in_a_short_load(void **state)
{
	json_t *row = row_of("serve --random vit_demo --clients 3 --sites 2 --zipf 1 --frame 96 "
			     "--seconds 1 --json");

	(void)state;
	assert_true(number(row, "completed") >= 3);
	assert_int_equal(number(row, "lost"), 0);
	assert_int_equal(number(row, "refused"), 0);
	assert_true(number(row, "p99_ms") >= number(row, "p50_ms"));
	(void)number(row, "overhead_ms_p50");
	json_decref(row);
}

static void sites_with_masks_of_their_own_stand_beside_one(void **state)
{
	json_t *row = row_of("serve --random vit_demo --clients 2 --sites 3 --zipf 1 --frame 64 "
			     "--density .99 --slots 1 --batch 1 --precision f32 --beside-one "
			     "--seconds 1.2 --json");

	(void)state;
	assert_string_equal(json_string_value(json_object_get(row, "precision")), "f32");
	assert_int_equal(number(row, "lost"), 0);
	assert_int_equal(number(row, "refused"), 0);
	assert_true(fabs(number(row, "ratio_to_one_site") * number(row, "one_site_requests_per_s") -
			    number(row, "requests_per_s")) < 1e-6 * number(row, "requests_per_s"));
	assert_true(number(row, "site_p99_ms_worst") >= number(row, "site_p99_ms_median"));
	/* Three masks that drop a hundredth of 448 k weights. */
	assert_true(number(row, "coded_bytes") > 3000 && number(row, "coded_bytes") < 60000);
	assert_true(number(row, "rss_bytes") > number(row, "rss_raise_bytes"));
	json_decref(row);
}

static void the_learner_stands_beside_threads_that_spin(void **state)
{
	json_t *row = row_of("serve --random vit_demo --clients 2 --frame 64 --precision f32 "
			     "--rate 40 --beside-learner --seconds 3.6 --json");

	(void)state;
	assert_string_equal(json_string_value(json_object_get(row, "learner")), "on");
	assert_int_equal(number(row, "lost"), 0);
	assert_true(number(row, "alone_p99_ms") >= number(row, "alone_p50_ms"));
	assert_true(number(row, "spinners_p99_ms") >= number(row, "spinners_p50_ms"));
	assert_true(fabs(number(row, "p99_to_alone") * number(row, "alone_p99_ms") -
			    number(row, "p99_ms")) < 1e-6 * number(row, "p99_ms"));
	assert_true(
		fabs(number(row, "spinners_p99_to_alone") * number(row, "alone_p99_ms") -
			number(row, "spinners_p99_ms")) < 1e-6 * number(row, "spinners_p99_ms"));
	assert_true(number(row, "learner_cpus") >= 0 &&
		    number(row, "learner_cpus") <= number(row, "cpus"));
	json_decref(row);
}

static void a_round_trip_stands_beside_its_peer(void **state)
{
	json_t *row = row_of("ipc --random vit_demo --bytes 10000 --trips 50 --tolerance 1000 "
			     "--json");

	(void)state;
	/* Three windows, that agree because everything does. */
	assert_int_equal(number(row, "windows"), 3);
	assert_int_equal(number(row, "trips"), 150);
	assert_true(number(row, "rtt_us_p50") > 0);
	assert_true(number(row, "rtt_us_p99") >= number(row, "rtt_us_p50"));
	assert_true(number(row, "rtt_us_p999") >= number(row, "rtt_us_p99"));
	assert_true(number(row, "peer_us_p99") >= number(row, "peer_us_p50"));
	json_decref(row);
}

static void two_that_look_need_no_bells(void **state)
{
	json_t *row = row_of("ipc --random vit_demo --bytes 64 --trips 50 --tolerance 1000 --spin "
			     "--json");

	(void)state;
	assert_string_equal(json_string_value(json_object_get(row, "mode")), "spin");
	assert_true(number(row, "rtt_us_p90") >= number(row, "rtt_us_p50"));
	json_decref(row);
}

static void zeromq_is_another_way_in(void **state)
{
	json_t *row = row_of("serve --random vit_demo --transport zmq --clients 2 --frame 64 "
			     "--deadline-ms 10000 --seconds 1 --json");

	(void)state;
	assert_string_equal(json_string_value(json_object_get(row, "transport")), "zmq");
	assert_true(number(row, "completed") >= 2);
	assert_int_equal(number(row, "lost") + number(row, "doubled") + number(row, "wrong"), 0);
	assert_int_equal(
		number(row, "answered"), number(row, "completed") + number(row, "refused"));
	json_decref(row);
}

static void an_open_loop_has_its_rate(void **state)
{
	json_t *row = row_of("serve --random vit_demo --clients 2 --rate 40 --frame 64 --seconds 2 "
			     "--json");

	(void)state;
	assert_int_equal(number(row, "lost"), 0);
	assert_int_equal(number(row, "doubled"), 0);
	assert_int_equal(number(row, "wrong"), 0);
	/* Every moment of the schedule, whatever the answers do: 16 in each window of .4 s. */
	assert_int_equal(
		number(row, "completed") + number(row, "refused"), 16 * number(row, "windows"));
	assert_true(number(row, "p999_ms") >= number(row, "p50_ms"));
	json_decref(row);
}

static void wrong_usage_is_two(void **state)
{
	static const char *const wrong[] = { "2>&1", "frob 2>&1", "infer 2>&1",
		"infer --random vit_t --batch 0 2>&1", "infer --random vit_t --precision int4 2>&1",
		"switch --density 2 2>&1", "learn 2>&1", "learn --random vit_t --steps 0 2>&1",
		"learn --random vit_t --precision int4 2>&1", "switch --mask a.kmask 2>&1",
		"serve --rate x 2>&1", "serve --density 1.5 2>&1", "serve --precision f16 2>&1",
		"serve --site a --density .5 2>&1", "ipc --bytes 0 2>&1", "serve --overload 2 2>&1",
		"serve --transport tcp 2>&1", "serve --beside-learner --beside-one 2>&1",
		"serve --beside-learner --runtime /nonexistent 2>&1",
		"serve --beside-learner --learner off 2>&1" };
	char out[8192];

	(void)state;
	for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		assert_int_equal(run(out, sizeof(out), wrong[i]), 2);
	assert_int_equal(run(out, sizeof(out), "serve --runtime /nonexistent 2>&1"), 69);
	assert_int_equal(run(out, sizeof(out), "infer --help"), 0);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(inference_stands_beside_its_floor),
		cmocka_unit_test(a_switch_stands_beside_a_pass),
		cmocka_unit_test(a_learning_step_stands_beside_its_floor),
		cmocka_unit_test(nothing_is_lost_in_a_short_load),
		cmocka_unit_test(sites_with_masks_of_their_own_stand_beside_one),
		cmocka_unit_test(the_learner_stands_beside_threads_that_spin),
		cmocka_unit_test(a_round_trip_stands_beside_its_peer),
		cmocka_unit_test(two_that_look_need_no_bells),
		cmocka_unit_test(an_open_loop_has_its_rate),
		cmocka_unit_test(zeromq_is_another_way_in),
		cmocka_unit_test(wrong_usage_is_two),
	};

	if (argc != 2)
		return 2;
	(void)unsetenv("KAMEN_RUNTIME");
	program = argv[1];
	return cmocka_run_group_tests(tests, NULL, NULL);
}
