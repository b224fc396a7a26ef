/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "item.h"

enum { EXIT_USAGE = 2, EXIT_UNREACHABLE = 69, MIN_PX = PART_MIN_PX, MAX_PX = PART_MAX_PX };

struct options {
	struct source_parts_options parts;
	const char *folder, *zmq, *spool, *out, *sender;
	enum folder_part part;
	uint32_t count, timeout_ms;
	double rate;
	bool has_count, has_format, is_json;
};

struct tally {
	uint64_t n_sent, n_defects;
	double seconds;
};

static const char help[] =
	"usage: kamen-sim (--zmq ENDPOINT | --spool DIR | --out DIR) [OPTION]...\n"
	"A camera that isn't there: renders parts with known defects, or takes images from a\n"
	"folder, and streams them.\n"
	"\n"
	"where to:\n"
	"  --zmq ENDPOINT    ZeroMQ PUSH to a site's zmq_pull endpoint; waits while it is full\n"
	"  --spool DIR       into a site's spool folder: temporary name, then rename\n"
	"  --out DIR         DIR/CLASS/part-N.png and DIR/_truth.tsv, for evaluation\n"
	"what:\n"
	"  --count N         images to send (rendered: default 100; a folder: all of them)\n"
	"  --rate R          images per second (0, the default: as fast as they are taken)\n"
	"  --folder DIR      image files below DIR instead of rendered parts, in order of path\n"
	"  --part PART       of a folder: all, learn or held (the split of kamenctl eval)\n"
	"  --defects P       probability of a defect, 0 to 1 (default 0.1)\n"
	"  --seed N          of the rendering (default 1): same seed, same parts\n"
	"  --start N         number of the first part (default 0)\n"
	"  --size PX         side of a rendered part, 160 to 256 (default 192)\n"
	"  --grey            one channel instead of three\n"
	"  --format F        raw, png or jpeg (default: raw over ZeroMQ, else png)\n"
	"  --sender NAME     the name in the stream (default kamen-sim)\n"
	"  --timeout MS      give up when nobody takes an image for so long (default 30000)\n"
	"  --json            print sent, defects and seconds as one JSON object\n"
	"  --help            print this\n";

static int usage(const char *option, const char *value)
{
	(void)fprintf(stderr, "kamen-sim: %s%s%s: see kamen-sim --help\n", option, value ? " " : "",
		value ? value : "");
	return -EINVAL;
}

static int parse_number(const char *text, double low, double high, double *ret_value)
{
	char *end;
	double value;

	errno = 0;
	value = strtod(text, &end);
	if (errno != 0 || end == text || *end || !(value >= low && value <= high))
		return -EINVAL;
	*ret_value = value;
	return 0;
}

/* Whole numbers only; a double holds every one of them up to 2^53. */
static int parse_whole(const char *text, double low, double high, uint64_t *ret_value)
{
	double value;

	if (parse_number(text, low, high, &value) < 0 || value != (double)(uint64_t)value)
		return -EINVAL;
	*ret_value = (uint64_t)value;
	return 0;
}

static int find_name(const char *text, const char *const *names)
{
	for (int i = 0; names[i]; i++)
		if (strcmp(text, names[i]) == 0)
			return i;
	return -EINVAL;
}

enum {
	OPT_ZMQ = 256,
	OPT_SPOOL,
	OPT_OUT,
	OPT_COUNT,
	OPT_RATE,
	OPT_FOLDER,
	OPT_PART,
	OPT_DEFECTS,
	OPT_SEED,
	OPT_START,
	OPT_SIZE,
	OPT_GREY,
	OPT_FORMAT,
	OPT_SENDER,
	OPT_TIMEOUT,
	OPT_JSON,
	OPT_HELP,
};

