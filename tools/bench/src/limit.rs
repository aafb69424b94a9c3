//! The limit: what the disk of this machine would give to somebody who does nothing but append.

use std::time::{Duration, Instant};

use crate::figure::median;
use crate::segment::Segment;

/// Records per second when `callers` callers each wait for their record to be durable before they give the next, and cost
/// nothing themselves: every group holds one record of each caller, is one write and one fdatasync.
pub fn records_per_second(segment: &mut Segment, record_bytes: usize, callers: usize, time: Duration) -> std::io::Result<f64> {
    let group: Vec<u8> = (0..record_bytes * callers).map(|at| at as u8 | 1).collect();
    let start = Instant::now();
    let mut records = 0u64;
    while start.elapsed() < time {
        segment.append(&group)?;
        records += callers as u64;
    }
    Ok(records as f64 / start.elapsed().as_secs_f64())
}

/// The median time, in microseconds, of one append with its fdatasync.
pub fn append_us(segment: &mut Segment, record_bytes: usize, times: usize) -> std::io::Result<f64> {
    let record: Vec<u8> = (0..record_bytes).map(|at| at as u8 | 1).collect();
    let mut us = Vec::with_capacity(times);
    for _ in 0..times {
        let start = Instant::now();
        segment.append(&record)?;
        us.push(start.elapsed().as_secs_f64() * 1e6);
    }
    Ok(median(&mut us))
}
