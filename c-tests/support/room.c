#include "room.h"

struct t_room t_room;

static void finalizes(void *env) {
  (void)env;
  t_room.finalized++;
}

/* ---- the fibers that there is room for ---- */

static int64_t parks(void *env) {
  (void)env;
  return bop_park();
}

HOST_FUNCTION(guest_parks) {
  UNUSED();
  bop_park();
  return NULL;
}

static const t_import IMPORTS[] = {{"park", "", "", guest_parks, NULL}, {NULL, NULL, NULL, NULL, NULL}};
static const char *const GUEST = "(module (import \"host\" \"park\" (func $park))"
                                 "  (func (export \"park\") (param i32) (result i64) (call $park) (i64.const 0))"
                                 "  (func (export \"fall\") (param i32) (call $park) unreachable))";

wasmtime_error_t *t_room_spawn(uint64_t patience, bop_fiber_t **out) {
  bop_spawn_options_t *options = t_options(LIMITS(.wait = patience));
  wasmtime_val_t zero = t_i32(0);
  wasmtime_error_t *error =
      t_room.place == IN_RUNTIME
          ? bop_spawn_host(t_room.runtime, parks, NULL, finalizes, options, out)
          : bop_spawn(t_room.guest.store, t_export(&t_room.guest, "park"), &zero, 1, options, out);
  bop_spawn_options_delete(options);
  return error;
}

void t_release(bop_fiber_t *own) {
  EVENTUALLY(bop_fiber_state(own) == BOP_STATE_PARKED);
  CHECK_EQ(bop_unpark(own), BOP_OK);
  CHECK_EQ(t_result(own), BOP_OK);
}

/* ---- who spawns them ---- */

static int64_t spawns(void *data) {
  t_spawner *me = data;
  me->error = t_error_text(t_room_spawn(me->actor.deadline, &me->child));
  me->actor.returned_at = bop_now();
  return me->actor.status = me->error != NULL;
}

void t_spawner_begin(t_spawner *it, int kind, uint64_t patience) {
  *it = (t_spawner){.actor = {.deadline = patience, .status = -1}};
  t_actor_begin(&it->actor, kind, spawns);
}

void t_spawner_waits(t_spawner *it, int kind, uint64_t patience) {
  t_spawner_begin(it, kind, patience);
  EVENTUALLY(it->actor.status != -1 || t_actor_waits(&it->actor));
  CHECK(it->actor.status == -1 || bop_now() >= patience);
}

bool t_spawner_done(const t_spawner *it) { return it->actor.status != -1; }

bop_fiber_t *t_spawner_gets(t_spawner *it) {
  EVENTUALLY(t_spawner_done(it));
  t_actor_end(&it->actor);
  if (it->error != NULL)
    t_fail(__FILE__, __LINE__, "a spawn that may wait was refused: %s", it->error);
  CHECK(it->child != NULL);
  return it->child;
}

void t_spawner_fails(t_spawner *it, const char *word) {
  EVENTUALLY(t_spawner_done(it));
  CHECK_EQ(t_actor_end(&it->actor), 1);
  CHECK_HAS(it->error, word);
  CHECK(it->child == NULL);
}

void t_serve(t_spawner *spawners, int n) {
  enum { NOT_YET = 2 };
  for (int i = 0; i < n; i++)
    spawners[i].actor.n = NOT_YET;
  for (int left = n; left > 0;)
    for (int i = 0; i < n; i++)
      if (spawners[i].actor.n == NOT_YET && t_spawner_done(&spawners[i])) {
        t_release(t_spawner_gets(&spawners[i]));
        spawners[i].actor.n = 0;
        left--;
      } else {
        t_pause(MS / 50);
      }
}

/* ---- the place ---- */

void t_room_store(void) {
  if (t_room.guest.store != NULL)
    t_guest_delete(&t_room.guest);
  t_guest_new(&t_room.guest, t_room.runtime, GUEST, IMPORTS);
  OK(bop_store_max_fibers(t_room.guest.store, t_room.place == IN_STORE ? MOST : 1000));
}

void t_room_begin(int place, bop_fiber_t *full[MOST]) {
  bop_config_t *config = bop_config_new();
  bop_config_workers(config, 1);
  if (place == IN_RUNTIME)
    bop_config_max_fibers(config, MOST);
  OK(bop_runtime_new(config, &t_room.runtime));
  OK(bop_runtime_start(t_room.runtime));
  t_room.place = place;
  t_room_store();
  t_runtimes_start(1, 0);
  t_room.finalized = 0;
  for (int i = 0; i < MOST && full; i++)
    OK(t_room_spawn(0, &full[i]));
}

void t_room_end(void) {
  EVENTUALLY(t_stats(t_room.runtime).live == 0);
  CHECK_EQ(t_next(t_room.runtime), UINT64_MAX);
  for (int twice = 0; twice < 2; twice++) { /* no place was lost, and none was made */
    bop_fiber_t *full[MOST], *more = NULL;
    for (int j = 0; j < MOST; j++)
      OK(t_room_spawn(0, &full[j]));
    FAILS(t_room_spawn(0, &more), "limit of 2 fibers");
    CHECK(more == NULL);
    for (int j = 0; j < MOST; j++)
      t_release(full[j]);
  }
  t_room_delete();
}

void t_room_delete(void) {
  t_guest_delete(&t_room.guest);
  OK(bop_runtime_delete(t_room.runtime));
  t_runtimes_delete();
}
