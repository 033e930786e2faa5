//! Random programs, alone on plain Wasmtime and as interleaved fibers of one instance: the same outcomes.
//!
//! Each program (`random_guests/program.rs`) runs with 200 pairs of a region of memory and a seed. First each
//! alone: on a plain thread, in a store of its own, by an engine that knows nothing of BOP. Then all 200 as fibers
//! of one instance, in a runtime that runs several such instances at once. Results, trap codes, messages, whole
//! backtraces with their offsets, and the final bytes of the regions must agree.
//!
//! `BOP_SEED` repeats a seed, which every run prints; `BOP_GUESTS` is the number of programs, 40 unless told;
//! `BOP_GUEST=7` runs only program 7, and `BOP_GUEST_TEXT=file` takes its text from there. Programs that differ are
//! left in `target/tmp`, with what differs; after a crash, `random-guests-*.running` there names the programs.
#![allow(missing_docs)]

mod support;

#[path = "random_guests/code.rs"]
mod code;
#[path = "random_guests/host.rs"]
mod host;
#[path = "random_guests/outcome.rs"]
mod outcome;
#[path = "random_guests/program.rs"]
mod program;
#[path = "random_guests/run.rs"]
mod run;
#[path = "random_guests/statement.rs"]
mod statement;

use host::{Count, World};
use outcome::{KINDS, Outcome};
use program::REGION;
use run::{Guest, Job, all_alone, config, together};
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::Instant;
use support::{Rng, Runtime};

const WORKERS: usize = 3;
const FIBERS: usize = 200;
const STACK: usize = 256 << 10;
/// Instances that run at once, so that workers have something to steal and fibers move.
const INSTANCES: usize = 3;
const SHORTEST: u64 = 50_000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

fn seed() -> u64 {
    let clock = || std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64 % 1_000_000_000;
    let seed = number("BOP_SEED").unwrap_or_else(clock);
    println!("BOP_SEED={seed}");
    seed
}

