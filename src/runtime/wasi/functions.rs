//! The functions, by name and type.

use wasmtime::{Error, Linker, Result};
use wasmtime_c_api::WasmtimeStoreData;
use wasmtime_wasi::I32Exit;
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::p1::types::Errno;
use wasmtime_wasi::p1::wasi_snapshot_preview1::{self as p1, WasiSnapshotPreview1};

use super::{Call, Entry, poll, stdio, wait::wait};
use crate::sched::poller::{READABLE, WRITABLE};

const MODULE: &str = "wasi_snapshot_preview1";

/// What the host may copy during one call.
pub fn set_fuel(wasi: &mut WasiP1Ctx, fuel: usize) {
    wasi.set_hostcall_fuel(fuel);
}

/// Defines functions: `now` are those that never wait, `later` return futures.
macro_rules! functions {
    ($linker:ident: $($when:ident $name:ident($($arg:ident: $type:ty),*);)*) => {
        $(functions!(@$when $linker $name($($arg: $type),*));)*
    };
    (@now $linker:ident $name:ident($($arg:ident: $type:ty),*)) => {
        $linker.func_wrap(MODULE, stringify!($name), |mut caller: Call<'_>, $($arg: $type),*| -> Result<i32> {
            let mut entry = Entry::new(&mut caller)?;
            p1::$name(entry.wasi(), &mut entry.memory.memory(), $($arg),*)
        })?;
    };
    (@later $linker:ident $name:ident($($arg:ident: $type:ty),*)) => {
        $linker.func_wrap(MODULE, stringify!($name), |mut caller: Call<'_>, $($arg: $type),*| -> Result<i32> {
            functions!(@call caller $name($($arg),*))
        })?;
    };
    (@call $caller:ident $name:ident($($arg:expr),*)) => {{
        let mut entry = Entry::new(&mut $caller)?;
        let mut memory = entry.memory.memory();
        let call = p1::$name(entry.wasi(), &mut memory, $($arg),*);
        wait(&mut $caller, entry, call)?
    }};
}

/// Defines all of WASI preview 1.
pub fn define(linker: &mut Linker<WasmtimeStoreData>) -> Result<()> {
    functions! { linker:
        now args_get(a: i32, b: i32);
        now args_sizes_get(a: i32, b: i32);
        now environ_get(a: i32, b: i32);
        now environ_sizes_get(a: i32, b: i32);
        now clock_res_get(a: i32, b: i32);
        now clock_time_get(a: i32, b: i64, c: i32);
        now random_get(a: i32, b: i32);
        now proc_raise(a: i32);
        later fd_advise(a: i32, b: i64, c: i64, d: i32);
        now fd_allocate(a: i32, b: i64, c: i64);
        later fd_datasync(a: i32);
        later fd_fdstat_get(a: i32, b: i32);
        now fd_fdstat_set_flags(a: i32, b: i32);
        now fd_fdstat_set_rights(a: i32, b: i64, c: i64);
        later fd_filestat_get(a: i32, b: i32);
        later fd_filestat_set_size(a: i32, b: i64);
        later fd_filestat_set_times(a: i32, b: i64, c: i64, d: i32);
        later fd_pread(a: i32, b: i32, c: i32, d: i64, e: i32);
        now fd_prestat_get(a: i32, b: i32);
        now fd_prestat_dir_name(a: i32, b: i32, c: i32);
        later fd_pwrite(a: i32, b: i32, c: i32, d: i64, e: i32);
        later fd_readdir(a: i32, b: i32, c: i32, d: i64, e: i32);
        later fd_seek(a: i32, b: i64, c: i32, d: i32);
        later fd_sync(a: i32);
        now fd_tell(a: i32, b: i32);
        later path_create_directory(a: i32, b: i32, c: i32);
        later path_filestat_get(a: i32, b: i32, c: i32, d: i32, e: i32);
        later path_filestat_set_times(a: i32, b: i32, c: i32, d: i32, e: i64, f: i64, g: i32);
        later path_link(a: i32, b: i32, c: i32, d: i32, e: i32, f: i32, g: i32);
        later path_open(a: i32, b: i32, c: i32, d: i32, e: i32, f: i64, g: i64, h: i32, i: i32);
        later path_readlink(a: i32, b: i32, c: i32, d: i32, e: i32, f: i32);
        later path_remove_directory(a: i32, b: i32, c: i32);
        later path_rename(a: i32, b: i32, c: i32, d: i32, e: i32, f: i32);
        later path_symlink(a: i32, b: i32, c: i32, d: i32, e: i32);
        later path_unlink_file(a: i32, b: i32, c: i32);
        now sock_accept(a: i32, b: i32, c: i32);
        now sock_recv(a: i32, b: i32, c: i32, d: i32, e: i32, f: i32);
        now sock_send(a: i32, b: i32, c: i32, d: i32, e: i32);
        now sock_shutdown(a: i32, b: i32);
    }
    linker.func_wrap(MODULE, "fd_read", |mut caller: Call<'_>, fd: i32, a: i32, b: i32, c: i32| -> Result<i32> {
        match stdio::behind(&mut caller, fd, READABLE) {
            Some(from) => stdio::read(&mut caller, from, (a, b), c),
            None => functions!(@call caller fd_read(fd, a, b, c)),
        }
    })?;
    linker.func_wrap(MODULE, "fd_write", |mut caller: Call<'_>, fd: i32, a: i32, b: i32, c: i32| -> Result<i32> {
        match stdio::behind(&mut caller, fd, WRITABLE) {
            Some(to) => stdio::write(&mut caller, to, (a, b), c),
            None => functions!(@call caller fd_write(fd, a, b, c)),
        }
    })?;
    linker.func_wrap(MODULE, "fd_close", |mut caller: Call<'_>, fd: i32| -> Result<i32> {
        let closed = functions!(@call caller fd_close(fd))?;
        if closed == Errno::Success as i32 {
            stdio::renumber(&mut caller, fd, None);
        }
        Ok(closed)
    })?;
    linker.func_wrap(MODULE, "fd_renumber", |mut caller: Call<'_>, from: i32, to: i32| -> Result<i32> {
        let moved = functions!(@call caller fd_renumber(from, to))?;
        if moved == Errno::Success as i32 && from != to {
            stdio::renumber(&mut caller, from, Some(to));
        }
        Ok(moved)
    })?;
    linker.func_wrap(MODULE, "sched_yield", |_: Call<'_>| poll::sched_yield())?;
    // Nothing of the store's WASI is needed for that, so nobody's turn is waited for.
    linker.func_wrap(MODULE, "proc_exit", |_: Call<'_>, code: i32| -> Result<()> {
        match code as u32 {
            0..126 => Err(Error::from(I32Exit(code))),
            _ => Err(Error::msg("exit with invalid exit status outside of [0..126)")),
        }
    })?;
    let poll_oneoff = |mut caller: Call<'_>, subscriptions: i32, events: i32, n: i32, count: i32| -> Result<i32> {
        if let Some(errno) = poll::poll(&mut caller, subscriptions, events, n, count)? {
            return Ok(errno);
        }
        functions!(@call caller poll_oneoff(subscriptions, events, n, count))
    };
    linker.func_wrap(MODULE, "poll_oneoff", poll_oneoff)?;
    Ok(())
}
