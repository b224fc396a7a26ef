/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <pthread.h>
#include <sched.h>
#include <cmocka.h>

#include "shm_ring.h"

#define N 8u
#define N_ENTRIES 200000u

struct entry {
	uint64_t sequence, inverse;
};

/* Near the end, so that the cursors wrap during the test. */
static const uint32_t start = UINT32_MAX - 1000;

struct shared {
	_Alignas(64) _Atomic uint32_t head;
	_Alignas(64) _Atomic uint32_t tail;
	struct entry entries[N];
};

static struct shm_ring side(struct shared *shared)
{
	return (struct shm_ring){ (uint8_t *)shared->entries, sizeof(struct entry), N, start };
}

static void *produce(void *data)
{
	struct shared *shared = data;
	struct shm_ring ring = side(shared);

	for (uint64_t i = 0; i < N_ENTRIES; i++) {
		struct entry entry = { i, ~i };

		while (!shm_ring_has_room(&ring, &shared->tail))
			(void)sched_yield();
		shm_ring_put(&ring, &entry);
		/* Sometimes several entries a publication. */
		if (i % 3 == 0 || !shm_ring_has_room(&ring, &shared->tail))
			shm_ring_publish(&ring, &shared->head);
	}
	shm_ring_publish(&ring, &shared->head);
	return NULL;
}

static void every_entry_arrives_once_and_in_order(void **state)
{
	struct shared shared = { .head = start, .tail = start };
	struct shm_ring ring = side(&shared);
	uint64_t expected = 0;
	pthread_t producer;

	(void)state;
	assert_int_equal(pthread_create(&producer, NULL, produce, &shared), 0);
	while (expected < N_ENTRIES) {
		int64_t n = shm_ring_ready(&ring, &shared.head);

		assert_in_range(n, 0, N);
		for (; n > 0; n--) {
			struct entry entry;

			shm_ring_get(&ring, &entry);
			assert_true(entry.sequence == expected && entry.inverse == ~expected);
			expected++;
		}
		shm_ring_publish(&ring, &shared.tail);
		(void)sched_yield();
	}
	(void)pthread_join(producer, NULL);
	assert_int_equal(shm_ring_ready(&ring, &shared.head), 0);
}

static void a_ring_holds_n_entries_and_no_more(void **state)
{
	struct shared shared = { .head = start, .tail = start };
	struct shm_ring producer = side(&shared), consumer = side(&shared);
	struct entry entry = { 0 };

	(void)state;
	for (uint32_t i = 0; i < N; i++) {
		assert_true(shm_ring_has_room(&producer, &shared.tail));
		shm_ring_put(&producer, &entry);
	}
	assert_false(shm_ring_has_room(&producer, &shared.tail));
	assert_int_equal(shm_ring_ready(&consumer, &shared.head), 0);
	shm_ring_publish(&producer, &shared.head);
	assert_int_equal(shm_ring_ready(&consumer, &shared.head), N);
	shm_ring_get(&consumer, &entry);
	shm_ring_publish(&consumer, &shared.tail);
	assert_true(shm_ring_has_room(&producer, &shared.tail));
}

static void a_cursor_that_lies_gives_no_room_and_no_entries(void **state)
{
	static const uint32_t lies[] = { 1, 2, N, 1u << 31, UINT32_MAX / 3, UINT32_MAX - N };
	struct shared shared = { .head = start, .tail = start };
	struct shm_ring ring = side(&shared);

	(void)state;
	for (unsigned i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
		/* A consumer that says to have read what was never written. */
		atomic_store(&shared.tail, ring.cursor + lies[i]);
		assert_false(shm_ring_has_room(&ring, &shared.tail));
		/* A producer that runs backwards or ahead. */
		atomic_store(&shared.head, ring.cursor + N + lies[i]);
		assert_int_equal(shm_ring_ready(&ring, &shared.head), -1);
		atomic_store(&shared.head, ring.cursor - 1);
		assert_int_equal(shm_ring_ready(&ring, &shared.head), -1);
	}
}

/* Both words and both cursors of one direction, and a bell: a consumer that sleeps. */
struct sleeper {
	struct shared shared;
	_Alignas(64) _Atomic uint32_t awake;
	pthread_mutex_t lock;
	pthread_cond_t bell;
	unsigned n_bells;
};

static void *produce_for_a_sleeper(void *data)
{
	struct sleeper *s = data;
	struct shm_ring ring = side(&s->shared);

	for (uint64_t i = 0; i < N_ENTRIES; i++) {
		struct entry entry = { i, ~i };

		/* One at a time, so that nobody else's bell makes up for a missing one. */
		while (atomic_load(&s->shared.tail) != ring.cursor)
			(void)sched_yield();
		shm_ring_put(&ring, &entry);
		if (!shm_ring_announce(&ring, &s->shared.head, &s->awake))
			continue;
		(void)pthread_mutex_lock(&s->lock);
		s->n_bells++;
		(void)pthread_cond_signal(&s->bell);
		(void)pthread_mutex_unlock(&s->lock);
	}
	return NULL;
}

static void wait_for_a_bell(struct sleeper *s)
{
	(void)pthread_mutex_lock(&s->lock);
	while (s->n_bells == 0)
		(void)pthread_cond_wait(&s->bell, &s->lock);
	s->n_bells = 0;
	(void)pthread_mutex_unlock(&s->lock);
}

/* A lost one hangs: ctest has a timeout. */
static void no_bell_is_lost_between_looking_and_sleeping(void **state)
{
	static struct sleeper s;
	struct shm_ring ring;
	pthread_t producer;
	unsigned n_sleeps = 0;

	(void)state;
	s = (struct sleeper){ .shared = { .head = start, .tail = start } };
	(void)pthread_mutex_init(&s.lock, NULL);
	(void)pthread_cond_init(&s.bell, NULL);
	ring = side(&s.shared);
	assert_int_equal(pthread_create(&producer, NULL, produce_for_a_sleeper, &s), 0);
	for (uint64_t expected = 0; expected < N_ENTRIES;) {
		struct entry entry;

		shm_awake_begin(&s.awake);
		for (unsigned i = 0; i < expected % 64; i++)
			if (shm_ring_ready(&ring, &s.shared.head) > 0)
				break;
		shm_awake_end(&s.awake);
		if (shm_ring_ready(&ring, &s.shared.head) == 0) {
			n_sleeps++;
			wait_for_a_bell(&s);
			continue;
		}
		shm_ring_get(&ring, &entry);
		assert_true(entry.sequence == expected);
		expected++;
		shm_ring_publish(&ring, &s.shared.tail);
	}
	(void)pthread_join(producer, NULL);
	assert_true(n_sleeps > 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_entry_arrives_once_and_in_order),
		cmocka_unit_test(a_ring_holds_n_entries_and_no_more),
		cmocka_unit_test(a_cursor_that_lies_gives_no_room_and_no_entries),
		cmocka_unit_test(no_bell_is_lost_between_looking_and_sleeping),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
