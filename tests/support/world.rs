//! The host side of the migration stress: what a guest's calls do, and what they find wrong.

use super::guest::{Host, call_back, i32_args};
use super::stress::{Plan, step_value};
use super::{Fiber, Outcome, Rng, Runtime, Trap, fiber, thread_id};
use std::ffi::c_void;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Long enough that only a lost wake-up can use it up.
pub const LIMIT: Duration = Duration::from_secs(120);

/// What the host functions of one storm share.
pub struct World {
    pub rt: Runtime,
    pub seed: u64,
    pub steps: AtomicU64,
    /// Steps that came back on another thread.
    pub moves: AtomicU64,
    pub problems: Mutex<Vec<String>>,
}

impl World {
    pub fn problem(&self, text: String) {
        self.problems.lock().unwrap().push(text);
    }

    /// A blocking call may only fail because its fiber was cancelled.
    fn waited(&self, what: &str, status: i32) {
        if status != 0 && !(status == 2 && fiber::cancelled()) {
            self.problem(format!("{what} gave status {status}"));
        }
    }

    /// Something that suspends, now and then, chosen by seed, fiber and level.
    ///
    /// # Safety
    /// `caller` is the one that the host function was given.
    unsafe fn step(&self, caller: *mut bop::wasmtime_caller_t<'_>, id: u32, depth: u32) {
        let plan = Plan::new(self.seed, id);
        let mut rng = Rng::new(self.seed ^ u64::from(id) << 32 ^ u64::from(depth + 1));
        let before = thread_id();
        match rng.below(10) {
            0..=2 => self.waited("yield", fiber::yield_now()),
            3 => self.waited(
                "sleep",
                fiber::sleep(Duration::from_nanos(rng.below(200_000).into())),
            ),
            4 => {
                // The permit is there before the wait.
                Fiber::current().unpark();
                self.waited("park", fiber::park());
            }
            5 => {
                // SAFETY: by contract.
                let nested = unsafe { call_back(caller, "nested", &[id as i32, depth as i32]) };
                match nested {
                    Ok(value) if value == id.wrapping_sub(depth) as i32 => {}
                    Err(_) if fiber::cancelled() => {}
                    other => self.problem(format!("nested call of fiber {id}: {other:?}")),
                }
            }
            6 => {
                // SAFETY: by contract.
                let nested = unsafe { call_back(caller, "trapper", &[id as i32, depth as i32]) };
                let want = [vec!["trapper".into()], plan.frames(plan.depth - depth)].concat();
                match nested {
                    Err(Trap {
                        code: Some(9),
                        frames,
                        ..
                    }) if frames == want => {}
                    Err(_) if fiber::cancelled() => {}
                    other => self.problem(format!(
                        "nested trap of fiber {id}: {other:?}, want {want:?}"
                    )),
                }
            }
            7 => {
                let child = self.rt.spawn_host("child", 0, move || {
                    fiber::yield_now();
                    i64::from(id)
                });
                match child.join_within(LIMIT) {
                    Ok(Outcome::Returned) if child.result_i64() == i64::from(id) => {}
                    Ok(outcome) => {
                        self.problem(format!("child of fiber {id} ended with {outcome:?}"))
                    }
                    Err(status) => self.waited("join", status),
                }
            }
            _ => {}
        }
        self.steps.fetch_add(1, Relaxed);
        self.moves
            .fetch_add((thread_id() != before).into(), Relaxed);
    }
}

extern "C" fn step(
    env: *mut c_void,
    caller: *mut bop::wasmtime_caller_t<'_>,
    args: *const bop::wasmtime_val_t,
    nargs: usize,
    results: *mut bop::wasmtime_val_t,
    _: usize,
) -> Option<Box<bop::wasm_trap_t>> {
    // SAFETY: `env` is the world, which outlives its runtime's fibers; the rest is as Wasmtime gave it.
    unsafe {
        let args = i32_args(args, nargs);
        let (id, depth) = (args[0] as u32, args[1] as u32);
        (*env.cast::<World>()).step(caller, id, depth);
        results.write(super::i32_val(step_value(id, depth) as i32));
    }
    None
}

/// Waits for ever: one long sleep, or a park without an unpark.
extern "C" fn wait(
    env: *mut c_void,
    _: *mut bop::wasmtime_caller_t<'_>,
    args: *const bop::wasmtime_val_t,
    nargs: usize,
    _: *mut bop::wasmtime_val_t,
    _: usize,
) -> Option<Box<bop::wasm_trap_t>> {
    // SAFETY: as in `step`.
    let (world, parks) = unsafe { (&*env.cast::<World>(), i32_args(args, nargs)[0] == 1) };
    let status = if parks {
        fiber::park()
    } else {
        fiber::sleep(LIMIT * 10)
    };
    world.waited("endless wait", if status == 0 { -1 } else { status });
    None
}

extern "C" fn fail(
    _: *mut c_void,
    _: *mut bop::wasmtime_caller_t<'_>,
    args: *const bop::wasmtime_val_t,
    nargs: usize,
    _: *mut bop::wasmtime_val_t,
    _: usize,
) -> Option<Box<bop::wasm_trap_t>> {
    // SAFETY: as in `step`; the message is copied.
    unsafe {
        let message = format!("host error of fiber {}", i32_args(args, nargs)[0]);
        Some(bop::wasmtime_trap_new(message.as_ptr(), message.len()))
    }
}

pub const HOSTS: [Host; 3] = [
    Host {
        name: "step",
        params: 2,
        results: 1,
        call: step,
    },
    Host {
        name: "wait",
        params: 1,
        results: 0,
        call: wait,
    },
    Host {
        name: "fail",
        params: 1,
        results: 0,
        call: fail,
    },
];
