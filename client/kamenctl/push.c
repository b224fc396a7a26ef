/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "cleanup.h"
#include "ctl.h"
#include "flow.h"
#include "output.h"
#include "wire.h"

#define MOST_COMPLAINTS 5u

struct push {
	const struct ctl *ctl;
	const struct images *images;
	uint64_t accepted, rejected, duplicates;
	bool show;
};

static void on_result(void *data, size_t i, const struct kamen_result *result)
{
	struct push *push = data;
	uint64_t n;

	if (result->code < 0 || result->outcome > 1) {
		if (push->rejected++ < MOST_COMPLAINTS)
			(void)fprintf(stderr, "%s%s: %s\n", push->show ? "\r" : "",
				push->images->paths[i], flow_why(result));
	} else if (result->outcome == 1) {
		push->duplicates++;
	} else {
		push->accepted++;
	}
	n = push->accepted + push->rejected + push->duplicates;
	if (push->show && (n % 50 == 0 || n == push->images->n))
		(void)fprintf(stderr, "\r%llu of %zu%s", (unsigned long long)n, push->images->n,
			n == push->images->n ? "\n" : "");
}

static int images_collect(
	const struct ctl *ctl, char **paths, int n, const char *part_name, struct images *images)
{
	enum images_part part = PART_ALL;

	if (part_name && !images_part_parse(part_name, &part))
		return ctl_fail(ctl, EXIT_USAGE, "--part %s: all, learn or held", part_name);
	for (int i = 0; i < n; i++) {
		int r = images_add(images, paths[i], part);

		if (r < 0)
			return ctl_fail(ctl, EXIT_FAILED, "%s: %s", paths[i], strerror(-r));
	}
	images_sort(images);
	return images->n ? EXIT_DONE : ctl_fail(ctl, EXIT_FAILED, "%s: no files", paths[0]);
}

int push_run(struct ctl *ctl, int argc, char **argv)
{
	const char *part = NULL;
	const struct option_spec specs[] = {
		{ "part", "PART", "all (default), learn or held: the split by the file's SHA-256",
			&part, NULL },
	};
	_cleanup_(images_done) struct images images = { 0 };
	struct push push = {
		.ctl = ctl, .images = &images, .show = !ctl->json && isatty(STDERR_FILENO)
	};
	struct flow flow = { .done = on_result, .data = &push };
	int first, status;

	if (!options_parse(ctl, argc, argv, specs, ARRAY_SIZE(specs), 2, INT_MAX, &first, &status))
		return status;
	if (wire_site_name_check(argv[first]) < 0)
		return ctl_fail(ctl, EXIT_USAGE, "%s: not a site's name", argv[first]);
	status = images_collect(ctl, argv + first + 1, argc - first - 1, part, &images);
	if (status != EXIT_DONE)
		return status;
	flow.request = (struct kamen_request){
		.verb = KAMEN_PUSH, .format = KAMEN_ENCODED, .site = argv[first]
	};
	status = flow_run(ctl, &images, &flow);
	if (status != EXIT_DONE)
		return status;
	if (push.accepted + push.duplicates == 0)
		status = ctl_fail(ctl, EXIT_FAILED, "%s: none of %zu files was accepted",
			argv[first], images.n);
	(void)output_row(ctl,
		json_pack("{s:s, s:I, s:I, s:I}", "site", argv[first], "accepted",
			(json_int_t)push.accepted, "rejected", (json_int_t)push.rejected,
			"duplicates", (json_int_t)push.duplicates),
		false);
	return status;
}
