// Coroutines that BOP did not make, those of Boost.Context, run Wasm. Each is suspended by a host
// function, in the middle of several frames of Wasm and host, and resumed by another thread than
// before, every time. Some return, most trap, while others of their store are suspended.
//
//     coroutines [--hooks activation|pointer|none] [COROUTINES [STORES]]
//
// Every result, trap and backtrace is compared with what it must be. The last line is then
//     every result is right
// else the exit status is 1. With `--hooks none` none of this works; `--hooks pointer` needs as many
// stores as coroutines.
#include "coroutine.hh"

#include <unistd.h>
#include <wasmtime.hh>

#include <algorithm>
#include <array>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

namespace {

// ---- the guest ----

// walk calls itself through the host, `depth` times, so that Wasm and host frames alternate. Its local
// $y lives across suspensions, on the way down and on the way back. At the bottom is one of five ends.
const char GUEST[] = R"((module
  (import "host" "suspend" (func $suspend))
  (import "host" "descend" (func $descend (param i32 i32 i64) (result i64)))
  (import "host" "stop" (func $stop))
  (memory 1)
  (type $end (func (param i64) (result i64)))
  (table funcref (elem $returns $divides $loads $stops $recurses))
  (func $returns (type $end) (local.get 0))
  (func $divides (type $end) (i64.div_u (local.get 0) (i64.const 0)))
  (func $loads (type $end) (i64.load (i32.const 0x7fff0000)))
  (func $stops (type $end) (call $stop) (local.get 0))
  (func $recurses (type $end) (i64.add (call $recurses (local.get 0)) (i64.const 1)))
  (func $walk (export "walk") (param $end i32) (param $depth i32) (param $x i64) (result i64)
    (local $y i64)
    (local.set $y (i64.add (i64.mul (local.get $x) (i64.const 6364136223846793005))
                           (i64.extend_i32_u (local.get $depth))))
    (call $suspend)
    (if (result i64) (local.get $depth)
      (then (call $descend (local.get $end) (i32.sub (local.get $depth) (i32.const 1)) (local.get $y)))
      (else (call_indirect (type $end) (local.get $y) (local.get $end))))
    (call $suspend)
    (i64.rotl (i64.xor (local.get $y)) (i64.const 7))))
)";

// The ends, in the order of the guest's table: the function that must be youngest in the backtrace,
// and the trap's code.
struct End {
  const char *function;
  wasmtime_trap_code_t code;
};
const std::array<End, 5> ENDS = {{{"returns", 0}, // no trap
                                  {"divides", WASMTIME_TRAP_CODE_INTEGER_DIVISION_BY_ZERO},
                                  {"loads", WASMTIME_TRAP_CODE_MEMORY_OUT_OF_BOUNDS},
                                  {"stops", WASMTIME_TRAP_CODE_INTERRUPT}, // the host's trap
                                  {"recurses", WASMTIME_TRAP_CODE_STACK_OVERFLOW}}};
enum { RETURNS, DIVIDES, LOADS, STOPS, RECURSES };

// What walk returns if its end does, computed without Wasm.
uint64_t walk(int depth, uint64_t x) {
  uint64_t y = x * UINT64_C(6364136223846793005) + static_cast<uint64_t>(depth);
  uint64_t r = (depth > 0 ? walk(depth - 1, y) : y) ^ y;
  return r << 7 | r >> 57;
}

// ---- a store with one instance, and coroutines that call it ----

using Walk = wasmtime::TypedFunc<std::tuple<int32_t, int32_t, int64_t>, int64_t>;

// A call of walk on a coroutine of its own.
struct Call {
  int end, depth;
  int64_t x;
  std::optional<Coroutine> coroutine;
  int64_t result = 0;
  std::optional<wasmtime::Trap> trap;
  int thread = -1;     // the one that resumed it last
  int left_behind = 0; // other calls that were suspended in its store, in Wasm, when it finished
};

wasmtime::Trap trap_of(wasmtime::TrapError &&failure) {
  if (auto *error = std::get_if<wasmtime::Error>(&failure.data))
    ok(error->capi_release()); // the call was wrong: says so and exits
  return std::get<wasmtime::Trap>(std::move(failure.data));
}

