//! The guest of the migration stress, what each of its fibers is to do, and what it must give.
//!
//! A fiber's id and the seed decide everything about it. It goes down through `depth` frames, each called
//! `left` or `right` by one bit of its path, and ends in a function named after its end. So a backtrace
//! spells the fiber's own path, and a frame of somebody else's shows.

use super::{Outcome, Rng, Trap};

/// Wasmtime's default limit on the frames of a backtrace.
const MAX_FRAMES: usize = 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    Return,
    Unreachable,
    Bounds,
    Divide,
    Exhaust,
    Error,
    /// The rest never end by themselves.
    Spin,
    Sleep,
    Park,
}

use End::*;

impl End {
    /// In the order of the guest's table.
    pub const ALL: [End; 9] = [
        Return,
        Unreachable,
        Bounds,
        Divide,
        Exhaust,
        Error,
        Spin,
        Sleep,
        Park,
    ];
    /// How many fibers of 100 get each.
    const WEIGHTS: [u32; 9] = [30, 12, 12, 12, 4, 10, 8, 8, 4];

    pub fn endless(self) -> bool {
        self >= Spin
    }

    /// The guest's function.
    fn function(self) -> &'static str {
        [
            "return",
            "unreachable",
            "bounds",
            "divide",
            "exhaust",
            "error",
            "spin",
            "sleep",
            "park",
        ][self as usize]
    }

    /// Wasmtime's code of the trap.
    fn code(self) -> Option<u8> {
        match self {
            Unreachable => Some(9),
            Bounds => Some(1),
            Divide => Some(7),
            Exhaust => Some(0),
            _ => None,
        }
    }
}

/// What a fiber is to do.
#[derive(Clone, Debug)]
pub struct Plan {
    pub id: u32,
    pub path: u32,
    pub depth: u32,
    pub end: End,
    /// Somebody cancels it, early or late.
    pub cancel: bool,
}

impl Plan {
    pub fn new(seed: u64, id: u32) -> Plan {
        let mut rng = Rng::new(seed ^ u64::from(id) << 32);
        let mut pick = rng.below(End::WEIGHTS.iter().sum());
        let mut end = 0;
        while pick >= End::WEIGHTS[end] {
            pick -= End::WEIGHTS[end];
            end += 1;
        }
        let end = End::ALL[end];
        let cancel = end.endless() || rng.below(8) == 0;
        Plan {
            id,
            path: rng.next(),
            depth: rng.below(13),
            end,
            cancel,
        }
    }

    pub fn args(&self) -> [i32; 4] {
        [
            self.id as i32,
            self.path as i32,
            self.depth as i32,
            self.end as i32,
        ]
    }

    /// The frames of a backtrace taken `levels` frames below `run`, youngest first.
    pub fn frames(&self, levels: u32) -> Vec<String> {
        let side = |level: u32| {
            if self.path >> level & 1 == 1 {
                "left"
            } else {
                "right"
            }
        };
        (0..levels)
            .rev()
            .map(side)
            .chain(["run"])
            .map(String::from)
            .collect()
    }

    /// All frames of a fiber that reached its end.
    pub fn all_frames(&self) -> Vec<String> {
        match self.end {
            Exhaust => vec!["exhaust".into(); MAX_FRAMES],
            end => [vec![end.function().into()], self.frames(self.depth)].concat(),
        }
    }

    /// What `run` returns: the guest's arithmetic over again.
    pub fn value(&self) -> i32 {
        fn dispatch(id: u32, path: u32, depth: u32) -> u32 {
            if depth == 0 {
                return id.wrapping_mul(7) ^ path;
            }
            let salt = if path & 1 == 1 { 0x51 } else { 0xa3 };
            let (path, depth) = (path >> 1, depth - 1);
            let a = (path ^ depth.wrapping_mul(0x9e37_79b1)).wrapping_add(salt);
            let a = a.wrapping_add(step_value(id, depth));
            let b = (u64::from(a).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 13) as u32;
            dispatch(id, path, depth)
                .wrapping_mul(31)
                .wrapping_add(a ^ b)
        }
        dispatch(self.id, self.path, self.depth) as i32
    }

    /// Is this how the fiber had to end?
    pub fn check(
        &self,
        outcome: Outcome,
        value: Option<i64>,
        trap: Option<&Trap>,
    ) -> Result<(), String> {
        let natural = match (self.end, outcome) {
            (Return, Outcome::Returned) => value == Some(self.value().into()),
            (end, Outcome::Trapped) if !end.endless() && end != Return => {
                trap.is_some_and(|trap| {
                    let said = end != Error
                        || trap
                            .message
                            .contains(&format!("host error of fiber {}", self.id));
                    trap.code == end.code() && trap.frames == self.all_frames() && said
                })
            }
            _ => false,
        };
        let cancelled = self.cancel && outcome == Outcome::Cancelled && self.is_on_its_way(trap);
        match natural || cancelled {
            true => Ok(()),
            false => Err(format!(
                "{self:?} ended with {outcome:?}, value {value:?}, {trap:?}"
            )),
        }
    }

