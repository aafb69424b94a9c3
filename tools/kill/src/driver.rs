//! Starts a program, kills it at a random moment, again and again.

use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::seed::Seed;

/// What is killed: a name for messages and the command for one life of it.
pub struct Program<'a> {
    /// What messages call it.
    pub name: &'a str,
    /// The longest life before a kill, in milliseconds.
    pub longest_life_ms: u64,
    /// Whether the life of that number has come to the point from which its time counts: asked until it says yes, or for
    /// [`LATEST_BEGIN`].
    pub has_begun: &'a dyn Fn(u64) -> bool,
    /// The command of a life that may be killed: by its number from 1, and how many lives have come to their own end.
    pub life: &'a dyn Fn(u64, u64) -> Result<Command, String>,
}

/// A life counts from here on in any case.
pub const LATEST_BEGIN: Duration = Duration::from_secs(10);

/// What became of the lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Kills {
    /// Lives that ended by SIGKILL.
    pub killed: u64,
    /// Lives that had done all their work before the kill came.
    pub ended: u64,
}

/// Lets the program live `cycles` times, each time until a moment drawn from the seed.
/// A life that ends by itself with anything but success is an error: a crash that nobody ordered.
pub fn cycles(program: &Program<'_>, cycles: u64, seed: u64) -> Result<Kills, String> {
    let mut draw = Seed::new(seed, 0);
    let mut kills = Kills::default();
    for cycle in 1..=cycles {
        let life = Duration::from_millis(draw.below(program.longest_life_ms + 1));
        let mut child =
            (program.life)(cycle, kills.ended)?.stdin(Stdio::null()).spawn().map_err(|error| format!("{} cannot be started: {error}", program.name))?;
        let latest = Instant::now() + LATEST_BEGIN;
        let mut ended = None;
        while ended.is_none() && !(program.has_begun)(cycle) && Instant::now() < latest {
            ended = wait(&mut child, Duration::from_millis(1))?;
        }
        if ended.is_none() {
            ended = wait(&mut child, life)?;
        }
        match ended {
            None => {
                child.kill().map_err(|error| format!("{} cannot be killed: {error}", program.name))?;
                child.wait().map_err(|error| format!("{} cannot be waited for: {error}", program.name))?;
                kills.killed += 1;
            }
            Some(status) if status.success() => kills.ended += 1,
            Some(status) => return Err(format!("in cycle {cycle} {} ended by itself with {status}", program.name)),
        }
        if cycle % 50 == 0 {
            println!("{}: {cycle} cycles, {} kills", program.name, kills.killed);
        }
    }
    Ok(kills)
}

/// Lets the program run to its end, for at most `limit`.
pub fn to_the_end(name: &str, command: &mut Command, limit: Duration) -> Result<ExitStatus, String> {
    let mut child = command.stdin(Stdio::null()).spawn().map_err(|error| format!("{name} cannot be started: {error}"))?;
    if let Some(status) = wait(&mut child, limit)? {
        return Ok(status);
    }
    child.kill().map_err(|error| format!("{name} cannot be killed: {error}"))?;
    child.wait().map_err(|error| format!("{name} cannot be waited for: {error}"))?;
    Err(format!("{name} did not come to its end within {} s", limit.as_secs()))
}

/// The status if the child ends within `limit`.
fn wait(child: &mut Child, limit: Duration) -> Result<Option<ExitStatus>, String> {
    let end = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait().map_err(|error| format!("a child cannot be waited for: {error}"))? {
            return Ok(Some(status));
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        std::thread::sleep(left.min(Duration::from_millis(1)));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_living_program_is_killed_and_an_ended_one_is_counted() {
        let sleep = |_, _| {
            let mut command = Command::new("sleep");
            command.arg("30");
            Ok(command)
        };
        assert_eq!(cycles(&Program { name: "sleep", longest_life_ms: 400, has_begun: &|_| true, life: &sleep }, 3, 1), Ok(Kills { killed: 3, ended: 0 }));
        assert!(to_the_end("sleep", &mut sleep(0, 0).unwrap(), Duration::from_millis(1)).unwrap_err().contains("did not come to its end"));
    }

    #[test]
    fn a_life_that_ends_with_an_error_is_an_error() {
        let fails = |_, _| Ok(Command::new("false"));
        assert!((1..20).any(|seed| cycles(&Program { name: "false", longest_life_ms: 400, has_begun: &|_| true, life: &fails }, 3, seed).is_err()));
        assert!(
            cycles(&Program { name: "nothing", longest_life_ms: 400, has_begun: &|_| true, life: &|_, _| Ok(Command::new("/nowhere/nothing")) }, 1, 1)
                .unwrap_err()
                .contains("cannot be started")
        );
    }
}
