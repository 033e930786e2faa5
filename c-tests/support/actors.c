#include "actors.h"

#include <unistd.h>

bop_runtime_t *t_runtimes[2];

void t_runtimes_start(size_t workers, uint64_t quantum_ns) {
  for (int i = 0; i < 2; i++) {
    t_runtimes[i] = t_runtime(workers, quantum_ns);
    OK(bop_runtime_start(t_runtimes[i]));
  }
}

void t_runtimes_delete(void) {
  for (int i = 0; i < 2; i++) {
    EVENTUALLY(t_stats(t_runtimes[i]).live == 0);
    OK(bop_runtime_delete(t_runtimes[i]));
  }
}

bop_channel_t *t_channel(size_t capacity, size_t values) {
  bop_channel_t *channel = NULL;
  OK(bop_channel_new(capacity, &channel));
  for (uint64_t v = 0; v < values; v++)
    CHECK_EQ(bop_channel_send(channel, v), BOP_OK);
  return channel;
}

static void *on_a_thread(void *data) {
  t_actor *me = data;
  me->tid = gettid();
  me->result = me->run(me);
  return NULL;
}

void t_actor_begin(t_actor *it, int kind, int64_t (*run)(void *actor)) {
  it->run = run;
  if (kind != THREAD)
    it->fiber = t_spawn_host(t_runtimes[kind], run, it, NULL);
  else
    CHECK_EQ(pthread_create(&it->thread, NULL, on_a_thread, it), 0);
}

int64_t t_actor_end(t_actor *it) {
  if (it->fiber)
    return t_result(it->fiber);
  CHECK_EQ(pthread_join(it->thread, NULL), 0);
  return it->result;
}

bop_status_t t_call(bop_channel_t *channel, bool sends, uint64_t *value, uint64_t deadline) {
  if (sends)
    return deadline == NEVER ? bop_channel_send(channel, *value)
                             : bop_channel_send_until(channel, *value, deadline);
  return deadline == NEVER ? bop_channel_receive(channel, value)
                           : bop_channel_receive_until(channel, value, deadline);
}
