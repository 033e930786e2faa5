//! What came of a run, in full, and how two of them differ.

use super::program::REGION;
use std::hash::{DefaultHasher, Hash, Hasher};

/// One frame of a backtrace.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Frame {
    pub name: String,
    pub index: u32,
    /// From the start of the function, and of the module.
    pub offsets: [usize; 2],
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Trap {
    pub code: Option<u8>,
    pub message: String,
    pub frames: Vec<Frame>,
}

impl Trap {
    pub fn read(trap: &bop::wasm_trap_t) -> Trap {
        let (mut code, mut message, mut frames) = (0, Default::default(), Default::default());
        let code = bop::wasmtime_trap_code(trap, &mut code).then_some(code);
        bop::wasm_trap_message(trap, &mut message);
        bop::wasm_trap_trace(trap, &mut frames);
        Trap::of(code, &message, &frames)
    }

    /// Of a stack that overflowed only the code: a thread's stack holds more frames than a fiber's.
    fn of(code: Option<u8>, message: &bop::wasm_name_t, frames: &bop::wasm_frame_vec_t<'_>) -> Trap {
        if code == Some(0) {
            return Trap { code, message: String::new(), frames: Vec::new() };
        }
        let text = |name: &bop::wasm_name_t| {
            // A trap's message ends as C wants it.
            String::from_utf8_lossy(name.as_slice()).trim_end_matches('\0').to_string()
        };
        let frames = frames.as_slice().iter().flatten().map(|frame| Frame {
            name: bop::wasmtime_frame_func_name(frame).map_or("?".into(), text),
            index: bop::wasm_frame_func_index(frame),
            offsets: [bop::wasm_frame_func_offset(frame), bop::wasm_frame_module_offset(frame)],
        });
        Trap { code, message: text(message), frames: frames.collect() }
    }

    pub fn hash(&self) -> u64 {
        // Always the same keys.
        let mut hasher = DefaultHasher::new();
        Hash::hash(self, &mut hasher);
        hasher.finish()
    }

    /// For the table at the end.
    pub fn kind(&self) -> &'static str {
        match self.code {
            None => "host's message",
            Some(0) => "stack overflow",
            Some(1) => "memory bounds",
            Some(3) => "table bounds",
            Some(4) => "null function",
            Some(5) => "wrong signature",
            Some(6) => "integer overflow",
            Some(7) => "division by zero",
            Some(8) => "bad conversion",
            Some(9) => "unreachable",
            Some(13) => "host's code",
            Some(_) => "some other trap",
        }
    }
}

/// Why a call by the host failed. In Wasmtime's C API what a host function made up is no trap any more, but an error.
pub enum Failure {
    Trap(Box<bop::wasm_trap_t>),
    Error(Box<bop::wasmtime_error_t>),
}

impl Failure {
    pub fn read(&self) -> Trap {
        match self {
            Failure::Trap(trap) => Trap::read(trap),
            Failure::Error(error) => {
                let (mut message, mut frames) = (Default::default(), Default::default());
                bop::wasmtime_error_message(error, &mut message);
                bop::wasmtime_error_wasm_trace(error, &mut frames);
                Trap::of(None, &message, &frames)
            }
        }
    }

    /// What a host function returns that passes it on.
    pub fn into_trap(self) -> Box<bop::wasm_trap_t> {
        let message = self.read().message;
        match self {
            Failure::Trap(trap) => trap,
            // SAFETY: the message is copied.
            Failure::Error(_) => unsafe { bop::wasmtime_trap_new(message.as_ptr(), message.len()) },
        }
    }
}

/// All that [`Trap::kind`] should come to, and those that returned.
pub const KINDS: [&str; 12] = [
    "returned",
    "unreachable",
    "memory bounds",
    "table bounds",
    "null function",
    "wrong signature",
    "integer overflow",
    "division by zero",
    "bad conversion",
    "stack overflow",
    "host's message",
    "host's code",
];

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub end: Result<i64, Trap>,
    /// The bytes of the private region.
    pub region: Vec<u8>,
}

impl Outcome {
    pub fn kind(&self) -> &'static str {
        self.end.as_ref().map_or_else(Trap::kind, |_| "returned")
    }

    /// What is wrong with an outcome that should be this one.
    pub fn differs(&self, other: &Outcome) -> Option<String> {
        if self.end != other.end {
            return Some(format!("wanted {:?}\n  got {:?}", self.end, other.end));
        }
        assert_eq!((self.region.len(), other.region.len()), (REGION, REGION));
        let at = self.region.iter().zip(&other.region).position(|(a, b)| a != b)?;
        Some(format!("byte {at} of the region: wanted {}, got {}", self.region[at], other.region[at]))
    }
}
