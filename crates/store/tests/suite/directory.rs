//! Whose directory it is: lock, format, foreign files.

use crate::support::{Place, claim, small, wait};
use selvedge_kernel::ports::Store;
use selvedge_store::{EmbeddedStore, OpenError, Options};

#[test]
fn second_opener_is_told_who_has_the_directory() {
    let place = Place::new("second");
    let options = Options { command: "selvedge serve --x".to_owned(), ..small() };
    let first = EmbeddedStore::open(&place.data(), options).unwrap();
    let error = EmbeddedStore::open(&place.data(), small()).err().unwrap();
    let OpenError::Held { pid, command, since, .. } = &error else { panic!("{error}") };
    assert_eq!(*pid, std::process::id().to_string());
    assert_eq!(command, "selvedge serve --x");
    assert!(since.ends_with('Z'), "{since}");
    assert!(error.to_string().contains("stop that process"), "{error}");
    claim(&first, 0);
    wait(first.close()).unwrap();
    EmbeddedStore::open(&place.data(), small()).unwrap();
}

#[test]
fn directory_of_something_else_is_refused_and_left_alone() {
    let place = Place::new("foreign");
    std::fs::create_dir_all(place.data()).unwrap();
    std::fs::write(place.data().join("thesis.tex"), "years").unwrap();
    let error = EmbeddedStore::open(&place.data(), small()).err().unwrap();
    assert!(matches!(error, OpenError::Foreign { .. }), "{error}");
    assert!(error.to_string().contains("thesis.tex"), "{error}");
    assert_eq!(std::fs::read_dir(place.data()).unwrap().count(), 1, "nothing was written");
}

#[test]
fn format_of_a_newer_version_is_refused() {
    let place = Place::new("newer");
    drop(EmbeddedStore::open(&place.data(), small()).unwrap());
    let meta = place.data().join("meta");
    let text = std::fs::read_to_string(&meta).unwrap();
    std::fs::write(&meta, text.replace("selvedge-store 1", "selvedge-store 2")).unwrap();
    let error = EmbeddedStore::open(&place.data(), small()).err().unwrap();
    assert!(matches!(error, OpenError::Newer { found: 2, known: 1, .. }), "{error}");
}

#[test]
fn shard_count_of_an_existing_store_stays() {
    let place = Place::new("shards");
    drop(EmbeddedStore::open(&place.data(), Options { shards: 8, ..small() }).unwrap());
    let store = EmbeddedStore::open(&place.data(), small()).unwrap();
    assert_eq!(store.meta().shards, 8);
}
