//! Ids, spans, waits, records and chains, as properties.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use selvedge_kernel::auth::{AuthorizationContext, Hop, Principal, PrincipalKind, RequestFacts};
use selvedge_kernel::calls::Link;
use selvedge_kernel::error::{AttemptError, WorkError};
use selvedge_kernel::id::{ActorId, Hash16, InvocationId, RawId, RunId, ShardId, effect_key};
use selvedge_kernel::journal::{ChainError, Ending, Entry, Hash32, OpKind, Payload, SealKey, Signature, Verifier, chain_start, seal};
use selvedge_kernel::lend::{Life, Report};
use selvedge_kernel::policy::{Backoff, Rate, Retry, Span, Throttle, Verdict, after_failure, delay};
use selvedge_kernel::record::invocation::Begun;
use selvedge_kernel::record::message::{Awaited, Envelope, KeptReply, Message, OutboxRow, Outcome, Peer, Starting};
use selvedge_kernel::record::run::Parent;
use selvedge_kernel::record::shard::{ShardHead, Timer};
use selvedge_kernel::time::Millis;
use selvedge_kernel::transition::Journal;
use selvedge_kernel::wire::{self, WireError};

fn raw_id() -> impl Strategy<Value = RawId> {
    (0u16..0xffff, any::<[u8; 16]>()).prop_map(|(hash, uuid)| RawId { hash: Hash16(hash), uuid })
}

fn actor_id() -> impl Strategy<Value = ActorId> {
    ("[a-z]{1,8}", "[a-z_]{1,8}", ".{0,20}").prop_map(|(tenant, kind, key)| ActorId { tenant, kind, key })
}

fn context() -> impl Strategy<Value = AuthorizationContext> {
    let hop = (actor_id(), "[a-z]{1,6}").prop_map(|(actor, handler)| Hop { actor, handler });
    let principal = (".{0,12}", prop::collection::vec("[a-z]{1,6}", 0..3)).prop_map(|(id, roles)| Principal {
        id,
        kind: PrincipalKind::Local,
        tenant: "default".to_owned(),
        roles,
    });
    (principal, prop::collection::vec(hop, 0..3), any::<u64>(), any::<Option<u64>>()).prop_map(|(principal, chain, at, until)| AuthorizationContext {
        principal,
        chain,
        claims: BTreeMap::from([("scope".to_owned(), "all".to_owned())]),
        request: RequestFacts { address: None, at: Millis(at) },
        until: until.map(Millis),
    })
}

fn peer() -> impl Strategy<Value = Peer> {
    prop_oneof![
        (raw_id(), any::<u32>()).prop_map(|(id, number)| Peer::Operation { invocation: InvocationId(id), number }),
        (raw_id(), any::<u16>(), any::<u32>(), any::<u32>()).prop_map(|(id, stage, item, attempt)| Peer::Task { run: RunId(id), stage, item, attempt }),
    ]
}

fn link() -> impl Strategy<Value = Link> {
    (raw_id(), actor_id(), "[a-z]{1,8}").prop_map(|(id, actor, handler)| Link { invocation: InvocationId(id), actor, handler })
}

fn message() -> impl Strategy<Value = Message> {
    let first = (raw_id(), actor_id(), "[a-z]{1,8}", prop::collection::vec(any::<u8>(), 0..200), context());
    let second = (any::<Option<u32>>(), any::<Option<u64>>(), prop::option::of(peer()), prop::option::of(raw_id()), prop::collection::vec(link(), 0..3));
    (first, second).prop_map(|((id, target, handler, input, context), (key, deadline, reply_to, parent, chain))| Message {
        id: InvocationId(id),
        target,
        handler,
        input: input.into(),
        context,
        idempotency_key: key.map(|key| key.to_string()),
        trace: None,
        deadline: deadline.map(Millis),
        reply_to,
        parent: parent.map(InvocationId),
        chain,
    })
}

fn throttle() -> impl Strategy<Value = Throttle> {
    (any::<Option<u32>>(), any::<Option<(u32, u32)>>(), any::<Option<String>>()).prop_map(|(concurrency, rate, key)| {
        let rate = rate.map(|(count, per)| Rate { count, per: Span(Duration::from_millis(per.into())) });
        Throttle { concurrency, rate, key }
    })
}

fn start() -> impl Strategy<Value = Envelope> {
    let awaited = prop_oneof![
        peer().prop_map(Awaited::Acceptance),
        (peer(), any::<u32>(), any::<Option<u64>>())
            .prop_map(|(peer, depth, deadline)| Awaited::End { parent: Parent { peer, depth }, deadline: deadline.map(Millis) }),
    ];
    let bytes = || prop::collection::vec(any::<u8>(), 0..50);
    (raw_id(), bytes(), bytes(), context(), awaited, any::<Option<String>>()).prop_map(|(id, definition, input, context, awaited, trace)| {
        Envelope::start(Starting { run: RunId(id), definition: definition.into(), input: input.into(), context, awaited }, trace)
    })
}

