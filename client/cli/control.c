/* SPDX-License-Identifier: Apache-2.0 */
#include "control.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "cleanup.h"
#include "output.h"

#define PATIENCE_MS 30000

struct control {
	const struct ctl *ctl;
	int sock;
	struct wire *wire;
	uint64_t id;
	bool is_long; /* the request may rightly take as long as it takes */
	bool done;    /* the last reply of the request has come */
};

void control_free(struct control *control)
{
	if (!control)
		return;
	wire_free(control->wire);
	closep(&control->sock);
	free(control);
}

static int socket_connect(const struct ctl *ctl, int *ret_sock)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	_cleanup_(closep) int sock = -1;
	int n;

	n = snprintf(address.sun_path, sizeof(address.sun_path), "%s/control.sock", ctl->runtime);
	if (n < 0 || (size_t)n >= sizeof(address.sun_path))
		return ctl_fail(ctl, EXIT_USAGE, "%s/control.sock: path too long", ctl->runtime);
	sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (sock < 0 || connect(sock, (const struct sockaddr *)&address, sizeof(address)) < 0)
		return ctl_fail(
			ctl, ctl_status_of(-errno), "%s: %s", address.sun_path, strerror(errno));
	*ret_sock = TAKE_FD(sock);
	return EXIT_DONE;
}

static int hello(struct control *control)
{
	Kamen__Request request = KAMEN__REQUEST__INIT;
	Kamen__Hello message = KAMEN__HELLO__INIT;
	const Kamen__Reply *reply = NULL;
	int status;

	message.major = WIRE_MAJOR;
	message.minor = WIRE_MINOR;
	request.verb_case = KAMEN__REQUEST__VERB_HELLO;
	request.hello = &message;
	status = control_send(control, &request, -1);
	if (status == EXIT_DONE)
		status = control_next(control, false, &reply);
	if (status != EXIT_DONE)
		return status;
	if (!reply || reply->row_case != KAMEN__REPLY__ROW_WELCOME ||
		reply->welcome->major != WIRE_MAJOR)
		return ctl_fail(control->ctl, EXIT_FAILED, "the daemon speaks another protocol");
	if (reply->welcome->error)
		return ctl_fail(control->ctl, EXIT_FAILED, "%s", reply->welcome->error->text);
	return EXIT_DONE;
}

int control_open(const struct ctl *ctl, struct control **ret_control)
{
	_cleanup_(control_freep) struct control *control = calloc(1, sizeof(*control));
	int status;

	if (!control)
		return ctl_fail(ctl, EXIT_FAILED, "out of memory");
	control->ctl = ctl;
	control->sock = -1;
	if (wire_new(&control->wire) < 0)
		return ctl_fail(ctl, EXIT_FAILED, "out of memory");
	status = socket_connect(ctl, &control->sock);
	if (status == EXIT_DONE)
		status = hello(control);
	if (status == EXIT_DONE)
		*ret_control = TAKE_PTR(control);
	return status;
}

/* Before its champion or its classes change a site looks at the images of its classes, behind what other
 * sites have asked for. */
static bool takes_long(Kamen__Request__VerbCase verb)
{
	static const Kamen__Request__VerbCase verbs[] = {
		KAMEN__REQUEST__VERB_MASK_PROMOTE,
		KAMEN__REQUEST__VERB_MASK_ROLLBACK,
		KAMEN__REQUEST__VERB_SITE_RESET,
		KAMEN__REQUEST__VERB_CLASS_ADD,
		KAMEN__REQUEST__VERB_CLASS_REMOVE,
	};

	for (unsigned i = 0; i < ARRAY_SIZE(verbs); i++)
		if (verbs[i] == verb)
			return true;
	return false;
}

int control_send(struct control *control, Kamen__Request *request, int fd)
{
	int r;

	control->is_long = takes_long(request->verb_case);
	request->id = ++control->id;
	control->done = false;
	r = wire_send(control->sock, &request->base, &fd, fd >= 0 ? 1 : 0);
	if (r < 0)
		return ctl_fail(control->ctl, ctl_status_of(r), "sending: %s", strerror(-r));
	return EXIT_DONE;
}

