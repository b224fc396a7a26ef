/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "ingest/decoder.h"
#include "ingest/stream.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

/* Two bytes of the image's length, then the header. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
	_cleanup_(wire_freep) struct wire *wire = NULL;
	struct stream_senders senders = { .clock = 0 };
	struct stream_frame frame;
	struct diag diag;
	uint64_t n_image;

	if (n_bytes < 2 || wire_new(&wire) < 0)
		return 0;
	n_image = data[0] | (uint64_t)data[1] << 8;
	if (stream_parse(&frame, wire, data + 2, n_bytes - 2, n_image, &diag) < 0)
		return 0;
	/* What passes can be read: every row lies inside the image. */
	if (frame.format != DECODE_ENCODED &&
		(frame.width == 0 || frame.height == 0 ||
			(uint64_t)frame.stride * (frame.height - 1) +
					(uint64_t)frame.width * decode_n_channels(frame.format) >
				n_image))
		abort();
	if (strlen(frame.sender) >= STREAM_NAME_CHARS)
		abort();
	(void)stream_track(&senders, frame.sender, frame.sequence);
	if (stream_track(&senders, frame.sender, frame.sequence + 1) != 0)
		abort();
	return 0;
}
