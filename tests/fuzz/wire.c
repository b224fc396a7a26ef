/* SPDX-License-Identifier: Apache-2.0 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

/* The first byte chooses the message, the rest is the packet. What unpacks must pack again. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	static const ProtobufCMessageDescriptor *const types[] = {
		&kamen__hello__descriptor,
		&kamen__welcome__descriptor,
		&kamen__request__descriptor,
		&kamen__reply__descriptor,
		&kamen__stream_frame__descriptor,
		&kamen__role_message__descriptor,
	};
	ProtobufCMessage *message = NULL;
	struct wire *wire = NULL;
	void *packed = NULL;
	size_t n_packed = 0;

	if (n < 1 || wire_new(&wire) < 0)
		return 0;
	if (wire_decode(wire, types[data[0] % 6], data + 1, n - 1, &message) == 0 &&
		wire_encode(message, &packed, &n_packed) == 0 &&
		wire_decode(wire, types[data[0] % 6], packed, n_packed, &message) < 0)
		abort();
	free(packed);
	wire_free(wire);
	return 0;
}