fn envelope() -> impl Strategy<Value = Envelope> {
    let outcome = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..50).prop_map(|value| Outcome::Value(value.into())),
        (".{0,10}", ".{0,30}").prop_map(|(code, message)| Outcome::Error(WorkError::new(code, message))),
    ];
    prop_oneof![
        start(),
        message().prop_map(Envelope::Invoke),
        (any::<u64>(), message()).prop_map(|(at, message)| Envelope::Later { at: Millis(at), message }),
        (peer(), raw_id(), outcome).prop_map(|(to, from, outcome)| Envelope::Reply { to, from: InvocationId(from), outcome }),
        (raw_id(), ".{0,20}").prop_map(|(id, reason)| Envelope::Cancel { invocation: InvocationId(id), reason }),
        (actor_id(), any::<(u16, u64)>(), any::<(u32, u32, u32, u32)>(), throttle()).prop_map(
            |(limit, (from, life), (want, started, ended, unused), throttle)| {
                let report = Report { want, started, ended, unused };
                Envelope::Borrow { limit, from: ShardId(from), life: Life(life), throttle, report }
            }
        ),
        (actor_id(), any::<(u16, u64, u32)>()).prop_map(|(limit, (from, life, permits))| Envelope::Unwant {
            limit,
            from: ShardId(from),
            life: Life(life),
            permits
        }),
        (actor_id(), any::<u64>(), any::<u32>(), throttle()).prop_map(|(limit, life, permits, throttle)| Envelope::Grant {
            limit,
            life: Life(life),
            throttle,
            permits
        }),
    ]
}

