/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_LEARN_STREAMS_H
#define KAMEN_LEARN_STREAMS_H

/*
 * Random streams of a round: (seed, step, image, view) for the views; what is drawn beside them
 * uses view numbers that no view has. Part of the format of a version: never renumber.
 */
enum stream {
	STREAM_ORDER = 0x100, /* (seed, epoch, 0): order of the images */
	STREAM_CENTRES,       /* (seed, 0, 0): first centres */
	STREAM_EMPTY,         /* (seed, iteration, centre): point for an empty one */
	STREAM_JUDGE,         /* (seed, image, draw), STREAM_JUDGE + side: views of the judge */
	STREAM_START = 0x200, /* (seed, tensor, 0): spread of the first scores */
	STREAM_SELECTION,     /* (seed, tensor, 0): which bits may flip */
	STREAM_HEAD,          /* (seed, 0, 0): the random head of supervised */
	STREAM_MIXTURE,       /* (seed, 0, 0): first centres of a cascade's mixture */
	/* (seed, step, image), + 16 * branch + view: what a view's pass drops; which patches it keeps. */
	STREAM_DROP = 0x400,
	STREAM_KEEP = 0x500,
	/* (seed, step, image), + view: which patches of a large view micm masks. */
	STREAM_BLOCKS = 0x600,
	STREAM_PATCHES = 0x700, /* (seed, step, image): which patches hpm hides */
				/* 0x800: PARAM_STREAM (model/params.h) */
};

#endif
