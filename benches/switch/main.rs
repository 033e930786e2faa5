//! Benchmarks of libbop, each beside its rival in the same run.
//!
//! ```text
//! cargo bench --bench switch -- [--quick] [--plot FILE.svg] [NAME ...]
//! ```
//!
//! A NAME selects the benchmarks whose names contain it. Figures are medians of rounds that
//! alternate between the two sides, so that a change of the machine's clock or load hits both.
//! Nothing is asserted about times; what ran is checked to have run.

mod floors;
mod guests;
mod measure;
mod memory;
mod ours;
mod plot;
mod rival;
mod shared;
mod spawns;
mod yields;

use measure::{Duel, Row, Scale};
use std::process::exit;
use yields::Stores::{One, Own};

/// A benchmark, made only when it is its turn: some hold a thousand stores.
struct Bench {
    name: &'static str,
    duel: fn(Scale) -> Duel,
}

const BENCHES: &[Bench] = &[
    Bench { name: "floor: resume + suspend, 2 stacks", duel: |s| floors::switches(s, 2) },
    Bench { name: "floor: resume + suspend, 1000 stacks", duel: |s| floors::switches(s, 1000) },
    Bench { name: "floor: Wasm-to-host call", duel: yields::calls },
    Bench { name: "yield, 2 fibers, own stores", duel: |s| yields::yields(s, 2, Own, 1) },
    Bench { name: "yield, 2 fibers, one store", duel: |s| yields::yields(s, 2, One, 1) },
    Bench { name: "yield, 1000 fibers, own stores", duel: |s| yields::yields(s, 1000, Own, 1) },
    Bench { name: "yield, 1000 fibers, one store", duel: |s| yields::yields(s, 1000, One, 1) },
    Bench { name: "yield, 1000 fibers, 2 workers", duel: |s| yields::yields(s, 1000, Own, 2) },
    Bench { name: "preempt, 2 fibers, own stores", duel: |s| yields::preemptions(s, Own) },
    Bench { name: "preempt, 2 fibers, one store", duel: |s| yields::preemptions(s, One) },
    Bench { name: "spawn + join, one store", duel: spawns::one_store },
    Bench { name: "spawn + join, from the guest", duel: shared::from_the_guest },
    Bench { name: "spawn + join, from a host function", duel: shared::from_a_host_function },
    Bench { name: "spawn + join, fresh instance", duel: spawns::fresh_instance },
    Bench { name: "spawn + join, fresh instance, pool", duel: spawns::fresh_instance_pooled },
    Bench { name: "spawn + join, host function", duel: spawns::host_function },
    Bench { name: "wake + park, 10,000 in one instance", duel: |s| shared::wakes(s, 10_000) },
    Bench { name: "wake + park, 100,000 in one instance", duel: |s| shared::wakes(s, 100_000) },
    Bench { name: "resident memory, parked host fiber", duel: memory::host_fibers },
    Bench { name: "resident memory, parked Wasm call", duel: memory::wasm_calls },
    Bench { name: "resident memory, parked, shared", duel: memory::shared_calls },
];

/// What the command line asks for.
#[derive(Default)]
struct Options {
    quick: bool,
    plot: Option<String>,
    names: Vec<String>,
}

fn usage(problem: &str) -> ! {
    eprintln!("{problem}\nusage: switch [--quick] [--plot FILE.svg] [NAME ...]");
    exit(2)
}

fn options() -> Options {
    let mut options = Options::default();
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--quick" => options.quick = true,
            "--plot" => match args.next() {
                Some(file) => options.plot = Some(file),
                None => usage("--plot needs a file name"),
            },
            // Cargo says so to every benchmark.
            "--bench" => {}
            memory::CHILD => memory::child(args.next(), args.next()),
            _ if arg.starts_with('-') => usage(&format!("unknown option {arg}")),
            _ => options.names.push(arg),
        }
    }
    options
}

fn main() {
    let options = options();
    let selected = |bench: &&Bench| {
        options.names.is_empty() || options.names.iter().any(|name| bench.name.contains(name))
    };
    let benches: Vec<&Bench> = BENCHES.iter().filter(selected).collect();
    if benches.is_empty() {
        usage("no benchmark has such a name");
    }
    let scale = Scale::new(options.quick);
    println!(
        "{}: {} CPUs, {} rounds per side, median and least-most; per operation{}",
        measure::cpu(),
        std::thread::available_parallelism().map_or(1, |n| n.get()),
        scale.rounds,
        if scale.quick { "; quick: expect noise" } else { "" },
    );
    measure::print_head();
    let mut rows: Vec<Row> = Vec::new();
    for bench in benches {
        let row = (bench.duel)(scale).run(bench.name, scale.rounds);
        row.print();
        rows.push(row);
    }
    if rows.iter().any(|row| row.name.contains("one store")) {
        println!(
            "one store: Wasmtime can't suspend two calls in one store, so its side has own stores, or a reused one."
        );
    }
    if let Some(file) = &options.plot {
        if let Err(error) = plot::write(file, &rows) {
            eprintln!("{file}: {error}");
            exit(1);
        }
        println!("plot: {file}");
    }
}
