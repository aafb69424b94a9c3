#![allow(clippy::unwrap_used)]
use proptest::prelude::*;

use super::*;
use crate::auth::local;
use crate::id::{ActorId, InvocationId};
use crate::journal::{OpKind, Signature};
use crate::record::decision;
use crate::record::disabled;
use crate::record::message::{Awaited, Starting};
use crate::record::portable::{LedgerWalk, Row, print, read};
use crate::record::shard::{LedgerState, ledger_line};

fn head(next: u64) -> Head {
    Head { selvedge_export: 1, store: String::new(), group: 0, time: Millis(7), next, clean: true, epoch: 1, ledgers: Vec::new(), notes: None }
}

fn id(hash: u16, n: u8) -> InvocationId {
    InvocationId(RawId { hash: Hash16(hash), uuid: [n; 16] })
}

fn begun(timer: (Millis, u64)) -> Bytes {
    let mut row = Begun::new(Signature { number: 3, kind: OpKind::Sleep, name: String::new(), target: String::new() }, Millis(1));
    row.timer = Some(timer);
    wire::encode(&row)
}

fn row(kind: Kind, key: Key, value: Bytes) -> Line {
    Line::Row(Row { kind, until: None, key, value })
}

fn timer(due: u64, number: u64, timer: &Timer) -> Line {
    Line::Timer(portable::Timer { due: Millis(due), number, value: wire::encode(timer) })
}

#[test]
fn timers_of_two_shards_that_become_one_keep_apart_and_each_operation_names_its_own() {
    // The same due time and number in two shards; the third has another due time.
    let ids = [id(0, 1), id(0xf000, 2), id(0, 3)];
    let dues = [50, 50, 60];
    for (shards, apart) in [(1, false), (2, true)] {
        let mut dealer = Dealer::new(&head(100), shards);
        let mut keys = Vec::new();
        for (id, due) in ids.iter().zip(dues) {
            keys.push(dealer.deal(timer(due, 7, &Timer::Operation { invocation: *id, number: 3 })).unwrap().remove(0));
        }
        for (n, (id, due)) in ids.iter().zip(dues).enumerate() {
            let dealt = dealer.deal(row(Kind::Begun, key::begun(*id, 3), begun((Millis(due), 7)))).unwrap().remove(0);
            let named = wire::decode::<Begun>("begun operation", &dealt.value).unwrap().timer.unwrap();
            assert_eq!(key::timer(named.0, named.1), keys[n].key, "{shards} shards");
            assert_eq!(dealt.shard, keys[n].shard);
            assert_eq!(named.1 == 7, n != 1 || apart);
        }
        let next = |dealt: &Dealt| wire::decode::<ShardHead>("shard head", &dealt.value).unwrap().next;
        assert!(dealer.heads().iter().all(|head| next(head) == if apart { 100 } else { 101 }));
    }
}

#[test]
fn every_row_that_names_a_timer_follows_it() {
    let actor = ActorId { tenant: "t".to_owned(), kind: "k".to_owned(), key: "a".to_owned() };
    let from = (Millis(5), 9);
    let kept =
        KeptSignal { payload: crate::journal::Payload::Inline(Bytes::from_static(b"1")), context: local("t", Millis(0)), at: Millis(1), timer: Some(from) };
    let delayed = Delayed { timer: from, at: Millis(1) };
    let message = crate::record::message::Message::new(id(actor.hash16().0, 4), actor.clone(), "h", Bytes::from_static(b"1"), local("t", Millis(0)));
    let signal = Timer::Signal { actor: actor.clone(), name: "go".to_owned(), n: 2 };
    let cases = [
        (signal, Kind::ActorSignal, key::actor_signal(&actor, "go", 2), wire::encode(&kept)),
        (Timer::Message(Box::new(message.clone())), Kind::Delayed, key::delayed(message.id), wire::encode(&delayed)),
    ];
    for (named, kind, key, value) in cases {
        let mut dealer = Dealer::new(&head(100), 1);
        dealer.deal(timer(5, 9, &Timer::Attempt { invocation: id(1, 1) })).unwrap();
        let moved = dealer.deal(timer(5, 9, &named)).unwrap().remove(0);
        assert_eq!(moved.key, key::timer(Millis(5), 100));
        let dealt = dealer.deal(row(kind, key, value)).unwrap().remove(0);
        let now = match kind {
            Kind::Delayed => Some(wire::decode::<Delayed>("delayed message", &dealt.value).unwrap().timer),
            _ => KeptSignal::decode(&dealt.value).unwrap().timer,
        };
        assert_eq!(now, Some((Millis(5), 100)));
    }
}

