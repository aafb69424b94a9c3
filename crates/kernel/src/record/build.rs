//! Which code handled something.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Names the code of a handler: the first eight bytes of the build id of a binary, or of the BLAKE3 of a script.
///
/// ```
/// let build = selvedge_kernel::record::build::Build([0x1c, 0xec, 0xa9, 0x6a, 0x66, 0x91, 0x64, 0x28]);
/// assert_eq!(build.to_string(), "1ceca96a66916428");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Build(pub [u8; 8]);

impl Build {
    /// The one that a longer id begins with; none if the id is shorter than eight bytes.
    #[must_use]
    pub fn of_id(id: &[u8]) -> Option<Build> {
        id.first_chunk().copied().map(Build)
    }
}

impl fmt::Display for Build {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

/// The code that handled something, and the code that would now.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Builds {
    /// The build under which its journal began; none if that was not written.
    pub recorded: Option<Build>,
    /// The build that would handle it now; none if that has no name.
    pub here: Option<Build>,
}

impl Builds {
    /// One sentence, if there is something to compare.
    #[must_use]
    pub fn sentence(&self) -> Option<String> {
        let here = self.here?;
        Some(match self.recorded {
            Some(recorded) if recorded == here => format!("It was recorded by this very build, {here}."),
            Some(recorded) => format!("It was recorded by build {recorded}; this is build {here}."),
            None => format!("Which build recorded it is not written; this is build {here}."),
        })
    }
}
