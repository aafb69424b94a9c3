//! What the kernel says about this process.

use std::collections::BTreeMap;

/// Bytes that this process has caused to be sent to the disk since it began (`write_bytes` of `/proc/self/io`).
pub fn write_bytes() -> std::io::Result<u64> {
    Ok(field(&std::fs::read_to_string("/proc/self/io")?, "write_bytes:"))
}

/// Resident memory in bytes.
pub fn resident_bytes() -> std::io::Result<u64> {
    Ok(field(&std::fs::read_to_string("/proc/self/status")?, "VmRSS:") * 1024)
}

/// The number behind a name, in a file of `/proc`.
pub fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()).and_then(|word| word.parse().ok()).unwrap_or(0)
}

/// CPU seconds of the threads alive, summed by their names without the number at the end.
pub fn cpu_by_thread() -> std::io::Result<BTreeMap<String, f64>> {
    let mut seconds: BTreeMap<String, f64> = BTreeMap::new();
    for task in std::fs::read_dir("/proc/self/task")? {
        let folder = task?.path();
        // A thread may end between the listing and the reading.
        let (Ok(name), Ok(times)) = (std::fs::read_to_string(folder.join("comm")), std::fs::read_to_string(folder.join("schedstat"))) else { continue };
        let name = name.trim().trim_end_matches(|c: char| c.is_ascii_digit() || c == '-' || c == ' ').to_owned();
        let ns: f64 = times.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0.0);
        *seconds.entry(name).or_default() += ns / 1e9;
    }
    Ok(seconds)
}

/// How much each grew; what did not is left out.
pub fn grown(before: &BTreeMap<String, f64>, after: &BTreeMap<String, f64>) -> BTreeMap<String, f64> {
    let growth = |(name, end): (&String, &f64)| (name.clone(), end - before.get(name).unwrap_or(&0.0));
    after.iter().map(growth).filter(|(_, seconds)| *seconds > 0.0).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_kernel_says_how_much_memory_and_time_this_process_took() {
        assert!(resident_bytes().unwrap() > 100_000);
        let before = cpu_by_thread().unwrap();
        let work = std::thread::Builder::new().name("worker-7".to_owned()).spawn(|| {
            let mut sum = 0u64;
            while cpu_by_thread().unwrap().get("worker").copied().unwrap_or(0.0) < 0.01 {
                sum = (0..100_000u64).fold(sum, u64::wrapping_add);
            }
            (sum, cpu_by_thread().unwrap())
        });
        let (_, after) = work.unwrap().join().unwrap();
        assert!(grown(&before, &after)["worker"] >= 0.01);
    }

    #[test]
    fn a_field_is_found_by_its_name() {
        assert_eq!((field("a: 1\nVmRSS:   77 kB\n", "VmRSS:"), field("", "b:")), (77, 0));
    }
}