#[test]
fn permits_of_limits_stay_behind_and_large_envelopes_become_chunks_again() {
    let actor = ActorId { tenant: "t".to_owned(), kind: "k".to_owned(), key: "a".to_owned() };
    let input = Bytes::from(vec![b'1'; 600_000]);
    let message = crate::record::message::Message::new(id(actor.hash16().0, 4), actor.clone(), "h", input, local("t", Millis(0)));
    let encoded = wire::encode(&Envelope::Invoke(message.clone()));
    let owner = Bytes::copy_from_slice(&message.id.0.to_bytes());
    let line = Line::Envelope(portable::Envelope { owner: owner.clone(), value: encoded.clone() });
    let dealt = Dealer::new(&head(0), 5).deal(line).unwrap();
    let shard = actor.hash16().shard(5);
    assert!(dealt.iter().all(|row| row.shard == shard) && dealt[0].key == key::outbox(shard, 1));
    assert_eq!(dealt[1..].iter().flat_map(|row| row.value.to_vec()).collect::<Vec<u8>>(), encoded);
    let grant = Envelope::Grant { limit: actor.clone(), life: crate::lend::Life(1), throttle: crate::policy::Throttle::default(), permits: 1 };
    let word = crate::lend::Guard::new(crate::lend::Life(1), crate::policy::Breaker::default(), Millis(0)).word();
    let pass = Envelope::Pass { limit: actor, life: crate::lend::Life(1), breaker: crate::policy::Breaker::default(), word, permits: 1 };
    for envelope in [grant, pass] {
        let line = Line::Envelope(portable::Envelope { owner: owner.clone(), value: wire::encode(&envelope) });
        assert!(Dealer::new(&head(0), 5).deal(line).unwrap().is_empty());
    }
}

#[test]
fn a_start_of_a_run_goes_to_its_run_whether_it_has_a_trace_or_not_and_without_one_it_is_what_it_was_before_traces() {
    let run = crate::id::RunId::of("t", [7; 16]);
    let peer = crate::record::message::Peer::Task { run, stage: 1, item: 2, attempt: 3 };
    let parent = crate::record::run::Parent { peer, depth: 1 };
    let (definition, input, context) = (Bytes::from_static(b"{}"), Bytes::from_static(b"1"), local("t", Millis(0)));
    let (end, until) = (Awaited::End { parent, deadline: None }, Awaited::End { parent, deadline: Some(Millis(9)) });
    for (awaited, number) in [(Awaited::Acceptance(peer), 3), (end, 5), (until, 14)] {
        let start = Starting { run, definition: definition.clone(), input: input.clone(), context: context.clone(), awaited };
        for (trace, number) in [(None, number), (Some("of somebody".to_owned()), 17)] {
            let envelope = Envelope::start(start.clone(), trace);
            let encoded = wire::encode(&envelope);
            assert_eq!((receiver(&envelope), encoded[1]), (Some(run.0.hash), number));
            let line = Line::Envelope(portable::Envelope { owner: Bytes::copy_from_slice(&run.0.to_bytes()), value: encoded });
            let dealt = Dealer::new(&head(0), 5).deal(line).unwrap();
            assert_eq!((dealt[0].shard, &dealt[0].key), (run.0.hash.shard(5), &key::outbox(run.0.hash.shard(5), 1)));
        }
    }
}

#[test]
fn a_head_that_no_store_writes_is_refused_before_anything_is_counted_on_from_it() {
    assert!(portable::known(&head(1 << 61)).is_ok());
    assert!(portable::known(&head(u64::MAX)).unwrap_err().to_string().contains("something was changed"));
    assert!(portable::known(&Head { selvedge_export: 2, ..head(0) }).unwrap_err().to_string().contains("it has format 2"));
    let (lines, _) = ledgers(&[(1, 0, 1)]);
    let line: LedgerLine = wire::decode("ledger line", &lines[0].value).unwrap();
    assert!(LedgerWalk::default().line(u64::MAX, &line).is_ok());
}

/// Lines of the ledgers of some shards, merged by time, with the heads that they lead to.
fn ledgers(lines: &[(u8, u16, u64)]) -> (Vec<portable::Ledger>, Vec<ShardHead>) {
    let mut heads = vec![ShardHead::default(); 4];
    let mut time = 0;
    let mut all = Vec::new();
    for (n, hash, gap) in lines {
        time += gap;
        let shard = Hash16(*hash).shard(4);
        let head = &mut heads[usize::from(shard.0)];
        head.time = Millis(time);
        let (place, line) = ledger_line(head, id(*hash, *n).0, false, LedgerState::Accepted, Hash32([*n; 32]), 1);
        all.push(portable::Ledger { shard: shard.0, n: place, until: None, value: wire::encode(&line) });
    }
    (all, heads)
}

