// A coroutine of Boost.Context that may call Wasm, be suspended in the middle of it, and be resumed
// by any thread. BOP does not know it: the hooks of bop.h tell it what it must know.
#ifndef BOP_EXAMPLES_COROUTINE_HH
#define BOP_EXAMPLES_COROUTINE_HH

#include <bop.h>

#include <boost/context/continuation.hpp>
#include <boost/context/protected_fixedsize_stack.hpp>

#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <utility>

inline void ok(wasmtime_error_t *error) { // NULL is success
  if (error == nullptr)
    return;
  wasm_name_t text;
  wasmtime_error_message(error, &text);
  std::fprintf(stderr, "coroutines: %.*s\n", static_cast<int>(text.size), text.data);
  std::exit(1);
}

// What changes hands with a coroutine. A program needs one of the first two; the last one shows that
// it can't do without.
enum class Hooks {
  activation, // the thread's pointer and the store's words: coroutines may share a store
  pointer,    // the thread's pointer alone: enough if each coroutine has a store of its own
  none,       // what Boost.Context saves, and nothing else
};

class Coroutine {
 public:
  // Addresses, until they are touched. Wasm traps before it comes into the lower part, which is for
  // the host functions that it calls.
  static constexpr std::size_t STACK = 512 << 10, HOST_STACK = 128 << 10;

  // Will run `body`, which uses the store of `context`.
  Coroutine(Hooks hooks, wasmtime_context_t *context, std::function<void()> body)
      : hooks_(hooks), context_(context), body_(std::move(body)), allocator_(STACK),
        stack_(allocator_.allocate()) {
    // The first page is a guard, and counts as part of it.
    char *lowest = static_cast<char *>(stack_.sp) - stack_.size;
    ok(bop_activation_init(&activation_, lowest, stack_.size, stack_.size - STACK + HOST_STACK));
  }

  // Boost unwinds a suspended coroutine when it is destroyed, and no exception may cross the frames
  // of Wasm. So it must have finished.
  ~Coroutine() {
    if (!finished_)
      std::abort();
  }

  Coroutine(const Coroutine &) = delete;
  Coroutine &operator=(const Coroutine &) = delete;

  // Runs it until it suspends or finishes: on a thread that has called wasmtime_store_tls_init, and
  // while no other thread uses the store.
  void resume() {
    enter();
    // Of Boost's two interfaces, the one whose switch does nothing else. That of boost::context::fiber
    // also saves libstdc++'s list of exceptions; since Boost 1.88, and in 1.90 still, it keeps the
    // list's address, a thread's own, across the switch (boostorg/context, issue 323; docs/tls.md).
    if (!started_) {
      started_ = true;
      self_ = boost::context::callcc(
          std::allocator_arg, boost::context::preallocated(stack_.sp, stack_.size, stack_), allocator_,
          [this](boost::context::continuation &&resumer) {
            resumer_ = std::move(resumer);
            body_();
            finished_ = true;
            return std::move(resumer_);
          });
    } else {
      self_ = self_.resume();
    }
    leave();
  }

  // On the coroutine: out, and back in when somebody resumes it. Whoever calls this holds nothing
  // thread-local across the call.
  void suspend() { resumer_ = resumer_.resume(); }

  bool finished() const { return finished_; }

 private:
  void enter() {
    if (hooks_ == Hooks::activation) {
      ok(bop_activation_restore(context_, &activation_));
    } else if (hooks_ == Hooks::pointer) {
      outer_pointer_ = wasmtime_tls_get();
      wasmtime_tls_set(pointer_);
    }
  }

  void leave() {
    if (hooks_ == Hooks::activation) {
      ok(bop_activation_save(context_, &activation_));
    } else if (hooks_ == Hooks::pointer) {
      pointer_ = wasmtime_tls_get();
      wasmtime_tls_set(outer_pointer_);
    }
  }

  const Hooks hooks_;
  wasmtime_context_t *const context_;
  const std::function<void()> body_;
  boost::context::protected_fixedsize_stack allocator_;
  boost::context::stack_context stack_; // freed by Boost at the coroutine's end
  boost::context::continuation self_;    // while it is suspended
  boost::context::continuation resumer_; // while it runs
  bop_activation_t activation_;
  void *pointer_ = nullptr, *outer_pointer_ = nullptr;
  bool started_ = false, finished_ = false;
};

#endif
