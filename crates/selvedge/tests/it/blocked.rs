//! The page for a blocked handler, and the same verbs where nobody holds the directory.

use std::time::Duration;

use selvedge::{App, Config, Ctx, Engine, Handler, InvocationId, Signal};

use crate::rig::{Folder, Said};
use crate::runbook::{commands, shell};

const PLACE: Handler<(), String> = Handler::new("order", "place");
const GO: Signal<()> = Signal::new("go");

/// Reserves, pays in a step of this name, and waits for its signal.
fn app(pay: &'static str) -> App {
    App::new().handler(PLACE, async move |ctx: Ctx, (): ()| {
        let reserved: String = ctx.step("reserve", async |_| Ok("reserved".to_owned())).await?;
        let paid: String = ctx.step(pay, async |_| Ok(pay.to_owned())).await?;
        ctx.signal(GO).await?;
        Ok(format!("{reserved} {paid}"))
    })
}

async fn open(folder: &Folder, app: App) -> Engine {
    Engine::open(Config::on(folder.join(".selvedge")), app).await.unwrap()
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..5_000 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    panic!("waited for: {what}");
}

async fn status(engine: &Engine, id: InvocationId) -> String {
    format!("{:?}", engine.local().why(id).await.unwrap().status)
}

/// Orders 1 to `count`, accepted by `charge` and blocked by `pay`.
async fn blocked(folder: &Folder, count: usize) -> (Engine, Vec<InvocationId>) {
    let engine = open(folder, app("charge")).await;
    let mut ids = Vec::new();
    for n in 1..=count {
        let id = engine.local().send(PLACE.on(n.to_string()), ()).await.unwrap();
        until("its signal", async || engine.local().why(id).await.unwrap().sentence().contains("for the signal")).await;
        ids.push(id);
    }
    engine.close().await.unwrap();
    let engine = open(folder, app("pay")).await;
    for (n, id) in ids.iter().enumerate() {
        engine.local().send_signal(PLACE.on((n + 1).to_string()), GO, ()).await.unwrap();
        until("its block", async || status(&engine, *id).await == "Blocked").await;
    }
    (engine, ids)
}

