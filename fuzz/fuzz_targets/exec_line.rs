//! A line from a worker: any bytes are an answer, a log line or an error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use selvedge_engine::exec::protocol;

fuzz_target!(|bytes: &[u8]| {
    let _ = protocol::read(bytes);
    let _ = protocol::answered_by_prefix(bytes);
});
