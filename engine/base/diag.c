/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <stdio.h>

#include "base/diag.h"

int diag_set(struct diag *d, int error, const char *format, ...)
{
	va_list ap;

	if (d) {
		va_start(ap, format);
		(void)vsnprintf(d->text, sizeof(d->text), format, ap);
		va_end(ap);
	}
	return -error;
}
