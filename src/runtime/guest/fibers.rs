//! Fibers of a guest's own instance, and time.

use std::collections::hash_map::Entry;
use std::ptr::NonNull;
use std::sync::Arc;

use wasmtime::{Error, Extern, Linker, Module, Ref, Result};
use wasmtime_c_api::{WASMTIME_I32, WasmtimeStoreData};
use wasmtime_wasi::I32Exit;

use super::{Call, Held, MODULE, Reply, check, exports, fiber, held, write};
use crate::runtime::{spawn, wait};
use crate::sys::clock;
use crate::wasm::end::Outcome;
use crate::wasm::fiber::{Fiber, current};
use crate::wasm::bridge;
use crate::wasm::shadow::expose::{MEMORY, OUR_MEMORY, OUR_STACK_POINTER, TABLE};
use crate::wasm::shadow::find::STACK_POINTER;
use crate::wasm::shadow::locate::probe;
use crate::wasm::shadow::{NotShared, Plan};

/// A fiber that a guest has spawned and may join.
pub struct Child {
    fiber: Arc<Fiber>,
    /// Siblings that are about to join it. It stays here as long as there are any.
    joins: u32,
    /// It has been joined or detached.
    given_up: bool,
}

impl Child {
    fn of(fiber: Arc<Fiber>) -> Child {
        Child { fiber, joins: 0, given_up: false }
    }
}

impl Held {
    /// The fiber with this number, which stays until the matching [`Held::end_join`].
    fn begin_join(&mut self, id: u64) -> Option<NonNull<Fiber>> {
        let child = self.fibers.get_mut(&id).filter(|child| !child.given_up)?;
        child.joins += 1;
        Some(NonNull::from(&*child.fiber))
    }

    fn end_join(&mut self, id: u64, joined: bool) {
        let Entry::Occupied(mut entry) = self.fibers.entry(id) else { return };
        let child = entry.get_mut();
        child.joins -= 1;
        child.given_up |= joined;
        if child.given_up && child.joins == 0 {
            entry.remove();
        }
    }

    /// Detaches a fiber; false if the number is not that of one to be joined.
    fn give_up(&mut self, id: u64) -> bool {
        let Entry::Occupied(mut entry) = self.fibers.entry(id) else { return false };
        let before = std::mem::replace(&mut entry.get_mut().given_up, true);
        if entry.get().joins == 0 {
            entry.remove();
        }
        !before
    }
}

pub fn define(linker: &mut Linker<WasmtimeStoreData>) -> Result<()> {
    let probe = probe(linker.engine()).map_err(Error::msg)?;
    let module = probe.clone();
    linker.func_wrap(MODULE, "spawn", move |mut caller: Call<'_>, func: u32, arg: i32| {
        let running = fiber(&mut caller)?;
        if held(&running.strand, |held| held.is_full()) {
            return Ok(0);
        }
        let Some(new) = start(&mut caller, running, func, arg, &module)? else { return Ok(0) };
        let id = new.id;
        held(&running.strand, |held| held.fibers.insert(id, Child::of(new)));
        Ok(id)
    })?;
    linker.func_wrap(MODULE, "go", move |mut caller: Call<'_>, func: u32, arg: i32| {
        let running = fiber(&mut caller)?;
        let started = start(&mut caller, running, func, arg, &probe)?.is_some();
        Ok(if started { Reply::Ok } else { Reply::Limit } as i32)
    })?;
    linker.func_wrap(MODULE, "join", |mut caller: Call<'_>, id: u64, result: u32| {
        join(&mut caller, id, result).map(|reply| reply as i32)
    })?;
    linker.func_wrap(MODULE, "detach", |mut caller: Call<'_>, id: u64| {
        let running = fiber(&mut caller)?;
        let given_up = held(&running.strand, |held| held.give_up(id));
        Ok(if given_up { Reply::Ok } else { Reply::Invalid } as i32)
    })?;
    linker.func_wrap(MODULE, "self", |_: Call<'_>| current().map_or(0, |fiber| fiber.id))?;
    linker.func_wrap(MODULE, "yield", |_: Call<'_>| Reply::from(wait::yield_now()) as i32)?;
    linker.func_wrap(MODULE, "sleep", |_: Call<'_>, nanoseconds: u64| {
        let deadline = clock::now().saturating_add(nanoseconds);
        Reply::from(wait::sleep_until(deadline)) as i32
    })?;
    linker.func_wrap(MODULE, "now", |_: Call<'_>| clock::now())?;
    linker.func_wrap(MODULE, "exit", |_: Call<'_>, code: i32| -> Result<()> {
        Err(Error::from(I32Exit(code)))
    })?;
    Ok(())
}

