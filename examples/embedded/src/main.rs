//! The shop: opens a data directory, takes an order, and prints what became of it.
//!
//! `cargo run -p selvedge-embedded -- ./data`, twice: the second time the same order is the same order, and costs nothing.

use selvedge::Engine;
use selvedge_embedded::{Order, PAID, PLACE, TOTAL, app};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let data = std::env::args().nth(1).unwrap_or_else(|| "./data".to_owned());
    let engine = Engine::open(data.as_str(), app()).await?;
    let client = engine.local();
    client.send_signal(PLACE.on("o-1"), PAID, 1250).await?; // kept until someone waits for it
    let slot = client.call(PLACE.on("o-1"), Order { item: "loom".into(), cents: 1250 }).idempotency_key("o-1").await?;
    println!("{slot}, {} cents", client.call(TOTAL.on("ada"), ()).await?);
    Ok(engine.close().await?)
}