proptest! {
    #[test]
    fn an_id_reads_back_from_its_text_and_sorts_as_its_bytes(a in raw_id(), b in raw_id()) {
        let text = InvocationId(a).to_string();
        prop_assert_eq!(InvocationId::from_str(&text).unwrap().0, a);
        prop_assert!(RunId::from_str(&text).is_err(), "an id of another kind");
        prop_assert_eq!(InvocationId(a).to_string().cmp(&InvocationId(b).to_string()), a.to_bytes().cmp(&b.to_bytes()));
    }

    #[test]
    fn text_that_is_no_id_is_refused_and_named(text in ".{0,40}") {
        if let Err(error) = InvocationId::from_str(&text) {
            prop_assert!(error.to_string().contains("is not an id"));
        }
    }

    #[test]
    fn any_id_leads_to_the_shard_of_its_actor(actor in actor_id(), count in 1u16..512) {
        let shard = actor.hash16().shard(count);
        prop_assert!(shard.0 < count);
        let id = RunId::keyed(&actor.tenant, &actor.kind, &actor.key);
        prop_assert_eq!(id.0.hash, id.actor(&actor.tenant).hash16());
    }

    #[test]
    fn an_effect_key_depends_on_every_part_and_on_nothing_else(id in raw_id(), a in "[a-z]{0,8}", b in "[a-z]{0,8}") {
        let key = effect_key(id, &[a.as_bytes(), b.as_bytes()]);
        prop_assert_eq!(&key, &effect_key(id, &[a.as_bytes(), b.as_bytes()]));
        let joined = format!("{a}{b}");
        prop_assert!(key != effect_key(id, &[joined.as_bytes(), b""]) || b.is_empty());
    }

    #[test]
    fn a_span_reads_back_from_its_text(ms in 0u64..315_000_000_000) {
        let span = Span(Duration::from_millis(ms));
        prop_assert_eq!(Span::from_str(&span.to_string()).unwrap(), span);
    }

    #[test]
    fn a_bare_or_negative_number_is_no_span(number in any::<i64>()) {
        prop_assert!(Span::from_str(&number.to_string()).is_err());
    }

    #[test]
    fn a_wait_is_never_longer_than_its_maximum_and_its_seed_decides_it(
        attempt in 1u32..2_000, which in 0u8..3, initial in 0u64..100_000, max in 0u64..1_000_000, multiplier in 0.0f64..100.0, jitter in 0.0f64..2.0, seed: u64,
    ) {
        let backoff = [Backoff::Fixed, Backoff::Linear, Backoff::Exponential][usize::from(which)];
        let policy = Retry { backoff, initial: Span(Duration::from_millis(initial)), max: Span(Duration::from_millis(max)), multiplier, jitter, ..Retry::default() };
        let wait = delay(attempt, &policy, seed);
        prop_assert!(wait <= Duration::from_millis(max));
        prop_assert_eq!(wait, delay(attempt, &policy, seed));
        let calm = Retry { jitter: 0.0, ..policy };
        prop_assert!(delay(attempt + 1, &calm, seed) >= delay(attempt, &calm, seed), "without jitter it never shrinks");
    }

    #[test]
    fn attempts_end_after_the_last_one_and_a_final_error_is_never_tried_again(attempt in 1u32..50, max in 1u32..50, retryable: bool, asked in any::<Option<u16>>()) {
        let failure = AttemptError { error: WorkError::new("boom", "it broke"), retryable, retry_after_ms: asked.map(u64::from) };
        match after_failure(attempt, &failure, &Retry::exponential(max), 7) {
            Verdict::Again { delay } => {
                prop_assert!(retryable && attempt < max);
                prop_assert!(delay >= Duration::from_millis(asked.unwrap_or(0).into()), "the wait that was asked for is kept");
            }
            Verdict::Exhausted => prop_assert!(retryable && attempt >= max),
            Verdict::GiveUp => prop_assert!(!retryable),
        }
        let picky = Retry { give_up_on: vec!["boom".to_owned()], ..Retry::exponential(max) };
        prop_assert_eq!(after_failure(attempt, &failure, &picky, 7), Verdict::GiveUp);
        let other = Retry { retry_on: vec!["other".to_owned()], ..Retry::exponential(max) };
        prop_assert_eq!(after_failure(attempt, &failure, &other, 7), Verdict::GiveUp);
    }

    #[test]
    fn envelopes_timers_and_rows_read_back_as_they_were_written(envelope in envelope(), message in message(), at: u64, n: u64) {
        prop_assert_eq!(wire::decode::<Envelope>("envelope", &wire::encode(&envelope)).unwrap(), envelope.clone());
        let row = OutboxRow::Whole(envelope);
        prop_assert_eq!(wire::decode::<OutboxRow>("outbox row", &wire::encode(&row)).unwrap(), row);
        let timer = Timer::Message(Box::new(message));
        prop_assert_eq!(wire::decode::<Timer>("timer", &wire::encode(&timer)).unwrap(), timer);
        let head = ShardHead { time: Millis(at), next: n, ..ShardHead::default() };
        prop_assert_eq!(wire::decode::<ShardHead>("shard head", &wire::encode(&head)).unwrap(), head);
        let signature = Signature { number: n as u32, kind: OpKind::Call, name: String::new(), target: "a/b.c".to_owned() };
        let mut begun = Begun::new(signature, Millis(at));
        begun.reply = Some(KeptReply::Error(WorkError::new("x", "y")));
        prop_assert_eq!(wire::decode::<Begun>("begun", &wire::encode(&begun)).unwrap(), begun);
    }

    #[test]
    fn a_cut_a_longer_and_a_newer_value_are_refused(message in message(), cut: prop::sample::Index, version in 2u8..) {
        let whole = wire::encode(&message);
        let kept = cut.index(whole.len());
        prop_assert!(wire::decode::<Message>("message", &whole[..kept]).is_err());
        let longer = [&whole[..], &[0]].concat();
        prop_assert!(wire::decode::<Message>("message", &longer).is_err());
        let mut newer = whole.to_vec();
        newer[0] = version;
        prop_assert_eq!(wire::decode::<Message>("message", &newer), Err(WireError::Newer { what: "message", found: version, known: 1 }));
    }

    #[test]
    fn a_flipped_bit_in_a_journal_is_found_at_its_entry(payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..8), which: prop::sample::Index, bit: prop::sample::Index) {
        let id = RawId { hash: Hash16(7), uuid: [3; 16] };
        let key = SealKey([9; 32]);
        let input = seal(&key, b"input");
        let mut journal = Journal::start(InvocationId(id), key, input);
        let mut entries: Vec<Entry> = Vec::new();
        for (number, payload) in payloads.iter().enumerate() {
            let signature = Signature { number: number as u32, kind: OpKind::Step, name: "s".to_owned(), target: String::new() };
            journal.append(&mut entries, signature, Ending::Value, &Bytes::from(payload.clone()), None, Millis(5));
        }
        let walk = |entries: &[Entry]| {
            let mut verifier = Verifier::new(chain_start(id, input));
            for entry in entries {
                let payload = match &entry.payload {
                    Payload::Inline(payload) => Some(payload.clone()),
                    _ => None,
                };
                verifier.check(entry, Some(&key), payload.as_deref()).map_err(|error| (entry.header.index, error))?;
            }
            Ok::<_, (u32, _)>(verifier.head())
        };
        prop_assert_eq!(walk(&entries).unwrap(), (journal.chain, journal.next));

        let at = which.index(entries.len());
        let mut bytes = wire::encode(&entries[at]).to_vec();
        let place = 8 + bit.index((bytes.len() - 1) * 8);
        bytes[place / 8] ^= 1 << (place % 8);
        if let Ok(changed) = wire::decode::<Entry>("entry", &bytes)
            && changed != entries[at]
        {
            let mut broken = entries.clone();
            broken[at] = changed;
            let found = walk(&broken).map(|head| head != (journal.chain, journal.next));
            prop_assert!(!matches!(found, Ok(false)), "the change was not found");
        }
        let mut missing = entries.clone();
        missing.remove(at);
        prop_assert!(walk(&missing) != Ok((journal.chain, journal.next)));
        let mut erased = entries;
        erased[at].payload = Payload::Erased;
        prop_assert_eq!(walk(&erased).unwrap(), (journal.chain, journal.next));
    }
}

