// The same host in C++17, which owns what it is given by std::unique_ptr.
#include <bop.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>

namespace {

constexpr std::string_view guest =
    "(module"
    "  (func (export \"spin\") (loop (br 0)))"
    "  (func (export \"sum\") (param $n i32) (result i32) (local $s i32)"
    "    (loop $l (local.set $s (i32.add (local.get $s) (local.get $n)))"
    "      (br_if $l (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))"
    "    local.get $s))";

template <auto deleter> struct Delete {
  template <typename T> void operator()(T *object) const { deleter(object); }
};
template <typename T, auto deleter> using Handle = std::unique_ptr<T, Delete<deleter>>;
using Store = Handle<bop_store_t, bop_store_delete>;
using Fiber = Handle<bop_fiber_t, bop_fiber_detach>;

void check(bool condition, const char *what) {
  if (!condition)
    throw std::runtime_error(what);
}

void ok(wasmtime_error_t *error) {
  if (error == nullptr)
    return;
  wasm_name_t message;
  wasmtime_error_message(error, &message);
  std::string text(message.data, message.size);
  wasm_byte_vec_delete(&message);
  wasmtime_error_delete(error);
  throw std::runtime_error(text);
}

Store instantiate(bop_runtime_t *runtime, std::string_view name, wasmtime_func_t &out) {
  wasm_byte_vec_t wasm;
  ok(wasmtime_wat2wasm(guest.data(), guest.size(), &wasm));
  wasm_engine_t *engine = bop_runtime_engine(runtime);
  wasmtime_module_t *compiled = nullptr;
  ok(wasmtime_module_new(engine, reinterpret_cast<const uint8_t *>(wasm.data), wasm.size,
                         &compiled));
  Handle<wasmtime_module_t, wasmtime_module_delete> module(compiled);
  wasm_byte_vec_delete(&wasm);

  wasmtime_store_t *store = wasmtime_store_new(engine, nullptr, nullptr);
  wasmtime_context_t *context = wasmtime_store_context(store);
  wasmtime_instance_t instance;
  wasm_trap_t *trap = nullptr;
  ok(wasmtime_instance_new(context, module.get(), nullptr, 0, &instance, &trap));
  check(trap == nullptr, "the instance trapped");
  wasmtime_extern_t item;
  check(wasmtime_instance_export_get(context, &instance, name.data(), name.size(), &item),
        "no export");
  check(item.kind == WASMTIME_EXTERN_FUNC, "the export is no function");
  out = item.of.func;

  bop_store_t *handle = nullptr;
  ok(bop_store_new(runtime, store, &handle));
  return Store(handle);
}

Fiber spawn(const Store &store, const wasmtime_func_t &func, const wasmtime_val_t *args,
            size_t nargs) {
  bop_fiber_t *fiber = nullptr;
  ok(bop_spawn(store.get(), &func, args, nargs, nullptr, &fiber));
  return Fiber(fiber);
}

int run(bop_runtime_t *runtime) {
  ok(bop_runtime_start(runtime));
  wasmtime_func_t spin, sum;
  Store spinning = instantiate(runtime, "spin", spin);
  Store adding = instantiate(runtime, "sum", sum);

  Fiber spinner = spawn(spinning, spin, nullptr, 0);
  while (bop_fiber_state(spinner.get()) != BOP_STATE_RUNNING)
    check(bop_sleep(1000000) == BOP_OK, "bop_sleep");
  wasmtime_val_t argument, result;
  argument.kind = WASMTIME_I32;
  argument.of.i32 = 100;
  Fiber adder = spawn(adding, sum, &argument, 1);
  bop_outcome_t outcome;
  check(bop_fiber_join(adder.get(), &outcome) == BOP_OK, "join sum");
  check(outcome == BOP_OUTCOME_RETURNED, "sum did not return");
  ok(bop_fiber_results(adder.get(), &result, 1));
  check(result.kind == WASMTIME_I32 && result.of.i32 == 5050, "sum returned something else");

  bop_stats_t stats{};
  stats.size = sizeof stats;
  bop_runtime_stats(runtime, &stats);
  check(stats.workers == 1 && stats.preemptions > 0, "the spinner was not preempted");

  check(bop_fiber_cancel(spinner.get()) == BOP_OK, "cancel spin");
  check(bop_fiber_join(spinner.get(), &outcome) == BOP_OK, "join spin");
  check(outcome == BOP_OUTCOME_CANCELLED, "spin was not cancelled");
  return result.of.i32;
}

} // namespace

int main() {
  try {
    bop_config_t *config = bop_config_new();
    bop_config_workers(config, 1);
    bop_runtime_t *runtime = nullptr;
    ok(bop_runtime_new(config, &runtime));
    int sum = run(runtime);
    ok(bop_runtime_delete(runtime));
    std::printf("sum %d, beside a loop without end\n", sum);
  } catch (const std::exception &error) {
    std::fprintf(stderr, "consumer: %s\n", error.what());
    return 1;
  }
  return 0;
}
