//! A seed is worth what its history repeats. The invariants themselves are checked by `make sim`, over many seeds.

use selvedge_sim::simulate;

fn quiet() {
    // Tasks that panic are part of the program under simulation.
    std::panic::set_hook(Box::new(|_| {}));
}

#[test]
fn the_same_seed_gives_the_same_history_byte_for_byte() {
    quiet();
    for seed in [1, 42, 206, 1234, 9_999] {
        let (first, second) = (simulate(seed, true), simulate(seed, true));
        assert_eq!(first.lines, second.lines, "seed {seed}");
        assert_eq!(first, second, "seed {seed}");
        assert!(first.counts.0 > 0, "seed {seed} does nothing");
    }
    assert_ne!(simulate(1, false).hash, simulate(2, false).hash);
}
