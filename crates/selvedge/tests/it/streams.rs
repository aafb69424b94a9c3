//! The output of an invocation, as somebody reads it.

use std::time::Duration;

use selvedge::{App, Chunks, Ctx, Emitted, Failure, Handler, Signal, test};

use crate::kit;

const TALK: Handler<bool, u32> = Handler::new("speaker", "talk");
const ON: Signal<()> = Signal::new("on");
const MINUTE: Duration = Duration::from_secs(60);

fn app() -> App {
    App::new().handler(TALK, async |ctx: Ctx, well: bool| {
        ctx.signal(ON).await?;
        for n in 0..3 {
            ctx.emit(&n)?;
        }
        ctx.sleep(MINUTE).await?;
        ctx.emit(&3)?;
        // What is emitted behind the last wait is let out with the end, if that is a good one.
        if well { Ok(4) } else { Err(Failure::terminal("hoarse", "no voice is left")) }
    })
}

async fn all(output: &mut Chunks) -> Vec<Emitted<u32>> {
    let mut met = Vec::new();
    while let Some(event) = output.event().await.unwrap() {
        met.push(event);
    }
    met
}

/// What was met, with chunks instead of positions.
fn said(met: &[Emitted<u32>]) -> Vec<String> {
    let word = |one: &Emitted<u32>| match one {
        Emitted::Start => "start".to_owned(),
        Emitted::Data { chunk, .. } => chunk.to_string(),
        Emitted::Complete => "complete".to_owned(),
        Emitted::Error { code, .. } => code.clone(),
        _ => "unknown".to_owned(),
    };
    met.iter().map(word).collect()
}

#[tokio::test]
async fn reader_meets_the_start_each_chunk_once_and_one_end_also_through_a_kill() {
    let mut engine = test::Engine::new(app()).await.unwrap();
    let first = engine.local().send(TALK.on("x"), true).await.unwrap();
    let second = engine.local().send(TALK.on("x"), false).await.unwrap();
    engine.settle().await;
    let (mut one, mut two) = (engine.local().stream(first), engine.local().stream(second));
    assert_eq!((said(&all(&mut one).await), said(&all(&mut two).await)), (vec!["start".to_owned()], vec![]), "the second one waits for its turn");
    engine.local().send_signal(TALK.on("x"), ON, ()).await.unwrap();
    engine.settle().await;
    let met = all(&mut one).await;
    assert_eq!(said(&met), ["0", "1", "2"], "it has not ended");
    let Some(Emitted::Data { position, .. }) = met.last() else { panic!("{met:?}") };
    engine.kill_and_reopen().await.unwrap();
    engine.advance(MINUTE).await;
    let mut again = engine.local().stream(first).after(*position);
    assert_eq!(said(&all(&mut again).await), ["3", "complete"], "whoever resumes meets no second start");
    assert_eq!(all(&mut again).await, [], "nothing stands behind the end");
    assert_eq!(said(&all(&mut engine.local().stream(first)).await), ["start", "0", "1", "2", "3", "complete"]);
    engine.local().send_signal(TALK.on("x"), ON, ()).await.unwrap();
    engine.settle().await;
    engine.advance(MINUTE).await;
    let met = all(&mut engine.local().stream(second)).await;
    assert_eq!(said(&met), ["start", "0", "1", "2", "hoarse"]);
    assert!(matches!(met.last(), Some(Emitted::Error { message, .. }) if message == "no voice is left"));
    kit::sound(&engine).await;
}
