//! Rounds, marks and the table: how every benchmark here is measured.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

/// Nanoseconds of the monotonic clock since the first call.
pub fn now() -> u64 {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    ORIGIN.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

/// How much to do.
#[derive(Clone, Copy)]
pub struct Scale {
    pub quick: bool,
    /// Measured rounds per side, odd so that the median is one of them.
    pub rounds: usize,
}

impl Scale {
    pub fn new(quick: bool) -> Scale {
        Scale { quick, rounds: if quick { 7 } else { 11 } }
    }

    /// A number of operations, given the full one.
    pub fn of(self, full: u32) -> u32 {
        if self.quick { (full / 20).max(1) } else { full }
    }
}

/// When the guests of one round began and ended what is measured.
///
/// A guest calls `mark(0)` after its warm-up laps, when every fiber has had its stack and its
/// first turns, and `mark(1)` after the measured ones. So a round pays no clock reading per lap,
/// and neither spawning nor joining counts.
pub struct Marks {
    first: AtomicU64,
    last: AtomicU64,
}

/// One round runs at a time, so one set will do. Relaxed: who reads has joined who wrote.
pub static MARKS: Marks = Marks { first: AtomicU64::new(u64::MAX), last: AtomicU64::new(0) };

impl Marks {
    pub fn reset(&self) {
        self.first.store(u64::MAX, Relaxed);
        self.last.store(0, Relaxed);
    }

    /// The guests' import `mark`.
    pub fn hit(&self, what: i32) {
        if what == 0 {
            self.first.fetch_min(now(), Relaxed);
        } else {
            self.last.fetch_max(now(), Relaxed);
        }
    }

    /// From the first start to the last end.
    pub fn elapsed(&self) -> f64 {
        let (first, last) = (self.first.load(Relaxed), self.last.load(Relaxed));
        assert!(first <= last, "the guests did not run to their end");
        (last - first) as f64
    }
}

/// What the figures of a benchmark count.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Nanoseconds,
    Bytes,
}

impl Unit {
    pub fn name(self) -> &'static str {
        match self {
            Unit::Nanoseconds => "ns",
            Unit::Bytes => "KiB",
        }
    }

    /// A figure with the digits that mean something.
    pub fn figure(self, value: f64) -> String {
        let value = match self {
            Unit::Nanoseconds => value,
            Unit::Bytes => value / 1024.0,
        };
        if value < 100.0 { format!("{value:.1}") } else { format!("{value:.0}") }
    }
}

/// One side of a benchmark: each call is a round, and gives the figure per operation.
type Side = Box<dyn FnMut() -> f64>;

/// BOP and its rival, or one of them alone.
pub struct Duel {
    unit: Unit,
    bop: Option<Side>,
    rival: Option<Side>,
    against: &'static str,
}

impl Duel {
    pub fn new(bop: impl FnMut() -> f64 + 'static) -> Duel {
        Duel { unit: Unit::Nanoseconds, bop: Some(Box::new(bop)), rival: None, against: "" }
    }

    /// A floor: nothing of BOP runs.
    pub fn floor(what: &'static str, floor: impl FnMut() -> f64 + 'static) -> Duel {
        Duel { unit: Unit::Nanoseconds, bop: None, rival: Some(Box::new(floor)), against: what }
    }

    pub fn against(self, what: &'static str, rival: impl FnMut() -> f64 + 'static) -> Duel {
        Duel { rival: Some(Box::new(rival)), against: what, ..self }
    }

    pub fn in_unit(self, unit: Unit) -> Duel {
        Duel { unit, ..self }
    }

    /// One round of each side to warm up, then the measured ones, the sides in turn.
    pub fn run(mut self, name: &'static str, rounds: usize) -> Row {
        let (mut bop, mut rival) = (Vec::new(), Vec::new());
        for round in 0..=rounds {
            for (side, figures) in [(&mut self.bop, &mut bop), (&mut self.rival, &mut rival)] {
                if let Some(side) = side {
                    let figure = side();
                    if round > 0 {
                        figures.push(figure);
                    }
                }
            }
        }
        let (bop, rival) = (Sample::of(bop), Sample::of(rival));
        Row { name, unit: self.unit, bop, rival, against: self.against }
    }
}

/// The rounds of one side.
#[derive(Clone, Copy)]
pub struct Sample {
    pub median: f64,
    pub least: f64,
    pub most: f64,
}

impl Sample {
    /// `None` for a side that there isn't.
    fn of(mut figures: Vec<f64>) -> Option<Sample> {
        figures.sort_by(f64::total_cmp);
        Some(Sample {
            median: *figures.get(figures.len() / 2)?,
            least: *figures.first()?,
            most: *figures.last()?,
        })
    }
}

/// A line of the table.
pub struct Row {
    pub name: &'static str,
    pub unit: Unit,
    pub bop: Option<Sample>,
    pub rival: Option<Sample>,
    pub against: &'static str,
}

/// Prints one line; what is above and below it has the same widths.
fn line(cells: [&str; 8]) {
    let [name, unit, bop, bop_spread, rival, rival_spread, ratio, against] = cells;
    println!(
        "{name:<37}{unit:>4}{bop:>9}{bop_spread:>15}{rival:>9}{rival_spread:>15}{ratio:>8}  {against}"
    );
}

pub fn print_head() {
    line(["benchmark", "unit", "BOP", "spread", "rival", "spread", "ratio", "the rival"]);
}

impl Row {
    /// How many times the rival's figure is BOP's.
    pub fn ratio(&self) -> Option<f64> {
        Some(self.rival?.median / self.bop?.median)
    }

    pub fn print(&self) {
        let figure = |value| self.unit.figure(value);
        let median = |sample: Option<Sample>| sample.map_or("-".into(), |s| figure(s.median));
        let spread = |sample: Option<Sample>| {
            sample.map_or("-".into(), |s| format!("{}-{}", figure(s.least), figure(s.most)))
        };
        line([
            self.name,
            self.unit.name(),
            &median(self.bop),
            &spread(self.bop),
            &median(self.rival),
            &spread(self.rival),
            &self.ratio().map_or("-".into(), |ratio| format!("{ratio:.1}x")),
            self.against,
        ]);
    }
}

/// What the processor calls itself.
pub fn cpu() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text.lines().find_map(|line| line.strip_prefix("model name"));
    model.map_or("unknown CPU", |name| name.trim_start_matches([' ', '\t', ':'])).into()
}