fn done(command: &str, said: &Said, part: &str) {
    assert!(said.code == 0 && said.out.contains(part), "`{command}` said {said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_for_a_blocked_handler_does_what_the_page_says() {
    let folder = Folder::new();
    let (mut engine, ids) = blocked(&folder, 4).await;
    let mut seen = Vec::new();
    for command in commands("a-handler-is-blocked") {
        let verb = command.split_whitespace().skip(1).take_while(|word| !word.starts_with(['"', '-'])).take(3).collect::<Vec<_>>().join(" ");
        let id = match verb.as_str() {
            "invocations fork" => ids[1],
            "invocations kill" => ids[2],
            _ => ids[0],
        };
        if verb == "replay" {
            // It wants a directory that nobody holds, and the stock binary has none of the handlers.
            engine.close().await.unwrap();
            let said = shell(&folder, &id.to_string(), &command);
            assert!(said.code == 1 && said.out.contains("order.place"), "{said:?}");
            engine = open(&folder, app("pay")).await;
            seen.push(verb);
            continue;
        }
        let said = shell(&folder, &id.to_string(), &command);
        match verb.as_str() {
            "invocations list" => done(&command, &said, "blocked"),
            "why" => done(&command, &said, "recorded #1 step `charge`, attempted #1 step `pay`"),
            "invocations journal" => done(&command, &said, "charge"),
            "invocations retry" => {
                done(&command, &said, if command.contains("--yes") { "4 are looked at again" } else { "" });
                if command.contains("--where") && !command.contains("--yes") {
                    assert!(said.err.contains("4 would be tried again; nothing was done: add --yes") && said.out.contains("order/4"), "{said:?}");
                }
                for id in &ids {
                    until("blocked again", async || status(&engine, *id).await == "Blocked").await;
                }
            }
            "invocations resolve" => {
                done(&command, &said, "#1 step `pay` is decided by entry 2 instead of entry 1, which stays");
                assert_eq!(engine.local().result::<String>(id).await.unwrap(), "reserved paid");
                let journal = folder.selvedge(&["invocations", "journal", &id.to_string()]);
                done("journal", &journal, "by hand instead of entry 1, by local: the bank confirms it, ticket 4711");
            }
            "invocations fork" => {
                done(&command, &said, "inv_");
                let new: InvocationId = said.out.trim().parse().unwrap();
                assert_eq!(engine.local().result::<String>(new).await.unwrap(), "reserved pay");
                assert_eq!(status(&engine, id).await, "Killed");
                done("show", &folder.selvedge(&["invocations", "show", &id.to_string()]), &format!("forks: {new}"));
                done("show", &folder.selvedge(&["invocations", "show", &new.to_string()]), &format!("forked from: {id}"));
            }
            "invocations kill" => {
                done(&command, &said, "it has ended");
                assert_eq!(status(&engine, id).await, "Killed");
            }
            "actors state order/3" => done(&command, &said, "{}"),
            "actors state set" => done(&command, &said, "`reserved` is set"),
            "verify" => done(&command, &said, ""),
            other => panic!("{other} is not looked at"),
        }
        seen.push(verb);
    }
    let all = [
        "invocations list",
        "why",
        "invocations journal",
        "replay",
        "invocations retry",
        "invocations retry",
        "invocations retry",
        "invocations resolve",
        "invocations fork",
        "invocations kill",
        "actors state order/3",
        "actors state set",
        "verify",
    ];
    assert_eq!(seen, all);
    assert_eq!(status(&engine, ids[3]).await, "Blocked", "what nobody decided about stays as it is");
    engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_decided_where_nobody_holds_the_directory_goes_on_when_somebody_does() {
    let folder = Folder::new();
    let (engine, ids) = blocked(&folder, 3).await;
    engine.close().await.unwrap();
    let id = |n: usize| ids[n].to_string();
    let shown = folder.json(&["invocations", "journal", &id(0)]);
    assert_eq!((shown[1]["kind"].as_str(), shown[1]["name"].as_str(), shown[1]["outcome"].as_str()), (Some("step"), Some("charge"), Some("value")));
    let resolved = folder.selvedge(&["invocations", "resolve", &id(0), "#1", "--error", "card_declined: the bank says no", "--reason", "as the bank says"]);
    assert!(resolved.code == 0 && resolved.err.contains("it goes on when somebody does"), "{resolved:?}");
    let forked = folder.json(&["invocations", "fork", &id(1), "--from", "0", "--kill-original", "--reason", "all of it again"]);
    assert_eq!((forked["entries"].as_u64(), forked["forked_from"].as_str()), (Some(0), Some(id(1).as_str())));
    assert_eq!(folder.json(&["invocations", "retry", "--where", "key:3"])["matched"][0]["id"], id(2).as_str());
    assert_eq!(folder.json(&["invocations", "retry", "--where", "key:3 type:order", "--yes"])["retried"][0], id(2).as_str());

    let refused: [(&[&str], i32, &str); 6] = [
        (&["invocations", "resolve", &id(0), "one", "--result", "1", "--reason", "x"], 64, "`one` is no number of an operation"),
        (&["invocations", "resolve", &id(0), "1", "--reason", "x"], 64, "--result"),
        (&["invocations", "resolve", &id(0), "1", "--error", "no code", "--reason", "x"], 64, "CODE:MESSAGE"),
        (&["invocations", "resolve", &id(0), "1", "--result", "1"], 64, "--reason"),
        (&["invocations", "retry", "--where", "colour:red"], 64, "colour"),
        (&["invocations", "retry", &id(0), "--yes"], 64, "--yes"),
    ];
    for (words, code, part) in refused {
        let said = folder.selvedge(words);
        assert!(said.code == code && said.err.contains(part), "{words:?} said {said:?}");
    }

    let engine = open(&folder, app("pay")).await;
    // Its signal had come before it was declined, and a handler that ends takes no signal: the fork leaves that out.
    let why = async || engine.local().why(ids[0]).await.unwrap().sentence();
    until("what does not fit now", async || why().await.contains("recorded #2 signal `go`, attempted nothing")).await;
    let gone = folder.selvedge(&["invocations", "resolve", &id(0), "#2", "--result", "null", "--reason", "x"]);
    assert!(gone.code == 64 && gone.err.contains("explain not_asked_for") && gone.err.contains("fork it from #2"), "{gone:?}");
    let declined = folder.json(&["invocations", "fork", &id(0), "--kill-original", "--reason", "declined before its signal"]);
    assert_eq!(declined["entries"], 3, "{declined}");
    let declined: InvocationId = declined["id"].as_str().unwrap().parse().unwrap();
    let failed = engine.local().result::<String>(declined).await.unwrap_err().to_string();
    assert!(failed.contains("card_declined: the bank says no"), "{failed}");
    let new: InvocationId = forked["id"].as_str().unwrap().parse().unwrap();
    assert_eq!(engine.local().result::<String>(new).await.unwrap(), "reserved pay");
    until("blocked again", async || status(&engine, ids[2]).await == "Blocked").await;
    engine.close().await.unwrap();
    assert_eq!(folder.json(&["verify"])["sound"], true);
}
