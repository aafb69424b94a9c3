//! Runs that reserve things with actors, in shards of their own, and give them back when they fail or are cancelled.

use std::collections::BTreeMap;
use std::time::Duration;

use selvedge::{ActorOptions, App, Client, Ctx, Definition, Failure, Handler, Outcome, RunId, SharedHandler, View};
use selvedge_kernel::machine::RunState;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::life::Life;
use crate::program::parse;
use crate::world::World;

/// Reserves one for an order, if there are any.
const RESERVE: Handler<Order, String> = Handler::new("shelf", "reserve");
/// Gives it back.
const RELEASE: Handler<Order, bool> = Handler::new("shelf", "release");
/// Whether one is reserved for an order.
const HELD: SharedHandler<String, bool> = SharedHandler::new("shelf", "held");

/// Articles; of the last one there is never any.
const ARTICLES: u64 = 4;

#[derive(Clone, Serialize, Deserialize)]
struct Order {
    order: String,
}

/// Who ordered what: the run, with its order numbers and articles.
pub type Orders = BTreeMap<RunId, Vec<(String, u64)>>;

/// The pipelines: one that orders with actors, and one that orders with runs of the first.
pub fn pipelines() -> Result<Vec<Definition>, String> {
    Ok(vec![
        parse(
            r#"
selvedge: 1
name: shop
input: { order: { type: string }, articles: { type: array }, fails: { type: integer } }
stages:
  - name: reserve
    mode: scatter
    over: input.articles
    call: { actor: shelf, key: "${item}", handler: reserve }
    input: { order: "${input.order}" }
    compensate: { call: { actor: shelf, key: "${item}", handler: release }, input: { order: "${input.order}" } }
  - { name: last, call: judge, input: "${input.fails}", retry: { max_attempts: 20, initial: 100ms, max: 1s } }
"#,
        )?,
        parse(
            r#"
selvedge: 1
name: mall
input: { orders: { type: array }, fails: { type: integer } }
stages:
  - name: each
    mode: scatter
    over: input.orders
    call: { pipeline: shop }
    input: { order: "${item.order}", articles: ["${item.article}"], fails: "${item.fails}" }
    compensate: { call: { actor: shelf, key: "${item.article}", handler: release }, input: { order: "${item.order}" } }
  - { name: last, call: judge, input: "${input.fails}", retry: { max_attempts: 20, initial: 100ms, max: 1s } }
"#,
        )?,
    ])
}

/// The shelves.
pub fn add(app: App, options: &ActorOptions) -> App {
    app.handler(RESERVE, reserve)
        .handler(RELEASE, async |ctx: Ctx, order: Order| {
            let held = ctx.state().get::<bool>(&order.order).await?.is_some();
            ctx.state().delete(&order.order)?;
            Ok(held)
        })
        .shared(HELD, async |view: View, order: String| Ok(view.get::<bool>(&order).await?.unwrap_or(false)))
        .actor("shelf", options.clone())
}

/// It rests before it takes anything: one that is asked to end while it rests has taken nothing.
async fn reserve(ctx: Ctx, order: Order) -> Outcome<String> {
    if ctx.key() == (ARTICLES - 1).to_string() {
        ctx.sleep(Duration::from_millis(300)).await?;
        return Err(Failure::terminal("none_left", "there are none of these"));
    }
    let rest = ctx.random() % 1_000;
    if rest > 200 {
        ctx.sleep(Duration::from_millis(rest)).await?;
    }
    ctx.state().set(&order.order, &true)?;
    Ok(order.order)
}

/// Starts a run that orders.
pub async fn ask(client: &Client, number: u64, (a, b, c): (u64, u64, u64)) -> Option<(RunId, Vec<(String, u64)>)> {
    let article = |n: u64| if b.is_multiple_of(3) { n % ARTICLES } else { n % (ARTICLES - 1) };
    if c.is_multiple_of(4) {
        let orders: Vec<(String, u64)> = (0..1 + a % 4).map(|n| (format!("m{number}-{n}"), article(n))).collect();
        let each = |(n, (order, article)): (usize, &(String, u64))| json!({ "order": order, "article": article, "fails": u64::from(c % 3 == n as u64) });
        let input = json!({ "orders": orders.iter().enumerate().map(each).collect::<Vec<_>>(), "fails": u64::from(a % 5 < 2) });
        return client.start("mall", input).await.ok().map(|run| (run.id(), orders));
    }
    let articles: Vec<u64> = (0..1 + a % ARTICLES).map(article).collect();
    let order = format!("s{number}");
    let input = json!({ "order": order, "articles": articles, "fails": u64::from(a % 5 < 2) });
    let run = client.start("shop", input).await.ok()?;
    Some((run.id(), articles.into_iter().map(|article| (order.clone(), article)).collect()))
}

/// A run that completed holds all that it ordered; one that failed or was cancelled holds nothing.
pub async fn check(world: &World, life: &Life, orders: &Orders) {
    for (id, orders) in orders {
        let Ok(status) = life.client.run(*id).status().await else { continue };
        let holds = match status.state {
            RunState::Completed => true,
            RunState::Failed | RunState::Cancelled => false,
            _ => continue,
        };
        for (order, article) in orders {
            match life.client.call(HELD.on(article.to_string()), order.clone()).await {
                Ok(held) if held != holds => {
                    world.broken(format!(
                        "I2: {id} of `{}` is {:?}, and that one of article {article} is reserved for {order} is {held}",
                        status.pipeline, status.state
                    ));
                }
                Ok(_) => {}
                Err(error) => world.broken(format!("shelf {article} does not answer: {error}")),
            }
        }
    }
}
