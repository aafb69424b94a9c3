//! Lines of an export: any text is one or an error, and is dealt out or refused.
#![no_main]

use libfuzzer_sys::fuzz_target;
use selvedge_kernel::record::deal::Dealer;
use selvedge_kernel::record::portable::{Head, print, read};
use selvedge_kernel::time::Millis;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let head = Head { selvedge_export: 1, store: String::new(), group: 0, time: Millis(0), next: 0, clean: true, epoch: 0, ledgers: Vec::new(), notes: None };
    let mut dealer = Dealer::new(&head, 3);
    for line in text.lines().filter_map(|line| read(line).ok()) {
        assert_eq!(read(&print(&line)).as_ref(), Ok(&line));
        let _ = dealer.deal(line);
    }
    let _ = dealer.heads();
});
