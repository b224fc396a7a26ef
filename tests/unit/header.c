/* SPDX-License-Identifier: Apache-2.0 */
/* The public header alone, first, as strict C99 and as C++17: compiling is the test. */
#include "kamen/kamen.h"

int main(void)
{
	struct kamen_request request = { sizeof(request) };

	return request.size == sizeof(struct kamen_request) && kamen_version()[0] ? 0 : 1;
}