static const struct option long_options[] = {
	{ "zmq", 1, NULL, OPT_ZMQ },
	{ "spool", 1, NULL, OPT_SPOOL },
	{ "out", 1, NULL, OPT_OUT },
	{ "count", 1, NULL, OPT_COUNT },
	{ "rate", 1, NULL, OPT_RATE },
	{ "folder", 1, NULL, OPT_FOLDER },
	{ "part", 1, NULL, OPT_PART },
	{ "defects", 1, NULL, OPT_DEFECTS },
	{ "seed", 1, NULL, OPT_SEED },
	{ "start", 1, NULL, OPT_START },
	{ "size", 1, NULL, OPT_SIZE },
	{ "grey", 0, NULL, OPT_GREY },
	{ "format", 1, NULL, OPT_FORMAT },
	{ "sender", 1, NULL, OPT_SENDER },
	{ "timeout", 1, NULL, OPT_TIMEOUT },
	{ "json", 0, NULL, OPT_JSON },
	{ "help", 0, NULL, OPT_HELP },
	{ 0 },
};

static int set_number(struct options *o, int option, const char *text)
{
	uint64_t n;
	double x;

	switch (option) {
	case OPT_RATE:
		return parse_number(text, 0, 1e6, &o->rate);
	case OPT_DEFECTS:
		if (parse_number(text, 0, 1, &x) < 0)
			return -EINVAL;
		o->parts.defects_ppm = (uint32_t)(x * 1e6 + 0.5);
		return 0;
	case OPT_SEED:
		return parse_whole(text, 0, 9e15, &o->parts.seed);
	default:
		break;
	}
	if (parse_whole(text, option == OPT_SIZE ? MIN_PX : 0, option == OPT_SIZE ? MAX_PX : 2e9,
		    &n) < 0)
		return -EINVAL;
	if (option == OPT_COUNT) {
		o->count = (uint32_t)n;
		o->has_count = true;
	} else if (option == OPT_START) {
		o->parts.start = (uint32_t)n;
	} else if (option == OPT_SIZE) {
		o->parts.px = (uint32_t)n;
	} else {
		o->timeout_ms = (uint32_t)n;
	}
	return 0;
}

static int set_option(struct options *o, int option, const char *text)
{
	static const char *const parts[] = { "all", "learn", "held", NULL };
	static const char *const formats[] = { "raw", "png", "jpeg", NULL };
	int i;

	switch (option) {
	case OPT_ZMQ:
		o->zmq = text;
		return 0;
	case OPT_SPOOL:
		o->spool = text;
		return 0;
	case OPT_OUT:
		o->out = text;
		return 0;
	case OPT_FOLDER:
		o->folder = text;
		return 0;
	case OPT_SENDER:
		o->sender = text;
		return 0;
	case OPT_GREY:
		o->parts.n_channels = 1;
		return 0;
	case OPT_JSON:
		o->is_json = true;
		return 0;
	case OPT_PART:
		i = find_name(text, parts);
		o->part = i < 0 ? o->part : (enum folder_part)i;
		return i < 0 ? i : 0;
	case OPT_FORMAT:
		i = find_name(text, formats);
		o->parts.format = i < 0 ? o->parts.format : (enum item_format)i;
		o->has_format = true;
		return i < 0 ? i : 0;
	default:
		return set_number(o, option, text);
	}
}

static int check_options(struct options *o)
{
	if (!!o->zmq + !!o->spool + !!o->out != 1)
		return usage("one of --zmq, --spool and --out is needed", NULL);
	if (o->out && o->folder)
		return usage("--out takes rendered parts, not --folder", NULL);
	if (!o->has_format)
		o->parts.format = o->zmq ? ITEM_RAW : ITEM_PNG;
	if (!o->zmq && o->parts.format == ITEM_RAW)
		return usage("--format raw needs --zmq", NULL);
	if (!o->has_count)
		o->count = o->folder ? UINT32_MAX : 100;
	return 0;
}

/** @return 0, 1: help was printed, -EINVAL: said why */
static int parse_options(struct options *o, int argc, char **argv)
{
	int c, i = 0;

	while ((c = getopt_long(argc, argv, "h", long_options, &i)) >= 0) {
		if (c == 'h' || c == OPT_HELP) {
			(void)fputs(help, stdout);
			return 1;
		}
		if (c == '?')
			return -EINVAL;
		if (set_option(o, c, optarg) < 0)
			return usage(long_options[c - OPT_ZMQ].name, optarg);
	}
	if (optind < argc)
		return usage(argv[optind], NULL);
	return check_options(o);
}