/// Starts a fiber that calls the function at this index of the instance's table. `None`: there may be no
/// more.
fn start(
    caller: &mut Call<'_>,
    running: &Fiber,
    index: u32,
    arg: i32,
    probe: &Module,
) -> Result<Option<Arc<Fiber>>> {
    let strand = &running.strand;
    share(caller, running, probe)?;
    let table = exports(caller, running).table.ok_or_else(|| {
        Error::msg(format!("bop.spawn: the instance exports no table {TABLE}: see bop_module_prepare"))
    })?;
    let func = match table.get(&mut *caller, index.into()) {
        Some(Ref::Func(Some(func))) => func,
        Some(_) => return Err(Error::msg(format!("bop.spawn: there is no function at index {index}"))),
        None => {
            let size = table.size(&mut *caller);
            return Err(Error::msg(format!("bop.spawn: index {index} is beyond the table's {size}")));
        }
    };
    let signature = strand.signature(func);
    if !signature.is_guest_entry() {
        return Err(Error::msg(format!(
            "bop.spawn: the function at index {index} is the host's, or does not take one i32 and return an \
             i32 or nothing"
        )));
    }
    Ok(spawn::guest_call(strand, func, arg, signature).ok())
}

/// Before there is a second fiber in an instance that keeps a stack in its memory: each must have its own.
fn share(caller: &mut Call<'_>, running: &Fiber, probe: &Module) -> Result<()> {
    let strand = &running.strand;
    let number = bridge::calling_instance(caller).map(u64::from);
    if number.is_some_and(|number| held(strand, |held| held.ready.contains(&number))) {
        return Ok(());
    }
    let mut found = [OUR_STACK_POINTER, STACK_POINTER].into_iter();
    if found.any(|name| matches!(caller.get_export(name), Some(Extern::Global(_)))) {
        // For a runtime that has shared nothing yet (`shadow::locate::probe`).
        let _ = running.shared().probe.set(Ok(probe.clone()));
        let names = [OUR_STACK_POINTER, STACK_POINTER, MEMORY, OUR_MEMORY];
        let exports: Vec<_> = names.map(|name| (name, caller.get_export(name))).into();
        let get = |name: &str| exports.iter().find(|e| e.0 == name).and_then(|e| e.1.clone());
        match strand.share(&Plan::default(), Some(running), |_, name| get(name)) {
            Ok(()) | Err(NotShared::Already) => {}
            Err(e) => return Err(Error::msg(format!("bop.spawn: the instance can't be shared: {e}"))),
        }
    }
    if let Some(number) = number {
        held(strand, |held| held.ready.insert(number));
    }
    Ok(())
}

fn join(caller: &mut Call<'_>, id: u64, result: u32) -> Result<Reply> {
    let running = fiber(caller)?;
    check(caller, running, result, 4)?;
    if running.id == id {
        return Ok(Reply::NotAllowed);
    }
    let Some(other) = held(&running.strand, |held| held.begin_join(id)) else {
        return Ok(Reply::Invalid);
    };
    // SAFETY: it stays among the children until `end_join`.
    let other = unsafe { other.as_ref() };
    let status = wait::join_until(other, None);
    let value = match other.end().map(|end| (end.outcome, end)) {
        _ if status != wait::Status::Ok => None,
        Some((Outcome::Exited, end)) => Some(end.exit_code),
        Some((Outcome::Returned, end)) => match end.results.first() {
            // SAFETY: the kind says which field is set.
            Some(value) if value.kind == WASMTIME_I32 => Some(unsafe { value.of.i32 }),
            _ => Some(0),
        },
        _ => None,
    };
    held(&running.strand, |held| held.end_join(id, status == wait::Status::Ok));
    let Some(value) = value else {
        return Ok(if status == wait::Status::Ok { Reply::Failed } else { status.into() });
    };
    write(caller, running, result, &value.to_le_bytes())?;
    Ok(Reply::Ok)
}
