//! An order above 500 EUR from its charge to its tracking number: `cargo run -p selvedge-order -- ./orders`.
//!
//! The second time the same order is the same order: nothing is charged, nothing is shipped again.

use selvedge::Engine;
use selvedge_order::{CHECKOUT, DECIDED, Decision, Item, Order, Outside, PLACE, RECEIVE, SETTLED, app};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let data = std::env::args().nth(1).unwrap_or_else(|| "./orders".to_owned());
    let outside = Outside::at(format!("{data}.ledger.jsonl"));
    let engine = Engine::open(data.as_str(), app(outside)).await?;
    let client = engine.local();
    let on_hand = client.call(RECEIVE.on("loom"), 2).idempotency_key("first delivery").await?;
    println!("{on_hand} looms came in");
    // Signals are kept until somebody waits for them.
    client.send_signal(PLACE.on("o-1"), DECIDED, Decision { approve: true, by: "grace".to_owned() }).await?;
    client.send_signal(PLACE.on("o-1"), SETTLED, ()).await?;
    let order = Order { id: "o-1".to_owned(), customer: "ada".to_owned(), cents: 129_900, items: vec![Item { sku: "loom".to_owned(), count: 1 }] };
    let shipped = client.call(CHECKOUT.on("ada"), order).idempotency_key("o-1").await?;
    println!("on its way: {}", shipped.tracking);
    Ok(engine.close().await?)
}
