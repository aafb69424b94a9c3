//! The suite, on the embedded store and on the reference model.

use crate::support::{Place, embedded, model, small, wait};
use selvedge_store::conformance as suite;

macro_rules! suite {
    ($($check:ident),* $(,)?) => {
        mod on_embedded {
            use super::*;
            $(#[test] fn $check() {
                let place = Place::new(concat!("suite-", stringify!($check)));
                wait(suite::$check(embedded(&place, small())));
            })*
        }
        mod on_model {
            use super::*;
            $(#[test] fn $check() {
                wait(suite::$check(model()));
            })*
        }
    };
}

suite!(
    acknowledged_commit_is_there_after_reopening,
    commit_is_whole_or_not_at_all,
    numbers_follow_without_a_hole,
    refused_commit_refuses_those_behind_it,
    batches_in_flight_keep_their_order,
    older_owner_commits_nothing,
    unclaimed_shard_takes_no_commit,
    takeover_sees_everything_acknowledged,
    unknown_outcome_is_told_apart_by_the_number,
    store_that_goes_back_is_noticed,
    scan_is_in_key_order_and_pages,
    commit_above_the_limits_is_refused,
    expired_row_is_not_seen,
    fold_replaces_the_rows_under_its_prefix,
    close_keeps_what_is_in_flight,
);
