/* SPDX-License-Identifier: Apache-2.0 */
/* libzmq is not instrumented, nor what it encrypts with: to ThreadSanitizer what its threads hand
 * over looks like a race. */
#ifdef __SANITIZE_THREAD__
const char *__tsan_default_suppressions(void);
__attribute__((visibility("default"))) const char *__tsan_default_suppressions(void)
{
	return "called_from_lib:libzmq.so.5\n"
	       "called_from_lib:libsodium.so.23\n";
}
#else
_Static_assert(1, "a translation unit must not be empty");
#endif
