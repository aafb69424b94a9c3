//! Whoever asks the engine for something, and what they were told.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use selvedge::{InvocationId, RunId};
use serde_json::json;

use crate::life::Life;
use crate::program::{self, AWAIT, FAN, FRAIL, GO, MOVE, NAP, RACE, Transfer, WaitFor};
use crate::world::World;
use crate::{calls, families, lent, shops};

/// What the outside was told.
#[derive(Default)]
pub struct Told {
    /// Invocations that were acknowledged.
    pub accepted: BTreeMap<InvocationId, &'static str>,
    /// Runs that were acknowledged, with what they must give.
    pub runs: BTreeMap<RunId, (String, Option<serde_json::Value>)>,
    /// Runs that undo what they did when they fail: their number, their width, and whether they fail.
    pub sagas: BTreeMap<RunId, (u64, u64, bool)>,
    /// Signals to actors that were acknowledged.
    pub signals: Vec<u64>,
    /// Invocations that somebody has asked to end.
    pub cancelled: BTreeSet<InvocationId>,
    /// Runs whose cancel was acknowledged.
    pub cancelled_runs: BTreeSet<RunId>,
    /// Numbers by which the tasks of runs name them.
    pub numbers: BTreeMap<RunId, u64>,
    /// What runs have ordered of actors.
    pub orders: shops::Orders,
    /// Rings and paths of calls.
    pub calls: calls::Asked,
}

