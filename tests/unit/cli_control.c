/* SPDX-License-Identifier: Apache-2.0 */
/* How long a command waits for its answer: what poll() is told. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <cmocka.h>
#include <pthread.h>

#include "control.h"

static int patience_ms; /* of the last poll() */

/* The hello is waited for in earnest. */
int __wrap_poll(struct pollfd *pollers, nfds_t n, int timeout_ms);
int __wrap_poll(struct pollfd *pollers, nfds_t n, int timeout_ms)
{
	struct timeval most = { .tv_sec = 10 };
	fd_set set;
	int r;

	assert_int_equal(n, 1);
	patience_ms = timeout_ms;
	FD_ZERO(&set);
	FD_SET(pollers[0].fd, &set);
	r = select(pollers[0].fd + 1, &set, NULL, NULL, &most);
	pollers[0].revents = r > 0 ? POLLIN : 0;
	return r;
}

/* Answers the hello, and the request by closing. */
static void *daemon_thread(void *data)
{
	Kamen__Reply reply = KAMEN__REPLY__INIT;
	Kamen__Welcome welcome = KAMEN__WELCOME__INIT;
	char packet[4096];
	int sock = accept(*(const int *)data, NULL, NULL);

	(void)recv(sock, packet, sizeof(packet), 0);
	welcome.major = WIRE_MAJOR;
	reply.id = 1;
	reply.last = 1;
	reply.row_case = KAMEN__REPLY__ROW_WELCOME;
	reply.welcome = &welcome;
	(void)wire_send(sock, &reply.base, NULL, 0);
	(void)recv(sock, packet, sizeof(packet), 0);
	(void)close(sock);
	return NULL;
}

static int patience_of(Kamen__Request__VerbCase verb, bool for_ever)
{
	char dir[] = "/tmp/kamen-control-XXXXXX";
	struct ctl ctl = { .program = "test", .runtime = dir };
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	Kamen__Request request = KAMEN__REQUEST__INIT;
	Kamen__SiteName name = KAMEN__SITE_NAME__INIT;
	Kamen__SiteVersion version = KAMEN__SITE_VERSION__INIT;
	Kamen__SiteDelete yes = KAMEN__SITE_DELETE__INIT;
	Kamen__ClassAdd add = KAMEN__CLASS_ADD__INIT;
	Kamen__ClassRemove removal = KAMEN__CLASS_REMOVE__INIT;
	int listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	const Kamen__Reply *reply;
	struct control *control;
	pthread_t thread;

	assert_non_null(mkdtemp(dir));
	(void)snprintf(address.sun_path, sizeof(address.sun_path), "%s/control.sock", dir);
	assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(listen(listener, 1), 0);
	assert_int_equal(pthread_create(&thread, NULL, daemon_thread, &listener), 0);
	assert_int_equal(control_open(&ctl, &control), EXIT_DONE);
	assert_int_equal(patience_ms, 30000);

	name.site = version.site = yes.site = add.site = removal.site = dir;
	add.name = removal.name = dir;
	request.verb_case = verb;
	request.site_show = &name; /* members of the oneof are one pointer */
	if (verb == KAMEN__REQUEST__VERB_MASK_PROMOTE)
		request.mask_promote = &version;
	else if (verb == KAMEN__REQUEST__VERB_SITE_RESET)
		request.site_reset = &yes;
	else if (verb == KAMEN__REQUEST__VERB_CLASS_ADD)
		request.class_add = &add;
	else if (verb == KAMEN__REQUEST__VERB_CLASS_REMOVE)
		request.class_remove = &removal;
	assert_int_equal(control_send(control, &request, -1), EXIT_DONE);
	assert_int_not_equal(control_next(control, for_ever, &reply), EXIT_DONE);
	control_free(control);
	assert_int_equal(pthread_join(thread, NULL), 0);
	(void)close(listener);
	(void)unlink(address.sun_path);
	(void)rmdir(dir);
	return patience_ms;
}

static void what_looks_at_images_is_waited_for(void **state)
{
	(void)state;
	assert_int_equal(patience_of(KAMEN__REQUEST__VERB_MASK_PROMOTE, false), -1);
	assert_int_equal(patience_of(KAMEN__REQUEST__VERB_MASK_ROLLBACK, false), -1);
	assert_int_equal(patience_of(KAMEN__REQUEST__VERB_SITE_RESET, false), -1);
	assert_int_equal(patience_of(KAMEN__REQUEST__VERB_CLASS_ADD, false), -1);
	assert_int_equal(patience_of(KAMEN__REQUEST__VERB_CLASS_REMOVE, false), -1);
	assert_int_equal(patience_of(KAMEN__REQUEST__VERB_SITE_SHOW, true), -1);
	assert_int_equal(patience_of(KAMEN__REQUEST__VERB_SITE_SHOW, false), 30000);
	assert_int_equal(patience_of(KAMEN__REQUEST__VERB_CLASS_LIST, false), 30000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_looks_at_images_is_waited_for),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