proptest! {
    #[test]
    fn ledgers_that_are_dealt_out_are_whole_chains_again(lines in prop::collection::vec((any::<u8>(), 0..0xffffu16, 0..3u64), 0..40), shards in 1..9u16) {
        let (all, old) = ledgers(&lines);
        let mut walks = vec![LedgerWalk::default(); 4];
        for line in &all {
            walks[usize::from(line.shard)].line(line.n, &wire::decode("ledger line", &line.value).unwrap()).unwrap();
        }
        let ends = |walk: &LedgerWalk, head: &ShardHead| walk.ended(&portable::LedgerHead { lines: head.ledger_lines, head: format!("{:?}", head.ledger) });
        prop_assert!(walks.iter().zip(&old).all(|(walk, head)| ends(walk, head).is_ok()));
        let mut dealer = Dealer::new(&head(0), shards);
        let mut walks = vec![LedgerWalk::default(); usize::from(shards)];
        for line in all {
            let dealt = dealer.deal(Line::Ledger(line)).unwrap().remove(0);
            let line: LedgerLine = wire::decode("ledger line", &dealt.value).unwrap();
            prop_assert_eq!(line.id.hash.shard(shards), dealt.shard);
            let [n] = key::numbers::<1>(&dealt.key).unwrap();
            walks[usize::from(dealt.shard.0)].line(n, &line).unwrap();
        }
        for (walk, head) in walks.iter().zip(dealer.heads()) {
            prop_assert!(ends(walk, &wire::decode("shard head", &head.value).unwrap()).is_ok());
        }
    }

    #[test]
    fn a_ledger_line_that_was_changed_or_is_missing_is_found(lines in prop::collection::vec((any::<u8>(), 0..0x3fffu16, 0..3u64), 2..10), which in any::<prop::sample::Index>(), gone in any::<bool>()) {
        let (mut all, heads) = ledgers(&lines);
        let which = which.index(all.len());
        if gone {
            all.remove(which);
        } else {
            let mut line: LedgerLine = wire::decode("ledger line", &all[which].value).unwrap();
            line.count += 1;
            all[which].value = wire::encode(&line);
        }
        let mut walk = LedgerWalk::default();
        let walked = all.iter().try_for_each(|line| walk.line(line.n, &wire::decode("ledger line", &line.value).unwrap()));
        let ended = walk.ended(&portable::LedgerHead { lines: heads[0].ledger_lines, head: format!("{:?}", heads[0].ledger) });
        // The oldest lines may be gone by retention, which the walk of `verify` judges.
        prop_assert!(walked.is_err() || ended.is_err() || gone && which == 0);
    }

    #[test]
    fn lines_round_trip_and_stay_one_line(key in prop::collection::vec(any::<u8>(), 0..60), value in prop::collection::vec(any::<u8>(), 0..200), day in prop::option::of(any::<u32>()), text in ".*") {
        let mut head = head(3);
        head.notes = Some(text);
        let row = Row { kind: Kind::State, until: day.map(Day), key: key.into(), value: value.clone().into() };
        for line in [Line::Head(head), Line::Row(row), Line::Ready(portable::Ready { value: value.into() })] {
            let text = print(&line);
            prop_assert!(!text.contains('\n'));
            prop_assert_eq!(read(&text).unwrap(), line);
        }
    }

    #[test]
    fn text_of_a_stranger_is_a_line_or_an_error_and_deals_or_does_not(text in ".*", kind in prop::sample::select(&Kind::ALL[..]), key in prop::collection::vec(any::<u8>(), 0..40), value in prop::collection::vec(any::<u8>(), 0..60)) {
        let _ = read(&text);
        let _ = home(kind, &key, &value);
        let mut dealer = Dealer::new(&head(0), 3);
        let value = Bytes::from(value);
        let _ = dealer.deal(row(kind, key.clone().into(), value.clone()));
        let _ = dealer.deal(Line::Envelope(portable::Envelope { owner: key.into(), value: value.clone() }));
        let _ = dealer.deal(Line::Timer(portable::Timer { due: Millis(0), number: 0, value: value.clone() }));
        let _ = dealer.deal(Line::Ready(portable::Ready { value: value.clone() }));
        let _ = dealer.deal(Line::Ledger(portable::Ledger { shard: 9, n: 0, until: None, value }));
    }
}

