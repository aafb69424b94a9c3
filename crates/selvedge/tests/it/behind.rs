//! A store that falls behind: new work waits, then is refused; what was accepted goes on to its end.

use std::time::Duration;

use selvedge::test;
use selvedge::{App, Ctx, Handler, Settings, Signal};
use selvedge_kernel::pressure::{Pressure, REFUSE, SLOW};

const WAITS: Handler<(), u32> = Handler::new("subject", "waits");
const GO: Signal<u32> = Signal::new("go");

fn app() -> App {
    App::new().handler(WAITS, async |ctx: Ctx, (): ()| {
        ctx.sleep(Duration::from_secs(60)).await?;
        Ok(7)
    })
}

#[tokio::test]
async fn new_work_is_refused_while_the_store_is_behind_and_accepted_work_ends() {
    let pressure = Pressure::default();
    let engine = test::Engine::with(app(), Settings { pressure: pressure.clone(), ..Settings::default() }).await.unwrap();
    let sent = engine.local().send(WAITS.on("first"), ()).await.unwrap();
    pressure.set(REFUSE);
    let error = engine.local().send(WAITS.on("second"), ()).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("at 87 % of its bound") && text.contains("try again after 1 s"), "{text}");
    assert!(format!("{error:?}").contains("store_behind"), "{error:?}");
    let called = engine.local().call(WAITS.on("third"), ()).await.unwrap_err();
    assert!(format!("{called:?}").contains("store_behind"), "{called:?}");
    let signal = engine.local().send_signal_to(sent, GO, 1).await.unwrap_err();
    assert!(format!("{signal:?}").contains("store_behind"), "{signal:?}");
    engine.advance(Duration::from_secs(61)).await;
    assert_eq!(engine.local().result::<u32>(sent).await.unwrap(), 7);
    pressure.set(SLOW);
    engine.local().send(WAITS.on("second"), ()).await.unwrap();
}
