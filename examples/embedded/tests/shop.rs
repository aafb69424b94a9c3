//! The shop, in the test kit and as a program.
#![allow(clippy::unwrap_used)]

use std::process::Command;
use std::time::Duration;

use selvedge::test::Engine;
use selvedge_embedded::{Order, PAID, PLACE, TOTAL, app};

#[tokio::test]
async fn an_order_survives_a_kill_between_its_steps_and_reserves_once() {
    let mut engine = Engine::new(app()).await.unwrap();
    let id = engine.local().send(PLACE.on("o-1"), Order { item: "loom".to_owned(), cents: 1250 }).await.unwrap();
    engine.settle().await;
    engine.kill_and_reopen().await.unwrap();
    engine.local().send_signal(PLACE.on("o-1"), PAID, 1250).await.unwrap();
    engine.settle().await;
    engine.advance(Duration::from_secs(2)).await;
    assert!(engine.local().result::<String>(id).await.unwrap().starts_with("loom in slot"));
    assert_eq!(engine.local().call(TOTAL.on("ada"), ()).await.unwrap(), 1250);
    assert_eq!(engine.effects().iter().filter(|effect| effect.name == "reserve").count(), 1);
}

#[tokio::test]
async fn an_order_that_nobody_pays_is_released_and_fails() {
    let engine = Engine::new(app()).await.unwrap();
    let id = engine.local().send(PLACE.on("o-2"), Order { item: "loom".to_owned(), cents: 1 }).await.unwrap();
    engine.settle().await;
    engine.advance(Duration::from_secs(3601)).await;
    assert!(engine.local().result::<String>(id).await.unwrap_err().to_string().contains("unpaid"));
    assert!(engine.effects().iter().any(|effect| effect.name == "release"));
}

#[test]
fn the_program_prints_its_order_and_the_same_order_again_is_the_same_order() {
    let data = tempfile::tempdir().unwrap();
    let run = || {
        let done = Command::new(env!("CARGO_BIN_EXE_embedded")).arg(data.path()).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    };
    let first = run();
    assert!(first.contains("mail: loom is yours, 1250 cents so far") && first.contains("1250 cents"), "{first}");
    let second = run();
    assert!(!second.contains("mail") && second.trim() == first.lines().last().unwrap(), "{second}");
}
