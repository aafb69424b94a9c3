//! The one integration-test binary of the store.
#![allow(clippy::unwrap_used)]

mod backup;
mod behind;
mod carrying;
mod checking;
mod conformance;
mod differential;
mod directory;
mod export;
mod faults;
mod fixture;
mod ingestion;
mod log;
mod lost;
mod support;
