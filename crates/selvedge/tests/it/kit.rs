//! What the tests share: the verbs that the client does not have, and questions about an engine.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use selvedge::{InvocationId, test};
use selvedge_engine::listing::Listed;
use selvedge_engine::why::Census;
use selvedge_kernel::auth::{Action, Permit, Resource, authorize, local};
use selvedge_kernel::id::ActorId;
use selvedge_kernel::record::actor::DeadLetter;

/// Lines that handlers and steps write down, in order.
#[derive(Clone, Default)]
pub struct Notes(Arc<Mutex<Vec<String>>>);

impl Notes {
    pub fn add(&self, line: impl Into<String>) {
        self.0.lock().unwrap().push(line.into());
    }
    /// Those since the last time.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
    pub fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
    pub fn count(&self, line: &str) -> usize {
        self.0.lock().unwrap().iter().filter(|noted| *noted == line).count()
    }
}

pub fn actor(kind: &str, key: &str) -> ActorId {
    ActorId { tenant: "default".to_owned(), kind: kind.to_owned(), key: key.to_owned() }
}

pub fn permit(engine: &test::Engine, action: Action, resource: Resource) -> Permit {
    let now = engine.engine().now();
    authorize(local("default", now), action, resource, now).unwrap()
}

pub fn work(id: InvocationId) -> Resource {
    Resource::Work { tenant: "default".to_owned(), id: id.to_string() }
}

pub async fn retry(engine: &test::Engine, id: InvocationId) {
    engine.engine().retry(permit(engine, Action::Control, work(id)), id).await.unwrap();
}

pub async fn kill(engine: &test::Engine, id: InvocationId) {
    engine.engine().kill(permit(engine, Action::Rewrite, work(id)), id, "enough").await.unwrap();
}

pub async fn census(engine: &test::Engine) -> Census {
    engine.engine().census(permit(engine, Action::Operate, Resource::Store)).await.unwrap()
}

pub async fn dead_letters(engine: &test::Engine) -> Vec<DeadLetter> {
    engine.engine().dead_letters(permit(engine, Action::Read, Resource::Store)).await.unwrap()
}

pub async fn state(engine: &test::Engine, kind: &str, key: &str) -> BTreeMap<String, String> {
    let resource = Resource::Handler { actor: actor(kind, key), handler: "state".to_owned() };
    let rows = engine.engine().state(permit(engine, Action::Read, resource)).await.unwrap();
    rows.into_iter().map(|(name, value)| (name, String::from_utf8(value.to_vec()).unwrap())).collect()
}

/// The sentence of `why`.
pub async fn sentence(engine: &test::Engine, id: InvocationId) -> String {
    engine.local().why(id).await.unwrap().sentence()
}

/// Where an invocation stands, as a word.
pub async fn status(engine: &test::Engine, id: InvocationId) -> String {
    format!("{:?}", engine.local().why(id).await.unwrap().status)
}

/// Every chain and ledger verifies, the engine has not stopped, and what is open waits for something that has a name.
pub async fn sound(engine: &test::Engine) {
    assert_eq!(engine.engine().stopped(), None);
    tallied(engine);
    waits_are_named(engine).await;
    for shard in engine.local().verify().await.unwrap() {
        assert!(shard.faults.is_empty(), "{:?}", shard.faults);
    }
}

/// So many of each kind are asked: tests that leave thousands open leave them all alike.
const ASKED: usize = 20;

/// What is not over waits for something.
async fn waits_are_named(engine: &test::Engine) {
    for line in engine.engine().list_invocations(permit(engine, Action::Read, Resource::Store), Listed::Open).await.unwrap().into_iter().take(ASKED) {
        let why = engine.local().why(line.id).await.unwrap();
        assert!(why.status.ended() || !why.waiting.is_empty(), "{} hangs in silence", line.id);
    }
    let open = engine.local().runs().await.unwrap().into_iter().filter(|run| !run.state.ended()).take(ASKED);
    for run in open {
        let status = engine.local().run(run.id).status().await.unwrap();
        assert!(status.state.ended() || !status.waiting.is_empty(), "{} hangs in silence", run.id);
    }
}

/// Each shard has counted what its tenants have open, to the last one, and what they keep, to the last byte.
pub fn tallied(engine: &test::Engine) {
    kept(engine);
    use selvedge_kernel::record::kind::Kind;
    use selvedge_kernel::record::shard::Timer;
    use selvedge_kernel::record::tally::Tally;
    use selvedge_kernel::{record::key, wire};
    use std::collections::BTreeMap;
    for shard in 0..64 {
        let (mut counted, mut found) = (BTreeMap::new(), BTreeMap::<String, Tally>::new());
        for (row, value) in engine.model().rows(selvedge_kernel::id::ShardId(shard)) {
            match Kind::of(&row) {
                Some(Kind::Tally) => {
                    counted.insert(key::tenant(&row).unwrap().to_owned(), wire::decode::<Tally>("tally", &value).unwrap());
                }
                Some(Kind::Inbox) => found.entry(key::tenant(&row).unwrap().to_owned()).or_default().open += 1,
                Some(Kind::Timer) => {
                    if let Timer::Message(message) | Timer::LargeMessage { message, .. } = wire::decode("timer", &value).unwrap() {
                        found.entry(message.target.tenant).or_default().delayed += 1;
                    }
                }
                _ => {}
            }
        }
        assert_eq!(counted, found, "what tenants have open in shard {shard}");
    }
}

/// What tenants keep, and until when, as all rows say; the shards have counted the same.
pub fn kept(engine: &test::Engine) -> BTreeMap<String, u64> {
    use selvedge_kernel::id::ShardId;
    use selvedge_kernel::record::kept::{Leaves, Place, Recount};
    use selvedge_kernel::record::kind::Kind;
    use selvedge_kernel::{record::key, wire};
    let today = engine.engine().now().day();
    let mut sums = BTreeMap::new();
    for shard in (0..64).map(ShardId) {
        let (mut counted, mut recount) = (BTreeMap::<Place, u64>::new(), Recount::default());
        let leaves = |what: Leaves<'_>| {
            let row = match what {
                Leaves::Invocation(record) => key::invocation(record.message.id),
                Leaves::Letter(letter) => key::dead_letter(letter.message.id),
            };
            engine.model().leaves_on(shard, &row).unwrap()
        };
        for (row, value) in engine.model().rows(shard) {
            if Kind::of(&row) == Some(Kind::Kept) && row != key::kept("", None) {
                counted.insert((key::tenant(&row).unwrap().to_owned(), key::kept_until(&row)), wire::decode("kept bytes", &value).unwrap());
            }
            recount.row(&row, &value, &leaves).unwrap();
        }
        let mut found = recount.end();
        for places in [&mut counted, &mut found] {
            places.retain(|(_, until), _| until.is_none_or(|day| day > today));
        }
        assert_eq!(counted, found, "what tenants keep in shard {shard:?}");
        for ((tenant, _), bytes) in found {
            *sums.entry(tenant).or_default() += bytes;
        }
    }
    sums
}

/// How many rows of a kind the whole model holds.
pub fn rows(engine: &test::Engine, kind: selvedge_kernel::record::kind::Kind) -> usize {
    (0..64).map(|shard| engine.model().rows(selvedge_kernel::id::ShardId(shard)).iter().filter(|(key, _)| key.get(2) == Some(&(kind as u8))).count()).sum()
}