#[test]
fn the_seal_of_a_payload_cannot_be_guessed_without_its_key() {
    let payload = b"yes";
    assert_ne!(seal(&SealKey([1; 32]), payload), seal(&SealKey([2; 32]), payload));
    assert_ne!(seal(&SealKey([1; 32]), payload), Hash32(*blake3::hash(payload).as_bytes()));
}

#[test]
fn a_context_does_not_grow_by_acting_through_the_same_actor_again_nor_without_bound() {
    let actor = |key: usize| ActorId { tenant: "default".to_owned(), kind: "bell".to_owned(), key: key.to_string() };
    let first = selvedge_kernel::auth::local("default", Millis(0));
    let mut context = first.clone();
    for _ in 0..1_000 {
        context = context.through(&actor(1), "ring");
    }
    assert_eq!(context.chain.len(), 1);
    for key in 0..1_000 {
        context = context.through(&actor(key), "ring");
    }
    assert_eq!(context.chain.len(), selvedge_kernel::auth::DELEGATION);
    assert_eq!(context.principal, first.principal);
    assert_eq!(context.chain[0].actor, actor(1), "where it began stays");
}

#[test]
fn an_empty_result_that_is_said_to_lie_elsewhere_is_found_at_its_entry() {
    let id = RawId { hash: Hash16(7), uuid: [3; 16] };
    let key = SealKey([9; 32]);
    let input = seal(&key, b"input");
    let mut journal = Journal::start(InvocationId(id), key, input);
    let mut entries: Vec<Entry> = Vec::new();
    let signature = Signature { number: 0, kind: OpKind::StateGet, name: "s".to_owned(), target: String::new() };
    journal.append_chunked(&mut entries, signature, Ending::Value, &Bytes::new(), None, Millis(5));
    let check = |entry: &Entry| Verifier::new(chain_start(id, input)).check(entry, Some(&key), Some(&[]));
    assert_eq!(check(&entries[0]), Ok(()), "nothing is never stored in rows of its own");
    entries[0].payload = Payload::Chunked { len: 0 };
    assert!(matches!(check(&entries[0]), Err(ChainError::Payload { index: 0, .. })), "a flipped bit makes this of it");
}

#[test]
fn each_backoff_waits_as_its_name_says_and_multiplier_maximum_and_jitter_count() {
    let millis = |policy: &Retry| (1..=5).map(|attempt| delay(attempt, policy, 7).as_millis()).collect::<Vec<_>>();
    let span = |ms| Span(Duration::from_millis(ms));
    let calm = Retry { backoff: Backoff::Fixed, initial: span(100), max: span(1_000), multiplier: 3.0, jitter: 0.0, ..Retry::default() };
    assert_eq!(millis(&calm), [100, 100, 100, 100, 100]);
    assert_eq!(millis(&Retry { backoff: Backoff::Linear, ..calm.clone() }), [100, 200, 300, 400, 500]);
    let growing = Retry { backoff: Backoff::Exponential, ..calm.clone() };
    assert_eq!(millis(&growing), [100, 300, 900, 1_000, 1_000]);
    assert_eq!(millis(&Retry { multiplier: 2.0, ..growing.clone() }), [100, 200, 400, 800, 1_000]);
    assert_eq!(millis(&Retry { initial: span(10), max: span(50), ..growing }), [10, 30, 50, 50, 50]);
    let waits: Vec<u128> = (0..200).map(|seed| delay(1, &Retry { jitter: 0.25, ..calm.clone() }, seed).as_millis()).collect();
    assert!(waits.iter().all(|wait| (75..=125).contains(wait)) && waits.iter().min() < Some(&85) && waits.iter().max() > Some(&115), "{waits:?}");
}