    /// A cancelled fiber stops wherever it is: its backtrace must be the way down, as far as it came, and
    /// then nothing but the helpers that may run at any level. One that never began has no frames.
    fn is_on_its_way(&self, trap: Option<&Trap>) -> bool {
        let frames = trap.map_or(&[][..], |trap| &trap.frames);
        if self.end == Exhaust && frames.len() == MAX_FRAMES {
            // Wasmtime cuts a trace here: so much of the descent, then of the way as far as it fits.
            let deep = frames.iter().take_while(|frame| *frame == "exhaust").count();
            let whole = [vec!["exhaust".into(); deep], self.frames(self.depth)].concat();
            return deep > 0 && whole.len() >= MAX_FRAMES && frames == &whole[..MAX_FRAMES];
        }
        let mut way = self.frames(self.depth);
        way.insert(0, self.end.function().into());
        let came = frames
            .iter()
            .rev()
            .zip(way.iter().rev())
            .take_while(|(a, b)| a == b)
            .count();
        let rest: Vec<&str> = frames.iter().rev().skip(came).map(String::as_str).collect();
        let helpers = [
            &[][..],
            &["burn"],
            &["nested"],
            &["nested", "burn"],
            &["trapper"],
            &["trapper", "burn"],
        ];
        let exhausting =
            self.end == Exhaust && came == way.len() && rest.iter().all(|name| *name == "exhaust");
        frames.is_empty() || came > 0 && (helpers.contains(&&rest[..]) || exhausting)
    }
}

/// What the host function `step` returns.
pub fn step_value(id: u32, depth: u32) -> u32 {
    id.wrapping_mul(31).wrapping_add(depth)
}

/// The guest's text. `burn` has a loop, so every level passes epoch checks, and `step` is where the host yields,
/// sleeps, calls back. `$a`, `$b` and `$c` live in registers or on the native stack across all of that.
pub fn text() -> String {
    let dispatch = "
        (if (result i32) (i32.eqz (local.get $depth))
          (then (call_indirect (type $f) (local.get $id) (local.get $path) (i32.const 0) (local.get $end) (local.get $end)))
          (else (if (result i32) (i32.and (local.get $path) (i32.const 1))
            (then (call $left (local.get $id) (i32.shr_u (local.get $path) (i32.const 1))
              (i32.sub (local.get $depth) (i32.const 1)) (local.get $end)))
            (else (call $right (local.get $id) (i32.shr_u (local.get $path) (i32.const 1))
              (i32.sub (local.get $depth) (i32.const 1)) (local.get $end))))))";
    let params = "(type $f) (param $id i32) (param $path i32) (param $depth i32) (param $end i32) (result i32)";
    let level = |name: &str, salt: u32| {
        format!(
            "(func ${name} {params} (local $a i32) (local $b i64) (local $c f64) (local $r i32)
              (local.set $a (i32.add (i32.const {salt})
                (i32.xor (local.get $path) (i32.mul (local.get $depth) (i32.const 0x9e3779b1)))))
              (call $burn (i32.and (local.get $a) (i32.const 63)))
              (local.set $a (i32.add (local.get $a) (call $step (local.get $id) (local.get $depth))))
              (local.set $b (i64.mul (i64.extend_i32_u (local.get $a)) (i64.const 0x9e3779b97f4a7c15)))
              (local.set $c (f64.convert_i32_u (local.get $a)))
              (local.set $r {dispatch})
              (if (f64.ne (local.get $c) (f64.convert_i32_u (local.get $a))) (then (return (i32.const -1))))
              (i32.add (i32.mul (local.get $r) (i32.const 31))
                (i32.xor (local.get $a) (i32.wrap_i64 (i64.shr_u (local.get $b) (i64.const 13))))))\n"
        )
    };
    let (left, right) = (level("left", 0x51), level("right", 0xa3));
    format!(
        "(module
          (type $f (func (param i32 i32 i32 i32) (result i32)))
          (import \"host\" \"step\" (func $step (param i32 i32) (result i32)))
          (import \"host\" \"wait\" (func $wait (param i32)))
          (import \"host\" \"fail\" (func $fail (param i32)))
          (memory (export \"memory\") 1)
          (table funcref (elem $return $unreachable $bounds $divide $exhaust $error $spin $sleep $park))
          (func $burn (param $n i32)
            (loop $again
              (local.set $n (i32.sub (local.get $n) (i32.const 1)))
              (br_if $again (i32.gt_s (local.get $n) (i32.const 0)))))
          (func $run (export \"run\") {params} {dispatch})
          {left} {right}
          (func $return {params} (i32.xor (i32.mul (local.get $id) (i32.const 7)) (local.get $path)))
          (func $unreachable {params} unreachable)
          (func $bounds {params} (i32.load (i32.or (local.get $id) (i32.const 0x70000000))))
          (func $divide {params} (i32.div_u (local.get $id) (local.get $depth)))
          (func $exhaust {params} (i32.add (i32.const 1)
            (call $exhaust (local.get $id) (local.get $path) (local.get $depth) (local.get $end))))
          (func $error {params} (call $fail (local.get $id)) (i32.const 0))
          (func $spin {params} (loop $again (br $again)) (i32.const 0))
          (func $sleep {params} (loop $again (call $wait (i32.const 0)) (br $again)) (i32.const 0))
          (func $park {params} (loop $again (call $wait (i32.const 1)) (br $again)) (i32.const 0))
          (func $nested (export \"nested\") (param $id i32) (param $depth i32) (result i32)
            (call $burn (i32.const 40)) (i32.sub (local.get $id) (local.get $depth)))
          (func $trapper (export \"trapper\") (param $id i32) (param $depth i32) (result i32)
            (call $burn (i32.const 20)) unreachable))"
    )
}
