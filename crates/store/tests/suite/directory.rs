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

#[test]
fn lock_of_a_process_that_is_gone_is_waited_for_while_a_child_of_it_starts() {
    let place = Place::new("afterlife");
    let first = EmbeddedStore::open(&place.data(), small()).unwrap();
    wait(first.close()).unwrap();
    drop(first);
    let mut gone = std::process::Command::new("true").spawn().unwrap();
    gone.wait().unwrap();
    let file = place.data().join("lock");
    std::fs::write(&file, format!("pid {}\nsince then\ncommand selvedge run\n", gone.id())).unwrap();
    // A copy of its lock, as a child between fork and exec has one.
    let copy = std::fs::File::open(&file).unwrap();
    copy.lock().unwrap();
    let (held, holds) = std::sync::mpsc::channel();
    let child = std::thread::spawn(move || {
        held.send(()).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(200));
        drop(copy);
    });
    holds.recv().unwrap();
    EmbeddedStore::open(&place.data(), small()).unwrap();
    child.join().unwrap();
}