struct Guest {
  wasmtime::Store store;
  std::optional<Walk> walk;
  Call *running = nullptr; // its coroutines take turns: the one that has the turn
  // Written by whoever has the turn.
  int suspended = 0;
  int suspensions = 0, moves = 0;

  Guest(wasmtime::Engine &engine, const wasmtime::Module &module) : store(engine) {
    // A host function finds its coroutine by the store, not by anything thread-local.
    auto suspend = wasmtime::Func::wrap(store, [this]() {
      pid_t before = gettid();
      suspended++;
      running->coroutine->suspend();
      suspended--;
      suspensions++;
      moves += gettid() != before;
    });
    auto descend = wasmtime::Func::wrap(
        store,
        [this](wasmtime::Caller caller, int32_t end, int32_t depth,
               int64_t x) -> wasmtime::Result<int64_t, wasmtime::Trap> {
          auto result = walk->call(caller.context(), {end, depth, x});
          if (!result)
            return trap_of(result.err()); // as it is, with its backtrace
          return result.ok();
        });
    auto stop =
        wasmtime::Func::wrap(store, []() -> wasmtime::Result<std::monostate, wasmtime::Trap> {
          return wasmtime::Trap(WASMTIME_TRAP_CODE_INTERRUPT);
        });
    auto instance = wasmtime::Instance::create(store, module, {suspend, descend, stop}).unwrap();
    auto exported = std::get<wasmtime::Func>(*instance.get(store, "walk"));
    walk = exported.typed<std::tuple<int32_t, int32_t, int64_t>, int64_t>(store).unwrap();
  }
  Guest(const Guest &) = delete;

  // On the call's coroutine.
  void run(Call &call) {
    auto result = walk->call(store, {call.end, call.depth, call.x});
    if (result)
      call.result = result.ok();
    else
      call.trap = trap_of(result.err());
  }
};

// ---- the scheduler: one queue, and threads that take from it ----

class Scheduler {
 public:
  void add(Guest &guest, Call &call) {
    ready_.emplace_back(&guest, &call);
    unfinished_++;
  }

  void run(int threads) {
    std::vector<std::thread> all;
    for (int i = 0; i < threads; i++)
      all.emplace_back(&Scheduler::work, this, i);
    for (auto &thread : all)
      thread.join();
  }

