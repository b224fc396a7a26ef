/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KAMEN_LEARN_BRANCH_H
#define KAMEN_LEARN_BRANCH_H

#include <stdbool.h>
#include <stdint.h>

enum branch_network {
	BRANCH_STUDENT, /* what learns */
	BRANCH_TEACHER, /* the moving average of it: there is no way back */
};

/** What of an image enters. */
enum branch_tokens {
	BRANCH_ALL,
	BRANCH_KEPT,     /* n_kept patches, and the class token as ever */
	BRANCH_REPLACED, /* all of them, of which some are another vector than their pixels gave */
};

/** Some views of a batch on their way through one of the networks. */
struct branch {
	enum branch_network network;
	bool is_small; /* which size of views */
	uint32_t first_view,
		n_views; /* of that size; other branches may read the same: same pixels */
	enum branch_tokens tokens;
	uint32_t n_kept;  /* of BRANCH_KEPT, at least 1 */
	bool all_out;     /* every token is asked, not the class token alone */
	bool wants_entry; /* of a student: update() reads d_entry */
	/* Of a student: how likely a value, or a whole branch of an image, is dropped of what a block
	 * adds to the residual (vit.h). */
	float drop, drop_path;
};

#define BRANCHES_MAX 6u

#endif
