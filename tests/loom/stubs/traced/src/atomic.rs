//! loom's atomics, which leave a trail (`sys::trail`).

pub use loom::sync::atomic::Ordering;

use crate::trail::note;

/// `fence` of std.
#[track_caller]
pub fn fence(order: Ordering) {
    loom::sync::atomic::fence(order);
    note("fence", 0);
}

macro_rules! atomic {
    ($name:ident $(<$param:ident>)?, $value:ty, $word:expr) => {
        #[derive(Debug)]
        pub struct $name $(<$param>)? (loom::sync::atomic::$name $(<$param>)?);

        impl $(<$param>)? Default for $name $(<$param>)? {
            fn default() -> Self {
                Self(Default::default())
            }
        }

        impl $(<$param>)? $name $(<$param>)? {
            #[track_caller]
            pub fn new(value: $value) -> Self {
                Self(loom::sync::atomic::$name::new(value))
            }

            #[track_caller]
            pub fn load(&self, order: Ordering) -> $value {
                let value = self.0.load(order);
                note("load", $word(value));
                value
            }

            #[track_caller]
            pub fn store(&self, value: $value, order: Ordering) {
                self.0.store(value, order);
                note("store", $word(value));
            }

            #[track_caller]
            pub fn swap(&self, value: $value, order: Ordering) -> $value {
                let old = self.0.swap(value, order);
                note("swap, was", $word(old));
                old
            }

            #[track_caller]
            pub fn compare_exchange(
                &self,
                current: $value,
                new: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                let result = self.0.compare_exchange(current, new, success, failure);
                match result {
                    Ok(old) => note("exchange, was", $word(old)),
                    Err(old) => note("no exchange, was", $word(old)),
                }
                result
            }

            /// As strong as the other, as on x86: loom does not model that it may fail for no reason.
            #[track_caller]
            pub fn compare_exchange_weak(
                &self,
                current: $value,
                new: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                self.compare_exchange(current, new, success, failure)
            }
        }
    };
}

macro_rules! integer {
    ($name:ident, $value:ty) => {
        atomic!($name, $value, |value| value as u64);
        integer!($name, $value, fetch_add, fetch_sub, fetch_and, fetch_or, fetch_xor, fetch_max);

        impl $name {
            #[track_caller]
            pub fn fetch_update(
                &self,
                success: Ordering,
                failure: Ordering,
                mut update: impl FnMut($value) -> Option<$value>,
            ) -> Result<$value, $value> {
                let mut old = self.load(failure);
                while let Some(new) = update(old) {
                    match self.compare_exchange(old, new, success, failure) {
                        Ok(old) => return Ok(old),
                        Err(now) => old = now,
                    }
                }
                Err(old)
            }
        }
    };
    ($name:ident, $value:ty, $($operation:ident),*) => {
        impl $name {
            $(#[track_caller]
            pub fn $operation(&self, value: $value, order: Ordering) -> $value {
                let old = self.0.$operation(value, order);
                note(concat!(stringify!($operation), ", was"), old as u64);
                old
            })*
        }
    };
}

atomic!(AtomicBool, bool, u64::from);
atomic!(AtomicPtr<T>, *mut T, |value: *mut T| value.addr() as u64);
integer!(AtomicU32, u32);
integer!(AtomicU64, u64);
integer!(AtomicI64, i64);
integer!(AtomicUsize, usize);