static int open_ends(const struct options *o, struct source **source, struct sink **sink)
{
	int r = o->folder ? source_folder_new(source, o->folder, o->part)
			  : source_parts_new(source, &o->parts);

	if (r < 0) {
		(void)fprintf(stderr, "kamen-sim: %s: %s\n", o->folder ? o->folder : "parts",
			strerror(-r));
		return r;
	}
	r = o->zmq     ? sink_zmq_new(sink, o->zmq, o->sender, o->timeout_ms)
	    : o->spool ? sink_spool_new(sink, o->spool)
		       : sink_classes_new(sink, o->out);
	if (r < 0)
		(void)fprintf(stderr, "kamen-sim: %s: %s\n",
			o->zmq     ? o->zmq
			: o->spool ? o->spool
				   : o->out,
			strerror(-r));
	return r;
}

/* The n-th image is due n / rate after the first; a late one does not push the others back. */
static void wait_turn(uint64_t start_ns, uint64_t n, double rate)
{
	uint64_t due_ns;
	struct timespec due;

	if (!(rate > 0))
		return;
	due_ns = start_ns + (uint64_t)((double)n / rate * (double)NS_PER_S);
	due = (struct timespec){ (time_t)(due_ns / NS_PER_S), (long)(due_ns % NS_PER_S) };
	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL) == EINTR)
		;
}

static int stream(
	const struct options *o, struct source *source, struct sink *sink, struct tally *tally)
{
	uint64_t start_ns = clock_now_ns();
	int r = 0;

	while (tally->n_sent < o->count) {
		struct item item;

		r = source->next(source, &item);
		if (r <= 0)
			break;
		wait_turn(start_ns, tally->n_sent, o->rate);
		r = sink->put(sink, &item);
		tally->n_defects += r == 0 && item.is_part && item.part.defect != PART_GOOD;
		item_done(&item);
		if (r < 0)
			break;
		tally->n_sent++;
	}
	if (r == 0)
		r = sink->finish(sink);
	tally->seconds = (double)(clock_now_ns() - start_ns) / (double)NS_PER_S;
	return r;
}

static void print_tally(const struct tally *tally, bool is_json)
{
	json_t *json;

	if (!is_json) {
		(void)printf("%llu images sent, %llu with a defect, %.2f s\n",
			(unsigned long long)tally->n_sent, (unsigned long long)tally->n_defects,
			tally->seconds);
		return;
	}
	json = json_pack("{s:I, s:I, s:f}", "sent", (json_int_t)tally->n_sent, "defects",
		(json_int_t)tally->n_defects, "seconds", tally->seconds);
	(void)json_dumpf(json, stdout, JSON_REAL_PRECISION(6));
	(void)putchar('\n');
	json_decref(json);
}

int main(int argc, char **argv)
{
	_cleanup_(source_freep) struct source *source = NULL;
	_cleanup_(sink_freep) struct sink *sink = NULL;
	struct options options = {
		.parts = { .seed = 1, .px = 192, .n_channels = 3, .defects_ppm = 100000 },
		.sender = "kamen-sim",
		.timeout_ms = 30000
	};
	struct tally tally = { 0 };
	int r = parse_options(&options, argc, argv);

	if (r != 0)
		return r > 0 ? 0 : EXIT_USAGE;
	if (open_ends(&options, &source, &sink) < 0)
		return 1;
	r = stream(&options, source, sink, &tally);
	if (r < 0)
		(void)fprintf(stderr, "kamen-sim: after %llu images: %s\n",
			(unsigned long long)tally.n_sent,
			r == -ETIMEDOUT ? "nobody takes them" : strerror(-r));
	print_tally(&tally, options.is_json);
	return r == -ETIMEDOUT ? EXIT_UNREACHABLE : r < 0;
}