 private:
  void work(int me) {
    ok(wasmtime_store_tls_init());
    std::unique_lock lock(mutex_);
    while (unfinished_ > 0) {
      // The oldest whose store is free, and that another thread resumed last: a scheduler that has
      // work to do would not insist on this.
      auto next = std::find_if(ready_.begin(), ready_.end(), [me](auto &entry) {
        return entry.first->running == nullptr && entry.second->thread != me;
      });
      if (next == ready_.end()) {
        changed_.wait(lock);
        continue;
      }
      auto [guest, call] = *next;
      ready_.erase(next);
      guest->running = call;
      lock.unlock();
      call->coroutine->resume();
      lock.lock();
      guest->running = nullptr;
      call->thread = me;
      if (call->coroutine->finished()) {
        call->left_behind = guest->suspended;
        unfinished_--;
      } else {
        ready_.emplace_back(guest, call);
      }
      changed_.notify_all();
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::pair<Guest *, Call *>> ready_;
  int unfinished_ = 0;
};

// ---- what must have come out ----

// The functions' names, youngest first.
std::string trace_of(const wasmtime::Trap &trap) {
  std::string names;
  for (const auto &frame : trap.trace())
    names += (names.empty() ? "" : " ") + std::string(frame.func_name().value_or("?"));
  return names;
}

std::string wanted_trace(const Call &call) {
  std::string names = ENDS[call.end].function;
  if (call.end == RECURSES) { // Wasmtime notes the youngest 20 frames
    for (int i = 1; i < 20; i++)
      names += " recurses";
    return names;
  }
  for (int i = 0; i <= call.depth; i++)
    names += " walk";
  return names;
}

// Empty if it is as it must be.
std::string what_is_wrong(const Call &call) {
  if (call.end == RETURNS) {
    auto wanted = static_cast<int64_t>(walk(call.depth, static_cast<uint64_t>(call.x)));
    if (call.trap)
      return "trapped in \"" + trace_of(*call.trap) + "\"";
    if (call.result != wanted)
      return "returned " + std::to_string(call.result) + ", not " + std::to_string(wanted);
    return "";
  }
  if (!call.trap)
    return "did not trap";
  std::string got = trace_of(*call.trap), wanted = wanted_trace(call);
  if (got != wanted)
    return "trapped in \"" + got + "\", not in \"" + wanted + "\"";
  return call.trap->code() == ENDS[call.end].code ? "" : "another trap: " + call.trap->message();
}

[[noreturn]] void usage() {
  std::fprintf(stderr,
               "usage: coroutines [--hooks activation|pointer|none] [COROUTINES [STORES]]\n");
  std::exit(2);
}

} // namespace

int main(int argc, char **argv) {
  constexpr int THREADS = 3;
  Hooks hooks = Hooks::activation;
  std::vector<int> numbers;
  for (int i = 1; i < argc; i++) {
    std::string word = argv[i];
    if (word == "--hooks" && i + 1 < argc) {
      std::string which = argv[++i];
      if (which == "pointer")
        hooks = Hooks::pointer;
      else if (which == "none")
        hooks = Hooks::none;
      else if (which != "activation")
        usage();
    } else {
      numbers.push_back(std::atoi(argv[i]));
    }
  }
  int n = numbers.size() > 0 ? numbers[0] : 100, stores = numbers.size() > 1 ? numbers[1] : 4;
  if (n < 1 || stores < 1 || numbers.size() > 2)
    usage();
  std::printf("%d coroutines in %d stores, on %d threads\n", n, stores, THREADS);
  std::fflush(stdout);

  wasmtime::Config config;
  // Without an activation Wasm's limit is this far from where it was entered; with one it is not used.
  config.max_wasm_stack(Coroutine::STACK / 2);
  wasmtime::Engine engine(std::move(config));
  auto module = wasmtime::Module::compile(engine, GUEST).unwrap();

  std::deque<Guest> guests;
  std::deque<Call> calls;
  Scheduler scheduler;
  for (int i = 0; i < stores; i++)
    guests.emplace_back(engine, module);
  for (int i = 0; i < n; i++) {
    Guest &guest = guests[i % stores];
    Call &call = calls.emplace_back();
    call.end = i / 3 % static_cast<int>(ENDS.size()); // so that a store has calls of every end
    call.depth = 1 + i % 7;
    call.x = i;
    call.coroutine.emplace(hooks, guest.store.context().capi(),
                           [&guest, &call] { guest.run(call); });
    scheduler.add(guest, call);
  }
  scheduler.run(THREADS);

  int wrong = 0, returned = 0, among_others = 0, suspensions = 0, moves = 0;
  for (auto &call : calls) {
    std::string mistake = what_is_wrong(call);
    if (!mistake.empty() && ++wrong <= 3)
      std::printf("wrong: a call that %s: %s\n", ENDS[call.end].function, mistake.c_str());
    returned += !call.trap;
    among_others += call.trap && call.left_behind > 0;
  }
  for (auto &guest : guests) {
    suspensions += guest.suspensions;
    moves += guest.moves;
  }
  std::printf("%d suspensions in Wasm, %d of them ended on another thread\n", suspensions, moves);
  std::printf("%d returned, %d trapped, %d of them while others of their store were suspended\n",
              returned, n - returned, among_others);
  // Else this has tested less than it says. Few coroutines may be too few for such a trap.
  bool tested = moves == suspensions && (among_others > 0 || n < 10 * stores);
  if (wrong > 0)
    std::printf("%d results are wrong\n", wrong);
  else
    std::printf(tested ? "every result is right\n" : "too little was tested\n");
  return wrong == 0 && tested ? 0 : 1;
}
