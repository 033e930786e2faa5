//! Where a store keeps its WASI.
//!
//! `wasmtime_context_set_wasi` puts a `WasiP1Ctx` into the store's data, in a field that is Wasmtime's own. What is public
//! is two parts of it (`WasiView`). How far these are from its start is measured at another one, once; both must
//! agree before a pointer is made.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;
use std::sync::LazyLock;

use wasmtime_c_api::WasmtimeStoreData;
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::{WasiCtxBuilder, WasiCtxView, WasiView};

/// How far the two parts of a `WasiP1Ctx` are from its start.
static PARTS: LazyLock<[usize; 2]> = LazyLock::new(|| {
    let mut whole = WasiCtxBuilder::new().build_p1();
    let start = (&raw const whole) as usize;
    addresses(&whole.ctx()).map(|part| part - start)
});

fn addresses(view: &WasiCtxView<'_>) -> [usize; 2] {
    [(&raw const *view.ctx) as usize, (&raw const *view.table) as usize]
}

/// The WASI of a store; `None` if it has none. Who uses it sees to it that nobody else does.
pub fn of(data: &mut WasmtimeStoreData) -> Option<NonNull<WasiP1Ctx>> {
    // Wasmtime panics if there is none, and lets nobody ask.
    let parts = catch_unwind(AssertUnwindSafe(|| addresses(&data.ctx()))).ok()?;
    let [ctx, table] = *PARTS;
    let inside = ctx < size_of::<WasiP1Ctx>() && table < size_of::<WasiP1Ctx>();
    let start = parts[0].wrapping_sub(ctx);
    (inside && start == parts[1].wrapping_sub(table)).then(|| NonNull::new(start as *mut WasiP1Ctx)).flatten()
}
