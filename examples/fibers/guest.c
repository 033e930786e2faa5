/* In the spirit of Go, in plain C: fibers that talk through channels, and take a lock where they
 * share more than that. The host calls an export on a fiber; that one spawns the others, prints a
 * line, and returns a sum that the host knows beforehand.
 *
 *   spawn      fibers that do nothing
 *   crowd      fibers that all live at once, and each sorts an array of its own
 *   ring       values go from fiber to fiber, once round
 *   sieve      each prime is a fiber that lets no multiples of it through
 *   divisors   numbers are shared out to workers, which fill in one table
 *
 * What is local to a function is local to its fiber: arrays lie on the fiber's own stack, and so
 * does each variable whose address goes to the host. */
#include <bop_guest.h>

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT(name) __attribute__((export_name(#name)))

/* A trap ends this fiber; the host has chosen that it ends all others too. */
static void must(bool condition) {
  if (!condition)
    __builtin_trap();
}

/* ---- channels ---- */

static volatile uint64_t sent; /* values, by all fibers */

static bool send(bop_guest_channel_t channel, uint64_t value) {
  bop_guest_status_t status = bop_guest_channel_send(channel, value);
  must(status == BOP_GUEST_OK || status == BOP_GUEST_CLOSED);
  if (status == BOP_GUEST_OK)
    sent++; /* no lock: nothing comes between a read and a write that stand together */
  return status == BOP_GUEST_OK;
}

static bool receive(bop_guest_channel_t channel, uint64_t *value) {
  bop_guest_status_t status = bop_guest_channel_receive(channel, value);
  must(status == BOP_GUEST_OK || status == BOP_GUEST_CLOSED);
  return status == BOP_GUEST_OK;
}

static bop_guest_channel_t channel(uint32_t capacity) {
  bop_guest_channel_t made = bop_guest_channel_new(capacity);
  must(made != 0);
  return made;
}

/* How many values were sent since the last call. */
EXPORT(messages)
uint64_t messages(void) {
  uint64_t count = sent;
  sent = 0;
  return count;
}

/* ---- fibers ---- */

/* A fiber between two channels. */
typedef struct stage {
  bop_guest_channel_t in, out;
  uint64_t number;
  bop_guest_fiber_t fiber;
} stage;

/* Called while there is one fiber only: no lock for malloc. */
static stage *stages_new(uint32_t count) {
  stage *stages = calloc(count, sizeof *stages);
  must(stages != NULL);
  return stages;
}

static void start(stage *own, bop_guest_fn_t fn) {
  own->fiber = bop_guest_spawn(fn, own);
  must(own->fiber != 0);
}

static int32_t join(const stage *other) {
  int32_t result;
  must(bop_guest_join(other->fiber, &result) == BOP_GUEST_OK);
  return result;
}

/* ---- spawn ---- */

static int32_t returns(void *arg) { return (int32_t)((stage *)arg)->number; }

EXPORT(spawn)
uint64_t spawn(uint32_t fibers) {
  stage *all = stages_new(fibers);
  for (uint32_t i = 0; i < fibers; i++) {
    all[i].number = i;
    start(&all[i], returns);
  }
  uint64_t sum = 0;
  for (uint32_t i = 0; i < fibers; i++)
    sum += (uint32_t)join(&all[i]);
  free(all);
  printf("spawn: %u fibers have returned\n", fibers);
  fflush(stdout);
  return sum;
}

/* ---- crowd ---- */

enum { NOTES = 256 };

/* Merges, with half of the numbers put aside at each level: some 2 KiB of stack in all. */
static void sort(uint32_t *numbers, uint32_t count) {
  if (count <= 16) {
    for (uint32_t i = 1; i < count; i++)
      for (uint32_t j = i; j > 0 && numbers[j - 1] > numbers[j]; j--) {
        uint32_t larger = numbers[j - 1];
        numbers[j - 1] = numbers[j];
        numbers[j] = larger;
      }
    return;
  }
  uint32_t left[NOTES / 2], half = count / 2;
  memcpy(left, numbers, half * sizeof *left);
  sort(left, half);
  sort(numbers + half, count - half);
  for (uint32_t i = 0, l = 0, r = half; l < half; i++)
    numbers[i] = r == count || left[l] <= numbers[r] ? left[l++] : numbers[r++];
}

/* Writes down its own numbers out of order, waits until all others have, and sorts them. */
static int32_t member(void *arg) {
  stage *own = arg;
  uint32_t notes[NOTES], sum = 0;
  for (uint32_t i = 0; i < NOTES; i++)
    notes[i] = (uint32_t)own->number + i * 77 % NOTES;
  send(own->out, own->number);
  uint64_t nothing;
  must(!receive(own->in, &nothing)); /* until it is closed */
  sort(notes, NOTES);
  for (uint32_t i = 0; i < NOTES; i++)
    sum += i * notes[i];
  return (int32_t)sum;
}

EXPORT(crowd)
uint64_t crowd(uint32_t members) {
  stage *all = stages_new(members);
  bop_guest_channel_t gate = channel(0), ready = channel(0);
  for (uint32_t i = 0; i < members; i++) {
    all[i] = (stage){.in = gate, .out = ready, .number = i};
    start(&all[i], member);
  }
  uint64_t sum = 0, number;
  for (uint32_t i = 0; i < members; i++)
    must(receive(ready, &number));
  bop_guest_channel_close(gate); /* wakes them all */
  for (uint32_t i = 0; i < members; i++)
    sum += (uint32_t)join(&all[i]);
  bop_guest_channel_delete(gate);
  bop_guest_channel_delete(ready);
  free(all);
  printf("crowd: %u fibers have lived at once, and sorted their notes\n", members);
  fflush(stdout);
  return sum;
}

/* ---- ring ---- */

enum { VALUES = 64 };

/* Passes each value on, one larger, and keeps what it has seen. */
static int32_t station(void *arg) {
  stage *own = arg;
  uint64_t seen[VALUES], sum = 0;
  for (uint32_t i = 0; i < VALUES; i++) {
    must(receive(own->in, &seen[i]));
    must(send(own->out, seen[i] + 1));
  }
  for (uint32_t i = 0; i < VALUES; i++)
    sum += seen[i];
  return (int32_t)sum;
}

/* The caller is where the ring begins and ends. It sends all values before it receives the first,
 * so they must find room in the stations: a channel of capacity 0 holds nothing. */
EXPORT(ring)
uint64_t ring(uint32_t stations) {
  must(stations >= VALUES);
  stage *all = stages_new(stations);
  bop_guest_channel_t first = channel(0), last = first;
  for (uint32_t i = 0; i < stations; i++) {
    all[i].in = last;
    all[i].out = last = channel(0);
    start(&all[i], station);
  }
  for (uint64_t value = 0; value < VALUES; value++)
    must(send(first, value));
  uint64_t sum = 0, value = 0;
  for (uint32_t i = 0; i < VALUES; i++) {
    must(receive(last, &value));
    sum += value;
  }
  for (uint32_t i = 0; i < stations; i++) {
    sum += (uint32_t)join(&all[i]);
    bop_guest_channel_delete(all[i].in);
  }
  bop_guest_channel_delete(last);
  free(all);
  printf("ring: %d went in, and came round as %llu\n", VALUES - 1, (unsigned long long)value);
  fflush(stdout);
  return sum;
}

/* ---- sieve ---- */

static int32_t count_up(void *arg) {
  stage *own = arg;
  for (uint64_t number = 2; send(own->out, number); number++)
    ;
  return 0;
}

/* Who is done closes both sides, so that its neighbours are done, and theirs. */
static int32_t filter(void *arg) {
  stage *own = arg;
  uint64_t number;
  while (receive(own->in, &number))
    if (number % own->number != 0 && !send(own->out, number))
      break;
  bop_guest_channel_close(own->in);
  bop_guest_channel_close(own->out);
  return 0;
}

EXPORT(sieve)
uint64_t sieve(uint32_t primes) {
  stage *all = stages_new(primes + 1);
  all[0].out = channel(0);
  start(&all[0], count_up);
  uint64_t sum = 0, prime = 0;
  for (uint32_t i = 1; i <= primes; i++) {
    must(receive(all[i - 1].out, &prime)); /* it has passed all filters */
    sum += prime;
    all[i] = (stage){.in = all[i - 1].out, .out = channel(0), .number = prime};
    start(&all[i], filter);
  }
  bop_guest_channel_close(all[primes].out);
  for (uint32_t i = 0; i <= primes; i++) {
    join(&all[i]);
    bop_guest_channel_delete(all[i].out);
  }
  free(all);
  printf("sieve: prime number %u is %llu\n", primes, (unsigned long long)prime);
  fflush(stdout);
  return sum;
}

/* ---- divisors ---- */

/* How many numbers have so many divisors. */
typedef struct row {
  uint32_t divisors, numbers;
  struct row *next;
} row;

static row *table;
static bop_guest_mutex_t table_lock; /* for the table, and for malloc */

/* A loop and malloc: in both a fiber may lose its turn, and without the lock another one would
 * find them in the middle of something. */
static void note(uint32_t divisors) {
  bop_guest_lock(&table_lock);
  row *found = table;
  while (found != NULL && found->divisors != divisors)
    found = found->next;
  if (found == NULL) {
    found = malloc(sizeof *found);
    must(found != NULL);
    *found = (row){.divisors = divisors, .next = table};
    table = found;
  }
  found->numbers++;
  bop_guest_unlock(&table_lock);
}

/* Counts as slowly as can be: it is preempted. */
static int32_t worker(void *arg) {
  stage *shared = arg;
  uint64_t number, done = 0;
  for (; receive(shared->in, &number); done++) {
    uint32_t divisors = 0;
    for (uint32_t d = 1; d <= number; d++)
      divisors += (uint32_t)number % d == 0;
    note(divisors);
  }
  must(send(shared->out, done));
  return 0;
}

EXPORT(divisors)
uint64_t divisors(uint32_t workers, uint32_t numbers) {
  stage shared = {.in = channel(16), .out = channel(workers)};
  for (uint32_t i = 0; i < workers; i++)
    must(bop_guest_go(worker, &shared) == BOP_GUEST_OK); /* they report by channel: no join */
  for (uint64_t number = 1; number <= numbers; number++)
    must(send(shared.in, number));
  bop_guest_channel_close(shared.in);
  uint64_t all_done = 0, sum = 0;
  for (uint32_t i = 0; i < workers; i++) {
    uint64_t done;
    must(receive(shared.out, &done));
    all_done += done;
  }
  must(all_done == numbers);
  bop_guest_channel_delete(shared.in);
  bop_guest_channel_delete(shared.out);
  row most = {0};
  while (table != NULL) {
    row gone = *table;
    free(table);
    table = gone.next;
    sum += (uint64_t)gone.divisors * gone.numbers;
    if (gone.numbers > most.numbers)
      most = gone;
  }
  printf("divisors: of %u numbers, %u have %u divisors\n", numbers, most.numbers, most.divisors);
  fflush(stdout);
  return sum;
}