static int packet_wait(struct control *control, bool for_ever)
{
	struct pollfd poller = { .fd = control->sock, .events = POLLIN };
	const bool is_patient = for_ever || control->is_long || control->ctl->is_patient;
	int r;

	do
		r = poll(&poller, 1, is_patient ? -1 : PATIENCE_MS);
	while (r < 0 && errno == EINTR);
	if (r == 0)
		return ctl_fail(control->ctl, EXIT_UNREACHABLE, "the daemon does not answer");
	return r < 0 ? ctl_fail(control->ctl, EXIT_FAILED, "poll: %s", strerror(errno)) : EXIT_DONE;
}

int control_next(struct control *control, bool for_ever, const Kamen__Reply **ret_reply)
{
	ProtobufCMessage *message = NULL;
	const Kamen__Reply *reply;
	int status, r;

	*ret_reply = NULL;
	if (control->done)
		return EXIT_DONE;
	do {
		status = packet_wait(control, for_ever);
		if (status != EXIT_DONE)
			return status;
		r = wire_recv(control->wire, control->sock, &kamen__reply__descriptor, &message);
		if (r == 0)
			return ctl_fail(control->ctl, EXIT_UNREACHABLE,
				"the daemon has closed the connection");
		if (r < 0)
			return ctl_fail(
				control->ctl, ctl_status_of(r), "receiving: %s", strerror(-r));
		reply = (const Kamen__Reply *)message;
	} while (reply->id != control->id);
	control->done = reply->last;
	if (reply->error)
		return ctl_fail(control->ctl, EXIT_FAILED, "%s", reply->error->text);
	*ret_reply = reply;
	return EXIT_DONE;
}

int control_ask(struct control *control, Kamen__Request *request, int fd, Kamen__Reply__RowCase row,
	const Kamen__Reply **ret_reply)
{
	const Kamen__Reply *reply = NULL;
	int status = control_send(control, request, fd);

	if (status == EXIT_DONE)
		status = control_next(control, false, &reply);
	if (status != EXIT_DONE)
		return status;
	if (!reply || reply->row_case != row || !control->done)
		return ctl_fail(control->ctl, EXIT_FAILED, "an answer of another kind");
	*ret_reply = reply;
	return EXIT_DONE;
}

int control_wait_end(struct control *control)
{
	ProtobufCMessage *message = NULL;
	const Kamen__Reply *reply;
	int status, r;

	do {
		status = packet_wait(control, false);
		if (status != EXIT_DONE)
			return status;
		r = wire_recv(control->wire, control->sock, &kamen__reply__descriptor, &message);
		if (r == 0 || r == -ECONNRESET)
			return EXIT_DONE;
		if (r < 0)
			return ctl_fail(
				control->ctl, ctl_status_of(r), "receiving: %s", strerror(-r));
		reply = (const Kamen__Reply *)message;
	} while (reply->id != control->id);
	return ctl_fail(control->ctl, EXIT_FAILED, "%s",
		reply->error ? reply->error->text : "an answer of another kind");
}

int control_take_fd(struct control *control)
{
	return wire_take_fd(control->wire, 0);
}

int control_run(struct ctl *ctl, Kamen__Request *request, int fd, bool as_lines)
{
	_cleanup_(control_freep) struct control *control = NULL;
	const Kamen__Reply *reply;
	int status = control_open(ctl, &control);

	if (status == EXIT_DONE)
		status = control_send(control, request, fd);
	while (status == EXIT_DONE) {
		status = control_next(control, false, &reply);
		if (status != EXIT_DONE || !reply)
			break;
		if (reply->row_case != KAMEN__REPLY__ROW__NOT_SET)
			status = output_reply(ctl, reply, as_lines);
	}
	return status;
}