fn tmp(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

/// Everything about one program of a seed.
struct Program {
    seed: u64,
    number: u64,
    text: String,
    jobs: Vec<Job>,
}

impl Program {
    fn new(seed: u64, number: u64) -> Program {
        let mut rng = Rng::new(seed ^ (number + 1) << 32);
        let pages = (FIBERS * REGION).div_ceil(65_536);
        let generated = || program::text(seed ^ (number + 1) << 32, pages);
        let given = std::env::var("BOP_GUEST_TEXT").map(|file| std::fs::read_to_string(file).unwrap());
        let mut seed_of = |region| Job { region, seed: i64::from(rng.next()) << 32 | i64::from(rng.next()) };
        let jobs = (0..FIBERS).map(&mut seed_of).collect();
        Program { seed, number, text: given.unwrap_or_else(|_| generated()), jobs }
    }

    /// Writes the text to a file, with what went wrong, and gives what the test should say.
    fn report(&self, quantum_ns: u64, wrong: &[(usize, String)]) -> String {
        let path = tmp(&format!("random-guest-{}-{}.wat", self.seed, self.number));
        let again = format!("BOP_SEED={} BOP_GUEST={} (quantum {quantum_ns} ns)", self.seed, self.number);
        let line = |(at, text): &(usize, String)| format!("fiber {at}, {:?}: {text}\n", self.jobs[*at]);
        let all: String = wrong.iter().map(line).collect();
        let comment: String = all.lines().map(|line| format!(";; {line}\n")).collect();
        std::fs::write(&path, format!(";; {again}\n{comment}{}", self.text)).unwrap();
        let first: String = all.chars().take(2000).collect();
        format!("{again}: {} of {FIBERS} fibers differ, see {}; first: {first}", wrong.len(), path.display())
    }
}

/// What is wrong with the outcomes, with the numbers of the jobs.
fn differences(jobs: &[Job], wanted: &[Outcome], got: &[Outcome]) -> Vec<(usize, String)> {
    assert!(wanted.len() == jobs.len() && got.len() == jobs.len());
    let pairs = wanted.iter().zip(got).enumerate();
    pairs.filter_map(|(at, (want, got))| Some((at, want.differs(got)?))).collect()
}

#[derive(Default)]
struct Tally {
    kinds: BTreeMap<&'static str, u64>,
    /// The longest backtrace.
    longest: usize,
    /// How many results, traps and regions are different from all others of their program.
    different: [usize; 3],
}

impl Tally {
    fn add(&mut self, outcomes: &[Outcome]) {
        for outcome in outcomes {
            *self.kinds.entry(outcome.kind()).or_default() += 1;
            self.longest = self.longest.max(outcome.end.as_ref().map_or_else(|trap| trap.frames.len(), |_| 0));
        }
        let results: HashSet<_> = outcomes.iter().filter_map(|outcome| outcome.end.as_ref().ok()).collect();
        let traps: HashSet<_> = outcomes.iter().filter_map(|outcome| outcome.end.as_ref().err()).collect();
        let regions: HashSet<_> = outcomes.iter().map(|outcome| &outcome.region[code::HEADER as usize..]).collect();
        let different = [results.len(), traps.len(), regions.len()];
        self.different.iter_mut().zip(different).for_each(|(all, of_one)| *all += of_one);
    }
}

/// Both ways to run programs, and what came of them so far.
struct Rig {
    seed: u64,
    quantum_ns: u64,
    /// Goes first: its fibers are in a world.
    rt: Runtime,
    plain: Box<bop::wasm_engine_t>,
    /// Alone, together.
    worlds: [World; 2],
    tally: Tally,
    problems: Vec<String>,
}

impl Rig {
    fn new(seed: u64, quantum_ns: u64) -> Rig {
        Rig {
            seed,
            quantum_ns,
            rt: Runtime::start(WORKERS, quantum_ns, STACK, Box::into_raw(config())),
            plain: bop::wasm_engine_new_with_config(config()),
            worlds: [World::new(false), World::new(true)],
            tally: Tally::default(),
            problems: Vec::new(),
        }
    }

    /// Runs programs alone, and then all of them at once.
    fn compare(&mut self, numbers: &[u64]) {
        // What a test prints is lost when the process crashes.
        let running = tmp(&format!("random-guests-{}.running", self.quantum_ns));
        std::fs::write(running, format!("BOP_SEED={} BOP_GUEST one of {numbers:?}\n", self.seed)).unwrap();
        let programs: Vec<_> = numbers.iter().map(|&number| Program::new(self.seed, number)).collect();
        let compile = |engine, world| programs.iter().map(|p| Guest::new(engine, &p.text, world)).collect::<Vec<_>>();
        let guests = [compile(&*self.plain, &self.worlds[0]), compile(self.rt.engine(), &self.worlds[1])];
        let pairs = guests[0].iter().zip(&programs);
        let wanted: Vec<_> = pairs.map(|(guest, program)| all_alone(guest, &self.plain, &program.jobs)).collect();
        let pairs = guests[1].iter().zip(&programs).map(|(guest, program)| (guest, &program.jobs[..]));
        let got = together(&self.rt, &pairs.collect::<Vec<_>>(), &mut Rng::new(self.seed ^ numbers[0]));
        for (program, (wanted, got)) in programs.iter().zip(wanted.iter().zip(&got)) {
            self.tally.add(wanted);
            let wrong = differences(&program.jobs, wanted, got);
            if !wrong.is_empty() {
                self.problems.push(program.report(self.quantum_ns, &wrong));
            }
        }
    }

    fn counted(&self, what: Count) -> [u64; 2] {
        [0, 1].map(|world: usize| self.worlds[world].counted(what))
    }

    fn print(&self) {
        let stats = self.rt.stats();
        println!("  {} preemptions, {} steals, {} switches", stats.preemptions, stats.steals, stats.switches);
        println!("  {:?}; up to {} frames", self.tally.kinds, self.tally.longest);
        for what in Count::ALL {
            let [alone, together] = self.counted(what);
            println!("  {:10} {alone:>9} alone, {together:>9} together", format!("{what:?}"));
        }
        let [results, traps, regions] = self.tally.different;
        println!("  {results} results, {traps} traps and {regions} regions are different");
    }

    /// A runtime that runs one fiber after the other would agree, too, and so would programs that do nothing.
    fn check(&self, programs: usize) {
        let (fibers, preemptions) = (programs * FIBERS, self.rt.stats().preemptions);
        let least = if self.quantum_ns == 0 { 100 * fibers } else { 10 * programs };
        assert!(preemptions > least as u64, "only {preemptions} preemptions");
        for what in Count::ALL {
            let [alone, together] = self.counted(what);
            match what {
                Count::Moved => assert!(alone == 0 && together > 100, "{together} moves"),
                _ => assert_eq!(alone, together, "{what:?}"),
            }
        }
        assert!(self.counted(Count::Yielded)[1] > fibers as u64);
        if programs < 10 {
            return;
        }
        for kind in KINDS {
            assert!(self.tally.kinds.contains_key(kind), "no fiber came to {kind}");
        }
        assert_eq!(self.tally.kinds.len(), KINDS.len(), "other ends: {:?}", self.tally.kinds);
        assert!(Count::ALL.iter().all(|&what| self.counted(what)[1] > 0));
        assert!(self.tally.longest > 200, "the recursion is not deep: {} frames", self.tally.longest);
        let ([results, traps, regions], returned) = (self.tally.different, self.tally.kinds["returned"] as usize);
        assert!(results * 100 > returned * 99, "only {results} results of {returned} are different");
        assert!(traps > 10 * programs, "only {traps} traps are different");
        assert!(regions * 100 > fibers * 90, "only {regions} regions of {fibers} are different");
    }
}

fn agree(quantum_ns: u64) {
    let (seed, start, only) = (seed(), Instant::now(), number("BOP_GUEST"));
    // Half of the programs each: there are two tests.
    let half = number("BOP_GUESTS").unwrap_or(40).div_ceil(2);
    let first = u64::from(quantum_ns != 0);
    let numbers: Vec<u64> = only.map_or_else(|| (0..half).map(|n| 2 * n + first).collect(), |n| vec![n]);
    let mut rig = Rig::new(seed, quantum_ns);
    numbers.chunks(INSTANCES).for_each(|numbers| rig.compare(numbers));
    let seconds = start.elapsed().as_secs_f64();
    println!("seed {seed}, quantum {quantum_ns} ns: {} programs, {FIBERS} fibers each, {seconds:.1} s", numbers.len());
    rig.print();
    assert!(rig.problems.is_empty(), "{} programs differ:\n{}", rig.problems.len(), rig.problems.join("\n"));
    if only.is_none() {
        rig.check(numbers.len());
    }
}

#[test]
fn fibers_that_switch_at_every_epoch_check_agree() {
    agree(0);
}

#[test]
fn fibers_with_the_shortest_quantum_agree() {
    agree(SHORTEST);
}

/// The comparison must refuse what it is there to refuse: each part of an outcome that is off, outcomes of another
/// seed, and fibers that do disturb each other.
#[test]
fn what_is_wrong_is_noticed() {
    let world = World::new(true);
    let program = Program::new(seed(), 0);
    let rt = Runtime::start(WORKERS, 0, STACK, Box::into_raw(config()));
    let guest = Guest::new(rt.engine(), &program.text, &world);
    let run = |jobs: &[Job]| together(&rt, &[(&guest, jobs)], &mut Rng::new(1)).remove(0);
    let wanted = run(&program.jobs);
    let wrong = |jobs: &[Job]| -> Vec<usize> {
        differences(jobs, &wanted, &run(jobs)).into_iter().map(|(at, _)| at).collect()
    };
    assert_eq!(wrong(&program.jobs), [0_usize; 0], "two runs of the same");

    // Two seeds swapped: exactly these two.
    let mut jobs = program.jobs.clone();
    (jobs[3].seed, jobs[117].seed) = (jobs[117].seed, jobs[3].seed);
    assert_eq!(wrong(&jobs), [3, 117]);

    // Two fibers in one region: they run between each other's steps, so neither can come out as if it were alone.
    let mut jobs = program.jobs.clone();
    jobs[50].region = jobs[60].region;
    assert_eq!(wrong(&jobs), [50, 60]);

    for want in &wanted {
        let mut got = want.clone();
        got.region[REGION - 1] ^= 1;
        assert!(want.differs(&got).is_some());
        got = want.clone();
        match &mut got.end {
            Ok(value) => *value ^= 1 << 63,
            Err(trap) => trap.code = trap.code.map_or(Some(1), |code| Some(code + 1)),
        }
        assert!(want.differs(&got).is_some());
        for part in 0..6 {
            got = want.clone();
            let Err(trap) = &mut got.end else { continue };
            let Some(last) = trap.frames.last_mut() else { continue };
            match part {
                0 => last.offsets[0] += 1,
                1 => last.offsets[1] += 1,
                2 => last.name.push('!'),
                3 => last.index += 1,
                4 => drop(trap.frames.pop()),
                _ => trap.message.push('!'),
            }
            assert!(want.differs(&got).is_some(), "part {part}");
        }
    }
}
