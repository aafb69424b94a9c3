//! A log that has lost what it held is refused, and nothing in the directory is changed.

use selvedge_kernel::id::ShardId;
use selvedge_kernel::ports::{Owner, Store};
use selvedge_store::{EmbeddedStore, OpenError, Options};

use crate::support::{Place, wait};

fn used() -> Place {
    let place = Place::new("lost");
    let store = EmbeddedStore::open(&place.data(), Options::default()).unwrap();
    wait(store.claim(ShardId(3), Owner([7; 16]))).unwrap();
    wait(store.close()).unwrap();
    place
}

fn names(place: &Place) -> Vec<(std::path::PathBuf, u64)> {
    let mut names: Vec<_> =
        std::fs::read_dir(place.data().join("log")).unwrap().flatten().map(|entry| (entry.path(), entry.metadata().unwrap().len())).collect();
    names.sort();
    names
}

fn refused(place: &Place, says: &str) {
    let before = names(place);
    match EmbeddedStore::open(&place.data(), Options::default()) {
        Err(error @ OpenError::Damaged { .. }) => {
            let text = error.to_string();
            assert!(text.contains(says) && text.contains("nothing was changed"), "{text}");
        }
        Err(error) => panic!("refused for another reason: {error}"),
        Ok(_) => panic!("it opened as if nothing had been lost"),
    }
    assert_eq!(names(place), before, "the evidence was changed");
}

#[test]
fn a_log_whose_segments_were_removed_is_refused() {
    let place = used();
    for (path, _) in names(&place).into_iter().filter(|(path, _)| path.extension().is_some_and(|end| end == "log")) {
        std::fs::remove_file(path).unwrap();
    }
    refused(&place, "files were removed or emptied");
}

#[test]
fn a_log_whose_segments_were_emptied_is_refused() {
    let place = used();
    for (path, _) in names(&place) {
        if path.extension().is_some_and(|end| end == "log") {
            std::fs::File::create(path).unwrap();
        }
    }
    refused(&place, "files were removed or emptied");
}
