//! Two processes that both believe they own the store.

use selvedge::Settings;
use selvedge_kernel::model::Model;
use selvedge_sim::life::Life;
use selvedge_sim::program::{BALANCE, DEPOSIT, OPENING};
use selvedge_sim::seed::Seed;
use selvedge_sim::store::Disk;
use selvedge_sim::world::World;

#[test]
fn an_owner_that_was_replaced_commits_nothing_and_gives_no_answer_after_it_has_tried() {
    for number in 1..=20 {
        let seed = Seed::new(number);
        let (world, model) = (World::new(seed.clone(), false), Model::new());
        let disk = Disk::new(model, seed, 10);
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let open = || Life::open(&world, &disk, &Settings::default(), false).expect("the program is sound");
            let old = open();
            assert_eq!(old.client.call(DEPOSIT.on("0"), 5).await.expect("it owns the store"), OPENING + 5);
            let new = open();
            assert_eq!(new.client.call(DEPOSIT.on("0"), 7).await.expect("it is the newest owner"), OPENING + 12);
            // Paused for a minute, so to speak: it still has the actor in its memory.
            let late = old.client.call(DEPOSIT.on("0"), 100).await;
            assert!(late.is_err(), "seed {number}: a replaced owner has said {late:?}");
            assert!(old.engine.stopped().is_some(), "seed {number}");
            let read = old.client.call(BALANCE.on("0"), ()).await;
            assert!(read.is_err(), "seed {number}: a replaced owner has read {read:?}");
            assert_eq!(new.client.call(BALANCE.on("0"), ()).await.expect("it is the newest owner"), OPENING + 12, "seed {number}");
            assert_eq!(new.client.call(DEPOSIT.on("0"), 1).await.expect("it is the newest owner"), OPENING + 13, "seed {number}");
            old.crash();
            new.crash();
        });
        assert!(world.faults().is_empty(), "seed {number}: {:?}", world.faults());
    }
}
