// The headers in C++17, beside Wasmtime's own C++ layer; and exceptions on fibers.
#include "support/support.h"

#include <array>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>
#include <wasmtime.hh>

namespace {

struct Counted {
  static std::atomic<int> live;
  Counted() { ++live; }
  Counted(const Counted &) = delete;
  Counted &operator=(const Counted &) = delete;
  ~Counted() { --live; }
};
std::atomic<int> Counted::live{0};

// Several frames between throw and catch, each with something to destroy, each suspended once.
__attribute__((noinline)) int64_t descend(int depth, const std::string &words) {
  Counted counted;
  CHECK_EQ(bop_yield(), BOP_OK);
  if (depth == 0)
    throw std::runtime_error(words);
  return descend(depth - 1, words) + Counted::live;
}

extern "C" int64_t throws(void *env) {
  auto number = *static_cast<int *>(env);
  int64_t caught = 0;
  for (int round = 0; round < 5; round++) {
    auto words = "fiber " + std::to_string(number) + " round " + std::to_string(round);
    std::string got;
    try {
      descend(round + 3, words);
    } catch (const std::runtime_error &error) {
      // No suspension in here: the list of caught exceptions belongs to the thread.
      got = error.what();
    }
    CHECK_EQ(bop_yield(), BOP_OK);
    CHECK(got == words);
    caught += got.size();
  }
  return caught;
}

void exceptions(bop_runtime_t *runtime) {
  CASE("exceptions");
  constexpr int n = 32;
  std::array<int, n> numbers{};
  std::vector<bop_fiber_t *> fibers;
  for (int i = 0; i < n; i++) {
    numbers[i] = 100 + i;
    fibers.push_back(t_spawn_host(runtime, throws, &numbers[i], nullptr));
  }
  for (auto *fiber : fibers)
    CHECK_EQ(t_result(fiber), 5 * std::string("fiber 100 round 0").size());
  CHECK_EQ(Counted::live, 0);
}

// Everything but the fibers through wasmtime.hh.
void wasm(bop_runtime_t *runtime) {
  CASE("wasmtime.hh");
  wasmtime::Engine engine(wasmtime_engine_clone(bop_runtime_engine(runtime)));
  auto module = wasmtime::Module::compile(
                    engine, "(module (import \"host\" \"add\" (func $add (param i32 i32) (result i32)))"
                            "  (func (export \"sum\") (param $n i32) (result i32) (local $s i32)"
                            "    (loop $l (local.set $s (call $add (local.get $s) (local.get $n)))"
                            "      (br_if $l (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))"
                            "    local.get $s))")
                    .unwrap();
  wasmtime::Linker linker(engine);
  std::atomic<int> calls{0};
  linker
      .func_wrap("host", "add",
                 [&calls](int32_t a, int32_t b) -> int32_t {
                   ++calls;
                   CHECK_EQ(bop_yield(), BOP_OK);
                   return a + b;
                 })
      .unwrap();
  wasmtime::Store store(engine);
  auto instance = linker.instantiate(store, module).unwrap();
  auto sum = std::get<wasmtime::Func>(*instance.get(store, "sum")).capi();
  bop_store_t *handle = nullptr;
  OK(bop_store_new(runtime, store.capi_release(), &handle));

  std::vector<std::unique_ptr<bop_fiber_t, decltype(&bop_fiber_detach)>> fibers;
  for (int n = 1; n <= 20; n++) {
    wasmtime_val_t argument = t_i32(n);
    bop_fiber_t *fiber = nullptr;
    OK(bop_spawn(handle, &sum, &argument, 1, nullptr, &fiber));
    fibers.emplace_back(fiber, bop_fiber_detach);
  }
  for (int n = 1; n <= 20; n++) {
    auto *fiber = fibers[static_cast<size_t>(n) - 1].get();
    JOINS(fiber, BOP_OUTCOME_RETURNED);
    wasmtime_val_t result;
    OK(bop_fiber_results(fiber, &result, 1));
    CHECK_EQ(result.of.i32, n * (n + 1) / 2);
  }
  CHECK_EQ(calls, 20 * 21 / 2);
  bop_store_delete(handle);
}

// An error of BOP's is one of Wasmtime's.
void errors(bop_runtime_t *runtime) {
  CASE("errors");
  bop_fiber_t *fiber = nullptr;
  wasmtime::Error error(bop_spawn_host(runtime, nullptr, nullptr, nullptr, nullptr, &fiber));
  CHECK_HAS(error.message().c_str(), "NULL");
  CHECK(fiber == nullptr);
}

} // namespace

int main() {
  t_start("cpp");
  bop_runtime_t *runtime = t_runtime(2, 50000);
  OK(bop_runtime_start(runtime));
  exceptions(runtime);
  wasm(runtime);
  errors(runtime);
  OK(bop_runtime_delete(runtime));
  return 0;
}