/// Somebody outside asks for something, and takes note of what he is told.
pub fn ask(world: &World, life: &Life, told: &Rc<RefCell<Told>>, number: u64, storms: bool) {
    let (client, seed, world, told) = (life.client.clone(), world.seed.clone(), world.clone(), told.clone());
    let kind = seed.below(if storms { 21 } else { 17 });
    let (a, b, c) = (seed.below(1_000), seed.below(1_000), seed.below(1_000));
    tokio::task::spawn_local(async move {
        let accepted = |id: InvocationId, what: &'static str| {
            world.say(&format!("accepted {id} {what}"));
            told.borrow_mut().accepted.insert(id, what);
        };
        let key = format!("k{}", number - number.min(a % 3));
        match kind {
            0..=2 => {
                let order = Transfer {
                    number,
                    from: a % program::ACCOUNTS,
                    to: b % program::ACCOUNTS,
                    cents: (c % 300) as i64 + 1,
                    rest_ms: [0, 0, c][(a % 3) as usize],
                };
                if b % 2 == 0 {
                    if let Ok(id) = client.send(MOVE.on(number.to_string()), order).await {
                        accepted(id, "transfer");
                    }
                } else if let Ok(moved) = client.call(MOVE.on(number.to_string()), order).idempotency_key("once").await {
                    world.same_of(&format!("transfer {number}"), "answer", &moved.to_string());
                }
            }
            3 => {
                if let Ok(id) = client.send(AWAIT.on(format!("w{}", a % 3)), WaitFor { ms: b * 3 }).await {
                    accepted(id, "waiter");
                }
            }
            4 => {
                if client.send_signal(AWAIT.on(format!("w{}", a % 3)), GO, number).await.is_ok() {
                    told.borrow_mut().signals.push(number);
                }
            }
            5 => {
                if let Ok(id) = client.send(NAP.on(format!("n{}", a % 4)), b * 20).await {
                    accepted(id, "napper");
                }
            }
            6 => {
                if let Ok(id) = client.send(RACE.on(format!("r{}", a % 4)), b % 4).await {
                    accepted(id, "racer");
                }
            }
            7 => {
                if let Ok(id) = client.send(FAN.on(format!("f{}", a % 4)), b % 6).await {
                    accepted(id, "fan");
                }
            }
            8 => {
                if let Ok(id) = client.send(FRAIL.on(format!("x{}", a % 4)), number).await {
                    accepted(id, "frail");
                }
            }
            9 => {
                let width = b % 12;
                if let Ok(run) = client.start("wide", program::wide(number, width)).idempotency_key(key).await {
                    let sum: u64 = (0..width).sum();
                    world.say(&format!("accepted {} wide", run.id()));
                    let expected = (a % 3 == 0).then(|| json!(sum));
                    told.borrow_mut().runs.insert(run.id(), ("wide".to_owned(), expected));
                    told.borrow_mut().numbers.insert(run.id(), number);
                }
            }
            10 => {
                if let Ok(run) = client.start("patient", json!({ "number": number, "customer": a % 5 })).await {
                    world.say(&format!("accepted {} patient", run.id()));
                    if b % 2 == 0 {
                        let _ = run.signal(GO, number).await;
                    }
                    told.borrow_mut().runs.insert(run.id(), ("patient".to_owned(), Some(json!({ "first": number }))));
                }
            }
            11 if c % 2 == 0 => {
                if let Some((run, orders)) = shops::ask(&client, number, (a, b, c / 2)).await {
                    world.say(&format!("accepted {run} shop"));
                    told.borrow_mut().runs.insert(run, ("shop".to_owned(), None));
                    told.borrow_mut().orders.insert(run, orders);
                }
            }
            11 => {
                let input = json!({ "number": number, "items": (0..b % 5).collect::<Vec<u64>>(), "fails": a % 2 });
                if let Ok(run) = client.start("saga", input).await {
                    world.say(&format!("accepted {} saga", run.id()));
                    told.borrow_mut().runs.insert(run.id(), ("saga".to_owned(), None));
                    told.borrow_mut().sagas.insert(run.id(), (number, b % 5, a % 2 == 1));
                }
            }
            12 => {
                for id in calls::ask_ring(&client, &told, number, (a, b, c)).await {
                    accepted(id, "holder of a ring");
                }
            }
            13 => {
                if let Some(id) = calls::ask_path(&client, &told, (a, b, c)).await {
                    accepted(id, "path");
                }
            }
            14 => {
                if let Some(id) = families::ask_parent(&client, (a, b, c)).await {
                    accepted(id, "parent");
                }
            }
            15 => {
                let (input, expected) = families::outer(number, b % 5);
                if let Ok(run) = client.start("outer", input).await {
                    world.say(&format!("accepted {} outer", run.id()));
                    told.borrow_mut().runs.insert(run.id(), ("outer".to_owned(), Some(expected)));
                    told.borrow_mut().numbers.insert(run.id(), number);
                }
            }
            16 => {
                for (id, expected) in lent::ask(&client, (a, b, c)).await {
                    world.say(&format!("accepted {id} lent"));
                    told.borrow_mut().runs.insert(id, ("lent".to_owned(), Some(expected)));
                }
            }
            17 | 18 => {
                let chosen = {
                    let told = told.borrow();
                    let open: Vec<InvocationId> = told.accepted.iter().filter(|(_, what)| **what != "transfer").map(|(id, _)| *id).collect();
                    open.get(a as usize % open.len().max(1)).copied()
                };
                if let Some(id) = chosen {
                    told.borrow_mut().cancelled.insert(id);
                    let _ = client.cancel(id).await;
                }
            }
            _ => {
                let chosen = {
                    let told = told.borrow();
                    let open: Vec<RunId> = told.runs.keys().copied().collect();
                    open.get(a as usize % open.len().max(1)).copied()
                };
                if let Some(id) = chosen {
                    let run = client.run(id);
                    match b % 4 {
                        0 | 3 => {
                            told.borrow_mut().runs.entry(id).and_modify(|of| of.1 = None);
                            if run.cancel().await.is_ok() {
                                let (what, number) = {
                                    let mut told = told.borrow_mut();
                                    told.cancelled_runs.insert(id);
                                    (told.runs[&id].0.clone(), told.numbers.get(&id).copied())
                                };
                                world.say(&format!("cancelled {id} {what}"));
                                if let Some(number) = number {
                                    world.cancelled(format!("{what} {number}"));
                                }
                            }
                        }
                        1 => {
                            let _ = run.pause().await;
                            let _ = run.resume().await;
                        }
                        _ => {
                            let _ = run.resume().await;
                        }
                    }
                }
            }
        }
    });
}
