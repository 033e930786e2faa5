//! Whose turn it is, with ticks made by hand: nothing here depends on a clock.

use super::*;

/// A guest that notes its turn and ends a tick at each lap.
const LAPS: &str = r#"(module (import "host" "lap" (func $lap))
  (func (export "run") (param i32)
    (loop (call $lap) (br_if 0 (local.tee 0 (i32.sub (local.get 0) (i32.const 1)))))))"#;

/// How long the stores ran at a stretch, in ticks, one worker between them: (store, ticks), in order. Each store has
/// so many fibers and this weight.
fn stretches(stores: &[(usize, u32)]) -> Vec<(usize, usize)> {
    let rt = runtime(Config { workers: 1, quantum: 3_600_000_000_000, ..Config::default() });
    let seen: Arc<Mutex<Vec<(usize, usize)>>> = Arc::default();
    let guests: Vec<_> = stores
        .iter()
        .enumerate()
        .map(|(number, &(fibers, weight))| {
            let (seen, shared) = (Arc::clone(&seen), Arc::clone(&rt.shared));
            let lap = move || {
                let mut seen = seen.lock().unwrap();
                match seen.last_mut().filter(|last| last.0 == number) {
                    Some(last) => last.1 += 1,
                    None => seen.push((number, 1)),
                }
                shared.scheduler.ticker().advance();
                shared.engine.increment_epoch();
            };
            let guest = Guest::new(&rt, LAPS, |linker| {
                linker.func_wrap("host", "lap", lap).unwrap();
            });
            guest.strand.set_weight(weight);
            let fibers: Vec<_> = (0..fibers).map(|_| guest.spawn("run", 300)).collect();
            (guest, fibers)
        })
        .collect();
    rt.run().unwrap();
    for fiber in guests.iter().flat_map(|(_, fibers)| fibers) {
        assert_eq!(fiber.end().unwrap().outcome, Outcome::Returned);
    }
    drop(guests);
    Arc::into_inner(seen).unwrap().into_inner().unwrap()
}

/// A turn lasts as many ticks as the store's weight says, however many fibers either store has.
#[test]
fn a_turn_lasts_as_many_ticks_as_the_weight() {
    for fibers in [[1, 1], [1, 5], [5, 1]] {
        let stretches = stretches(&[(fibers[0], 8), (fibers[1], 1)]);
        // While both are there, after the first turn.
        let shared: Vec<_> = stretches[1..stretches.len() - 2].iter().collect();
        assert!(shared.len() > 50, "{fibers:?}: only {} stretches", shared.len());
        for &&(store, ticks) in &shared {
            assert_eq!(ticks, [8, 1][store], "{fibers:?}: store {store}; all: {stretches:?}");
        }
    }
}