#[test]
fn what_tenants_have_open_is_counted_anew_for_the_shards_that_it_is_dealt_to() {
    let of = |tenant: &str, key: &str| ActorId { tenant: tenant.to_owned(), kind: "k".to_owned(), key: key.to_owned() };
    for shards in [1, 4] {
        let mut dealer = Dealer::new(&head(100), shards);
        let mut expected: BTreeMap<(ShardId, String), Tally> = BTreeMap::new();
        for n in 0..20u8 {
            let (tenant, actor) = (if n % 3 == 0 { "a" } else { "b" }, format!("{n}"));
            let actor = of(tenant, &actor);
            let shard = actor.hash16().shard(shards);
            let id = id(actor.hash16().0, n);
            dealer.deal(row(Kind::Inbox, key::inbox(&actor, u64::from(n)), wire::encode(&id))).unwrap();
            expected.entry((shard, tenant.to_owned())).or_default().open += 1;
            if n % 2 == 0 {
                let message = crate::record::message::Message::new(id, actor, "h", Bytes::from_static(b"1"), local(tenant, Millis(1)));
                dealer.deal(timer(50, u64::from(n), &Timer::Message(Box::new(message)))).unwrap();
                expected.entry((shard, tenant.to_owned())).or_default().delayed += 1;
            }
        }
        let rows = dealer.heads();
        let tallies = rows.iter().filter(|dealt| Kind::of(&dealt.key) == Some(Kind::Tally));
        let found: BTreeMap<_, _> =
            tallies.map(|dealt| ((dealt.shard, key::tenant(&dealt.key).unwrap().to_owned()), wire::decode::<Tally>("tally", &dealt.value).unwrap())).collect();
        assert_eq!(found, expected, "{shards} shards");
    }
}

#[test]
fn a_decision_goes_where_those_of_its_tenant_lie_whatever_the_number_of_shards() {
    let context = crate::auth::local("acme", Millis(1));
    let resource = crate::auth::Resource::Tenant { tenant: "acme".to_owned() };
    let asked = decision::Asked { context: &context, action: crate::auth::Action::Read, resource: &resource };
    let id = crate::auth::decision(&context, asked.action, &resource, Millis(7));
    let record = DecisionRecord::first(id, decision::What::Denied, &asked, &crate::auth::Verdict::deny("no"));
    for shards in [1, 2, 64] {
        let at = decision::row("acme", record.what, id);
        let dealt = Dealer::new(&head(1), shards).deal(row(Kind::Decision, at.clone(), wire::encode(&record))).unwrap().remove(0);
        assert_eq!((dealt.shard, dealt.key), (decision::home("acme").hash16().shard(shards), at));
    }
}

#[test]
fn a_key_goes_where_the_keys_of_its_tenant_lie_whatever_the_number_of_shards() {
    let presented = api_key::Presented::fresh([1; 8], [2; 32]);
    let key = ApiKey {
        id: presented.id,
        tenant: "acme".to_owned(),
        name: "ci".to_owned(),
        roles: Vec::new(),
        created: Millis(1),
        by: "local".to_owned(),
        expires: None,
        revoked: None,
        salt: [3; 32],
        hash: api_key::hash(&[3; 32], &[2; 32]),
    };
    for shards in [1, 2, 64] {
        let dealt = Dealer::new(&head(1), shards).deal(row(Kind::ApiKey, api_key::row("acme", &key.id), wire::encode(&key))).unwrap().remove(0);
        assert_eq!(dealt.shard, api_key::home("acme").hash16().shard(shards));
        assert_eq!(wire::decode::<ApiKey>("API key", &dealt.value).unwrap(), key);
    }
}

#[test]
fn who_is_disabled_stays_so_whatever_the_number_of_shards() {
    for principal in [None, Some("corp:ada".to_owned())] {
        let disabled = Disabled { tenant: "acme".to_owned(), principal, at: Millis(1), by: "local".to_owned(), reason: "gone".to_owned() };
        let at = disabled::row("acme", disabled.principal.as_deref());
        for shards in [1, 2, 64] {
            let dealt = Dealer::new(&head(1), shards).deal(row(Kind::Disabled, at.clone(), wire::encode(&disabled))).unwrap().remove(0);
            assert_eq!(dealt.shard, api_key::home("acme").hash16().shard(shards));
            assert_eq!(wire::decode::<Disabled>("disabled principal", &dealt.value).unwrap(), disabled);
        }
    }
}
