//! The orders of the pipeline's script, with handlers.
#![allow(clippy::unwrap_used)]

use std::process::Command;
use std::time::Duration;

use selvedge::InvocationId;
use selvedge::test::Engine;
use selvedge_order::{CHECKOUT, DECIDED, Decision, Item, Order, Outside, PLACE, RECEIVE, RESERVE, Reservation, SETTLED, Tracking, app};

struct Shop {
    engine: Engine,
    outside: Outside,
    _folder: tempfile::TempDir,
}

impl Shop {
    async fn new() -> Shop {
        let folder = tempfile::tempdir().unwrap();
        let outside = Outside::at(folder.path().join("ledger.jsonl"));
        let engine = Engine::new(app(outside.clone())).await.unwrap();
        for (sku, count) in [("warp", 10), ("weft", 10), ("anvil", 1)] {
            engine.local().call(RECEIVE.on(sku), count).await.unwrap();
        }
        Shop { engine, outside, _folder: folder }
    }

    async fn order(&self, id: &str, customer: &str, cents: u64, skus: &[&str]) -> InvocationId {
        let items = skus.iter().map(|sku| Item { sku: (*sku).to_owned(), count: 1 }).collect();
        let order = Order { id: id.to_owned(), customer: customer.to_owned(), cents, items };
        let sent = self.engine.local().send(CHECKOUT.on(customer), order).await.unwrap();
        self.engine.settle().await;
        sent
    }

    async fn settle(&self, order: &str) {
        self.engine.local().send_signal(PLACE.on(order), SETTLED, ()).await.unwrap();
        self.engine.settle().await;
    }

    async fn decide(&self, order: &str, approve: bool) {
        self.engine.local().send_signal(PLACE.on(order), DECIDED, Decision { approve, by: "grace".to_owned() }).await.unwrap();
        self.engine.settle().await;
    }

    async fn tracking(&self, id: InvocationId) -> Result<Tracking, String> {
        self.engine.local().result::<Tracking>(id).await.map_err(|error| error.to_string())
    }

    async fn on_hand(&self, sku: &str) -> u64 {
        self.engine.local().call(RECEIVE.on(sku), 0).await.unwrap()
    }

    fn done(&self) -> Vec<String> {
        self.outside.lines().unwrap().into_iter().map(|line| line.what).collect()
    }
}

#[tokio::test]
async fn a_good_order_is_charged_reserved_settled_and_shipped() {
    let shop = Shop::new().await;
    let order = shop.order("o-1", "ada", 4900, &["warp", "weft"]).await;
    shop.settle("o-1").await;
    assert!(shop.tracking(order).await.unwrap().tracking.starts_with("tr_"));
    assert_eq!((shop.done(), shop.on_hand("warp").await), (vec!["charge".to_owned(), "ship".to_owned()], 9));
}

#[tokio::test]
async fn above_500_eur_nothing_is_shipped_before_somebody_says_yes() {
    let shop = Shop::new().await;
    let order = shop.order("o-2", "ada", 50_001, &["warp"]).await;
    shop.settle("o-2").await;
    assert_eq!(shop.done(), ["charge"]);
    shop.decide("o-2", true).await;
    assert!(shop.tracking(order).await.is_ok());
}

#[tokio::test]
async fn a_rejected_order_and_one_that_nobody_decides_are_undone() {
    let shop = Shop::new().await;
    let rejected = shop.order("o-2", "ada", 50_001, &["warp"]).await;
    shop.decide("o-2", false).await;
    assert!(shop.tracking(rejected).await.unwrap_err().contains("grace says no"));
    let forgotten = shop.order("o-3", "ada", 50_001, &["warp"]).await;
    shop.engine.advance(Duration::from_secs(24 * 3600)).await;
    assert!(shop.tracking(forgotten).await.unwrap_err().contains("nobody decided"));
    assert_eq!((shop.done(), shop.on_hand("warp").await), (["charge", "refund", "charge", "refund"].map(str::to_owned).to_vec(), 10));
}

#[tokio::test]
async fn a_declined_card_is_tried_once_and_leaves_nothing_behind() {
    let shop = Shop::new().await;
    let order = shop.order("o-3", "edsger", 4900, &["warp"]).await;
    assert!(shop.tracking(order).await.unwrap_err().contains("card_declined"));
    assert_eq!(shop.engine.effects().iter().filter(|effect| effect.name == "charge_card").count(), 1);
    assert_eq!((shop.done(), shop.on_hand("warp").await), (Vec::new(), 10));
}

#[tokio::test]
async fn what_cannot_be_shipped_or_is_not_there_gives_shelf_and_money_back() {
    let shop = Shop::new().await;
    let heavy = shop.order("o-4", "ada", 9900, &["weft", "anvil"]).await;
    shop.settle("o-4").await;
    assert!(shop.tracking(heavy).await.unwrap_err().contains("no_carrier"));
    let missing = shop.order("o-5", "grace", 9900, &["warp", "spindle"]).await;
    assert!(shop.tracking(missing).await.unwrap_err().contains("out_of_stock"));
    assert_eq!(shop.done(), ["charge", "refund", "charge", "refund"]);
    assert_eq!([shop.on_hand("weft").await, shop.on_hand("anvil").await, shop.on_hand("warp").await], [10, 1, 10]);
}

#[tokio::test]
async fn an_order_killed_wherever_it_rests_charges_once_and_ships_once() {
    let mut shop = Shop::new().await;
    let order = shop.order("o-6", "grace", 60_000, &["warp"]).await;
    shop.engine.kill_and_reopen().await.unwrap();
    shop.decide("o-6", true).await;
    shop.engine.kill_and_reopen().await.unwrap();
    shop.settle("o-6").await;
    shop.engine.kill_and_reopen().await.unwrap();
    assert!(shop.tracking(order).await.is_ok());
    assert_eq!(shop.done(), ["charge", "ship"]);
    assert_eq!(shop.on_hand("warp").await, 9);
}

#[tokio::test]
async fn a_customer_has_one_open_order_and_the_next_one_waits() {
    let shop = Shop::new().await;
    let first = shop.order("o-7", "ada", 100, &["warp"]).await;
    let second = shop.order("o-8", "ada", 100, &["weft"]).await;
    assert_eq!(shop.done(), ["charge"]);
    shop.settle("o-7").await;
    shop.settle("o-8").await;
    assert!(shop.tracking(first).await.is_ok() && shop.tracking(second).await.is_ok());
}

#[tokio::test]
async fn a_reservation_asked_twice_is_one() {
    let shop = Shop::new().await;
    for _ in 0..2 {
        shop.engine.local().call(RESERVE.on("warp"), Reservation { order: "o-9".to_owned(), count: 3 }).await.unwrap();
    }
    assert_eq!(shop.on_hand("warp").await, 7);
}

#[test]
fn the_program_ships_its_order_and_the_same_order_again_ships_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let run = || {
        let done = Command::new(env!("CARGO_BIN_EXE_order")).arg(folder.path().join("data")).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    };
    let first = run();
    assert!(first.contains("on its way: tr_"), "{first}");
    assert_eq!(run(), first);
    assert_eq!(Outside::at(folder.path().join("data.ledger.jsonl")).lines().unwrap().len(), 2);
}
