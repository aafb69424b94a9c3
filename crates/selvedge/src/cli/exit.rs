//! How the command line ends.

use std::io::ErrorKind;
use std::process::ExitCode;

use selvedge_kernel::auth::Denied;
use selvedge_kernel::diagnostic::{Diagnostic, listed};
use selvedge_kernel::error::Consequence;
use selvedge_store::OpenError;

use crate::bootstrap::EngineError;
use crate::control::Problem;
use crate::manifest::FileError;

use super::explain::pointer;

/// Exit codes, one for each kind of end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Code {
    /// Done.
    Done = 0,
    /// The work failed.
    Failed = 1,
    /// The work waits or is blocked.
    Waits = 2,
    /// It was asked for in the wrong way.
    Usage = 64,
    /// What should answer does not.
    Unreachable = 69,
    /// Not permitted.
    NotPermitted = 77,
    /// A file or a setting is wrong.
    Configuration = 78,
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> ExitCode {
        ExitCode::from(code as u8)
    }
}

/// An end that is not a success: the code, and what to say on standard error.
#[derive(Debug)]
pub struct Stop {
    pub code: Code,
    pub message: String,
}

impl Stop {
    pub fn new(code: Code, message: impl Into<String>) -> Stop {
        Stop { code, message: message.into() }
    }

    pub fn usage(message: impl Into<String>) -> Stop {
        Stop::new(Code::Usage, message)
    }
}

/// The kind of end that an error of the engine is.
pub fn code_of(consequence: Consequence) -> Code {
    match consequence {
        Consequence::Retry => Code::Unreachable,
        Consequence::FixInput | Consequence::NotFound | Consequence::Conflict | Consequence::Limit => Code::Usage,
        Consequence::NotPermitted => Code::NotPermitted,
        Consequence::WorkFailed | Consequence::Stop => Code::Failed,
    }
}

impl From<Problem> for Stop {
    fn from(problem: Problem) -> Stop {
        let Problem { consequence, code, message, .. } = problem;
        // An error of the input says all there is to say; the others have a page that says what to look at next.
        let more =
            matches!(consequence, Consequence::WorkFailed | Consequence::Conflict | Consequence::Limit | Consequence::Stop).then(|| pointer(&code)).flatten();
        let message = more.map_or(message.clone(), |more| format!("{message}\n{more}"));
        Stop::new(code_of(consequence), message)
    }
}

impl From<selvedge_engine::VerbError> for Stop {
    fn from(error: selvedge_engine::VerbError) -> Stop {
        Problem::from(error).into()
    }
}

impl From<Denied> for Stop {
    fn from(denied: Denied) -> Stop {
        Stop::new(Code::NotPermitted, denied.to_string())
    }
}

impl From<Vec<Diagnostic>> for Stop {
    fn from(wrong: Vec<Diagnostic>) -> Stop {
        Stop::new(Code::Configuration, listed(&wrong))
    }
}

impl From<FileError> for Stop {
    fn from(error: FileError) -> Stop {
        error.0.into()
    }
}

impl From<EngineError> for Stop {
    fn from(error: EngineError) -> Stop {
        match error {
            #[cfg(feature = "cedar")]
            EngineError::Policies(_) => Stop::new(Code::Configuration, error.to_string()),
            EngineError::Store(error @ OpenError::Held { .. }) => Stop::new(Code::Unreachable, error.to_string()),
            EngineError::Store(error @ OpenError::Io { .. }) => unwritable(&error),
            EngineError::Store(error) => Stop::new(Code::Configuration, with_sources(&error)),
            // It passes by itself: whoever started this may start it again.
            EngineError::Programs { .. } => Stop::new(Code::Failed, with_sources(&error)),
            EngineError::Folder { ref source, .. } if full(source.kind()) => Stop::new(Code::Failed, with_sources(&error)),
            EngineError::Folder { .. } => Stop::new(Code::Configuration, with_sources(&error)),
            EngineError::Engine(error) => error.into(),
        }
    }
}

/// What the operating system refuses: also a look takes the lock and clears the torn end of the log, which is a write.
fn unwritable(error: &OpenError) -> Stop {
    let OpenError::Io { source, .. } = error else { return Stop::new(Code::Configuration, with_sources(error)) };
    let hint = "every verb but `verify` writes a little into the data directory: run it as the user whom the directory belongs to, or look at a copy, \
                `cp -r DIR COPY` and then the same with `--data COPY`";
    match source.kind() {
        ErrorKind::PermissionDenied => Stop::new(Code::NotPermitted, format!("{}\n  hint: {hint}", with_sources(error))),
        ErrorKind::ReadOnlyFilesystem => Stop::new(Code::Configuration, format!("{}\n  hint: {hint}", with_sources(error))),
        kind if full(kind) => Stop::new(Code::Failed, with_sources(error)),
        _ => Stop::new(Code::Configuration, with_sources(error)),
    }
}

/// Whether there is no room: that is no configuration, and passes when somebody makes some.
fn full(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

/// An error with what caused it.
fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_may_not_be_written_is_not_permitted_and_says_how_to_look_at_it() {
        let stop = |kind: ErrorKind| Stop::from(EngineError::Store(OpenError::Io { doing: "cannot open", path: "/d/lock".into(), source: kind.into() }));
        let (denied, medium, full) = (stop(ErrorKind::PermissionDenied), stop(ErrorKind::ReadOnlyFilesystem), stop(ErrorKind::StorageFull));
        assert_eq!((denied.code, medium.code, full.code), (Code::NotPermitted, Code::Configuration, Code::Failed));
        assert!(denied.message.starts_with("cannot open /d/lock") && denied.message.contains("`cp -r DIR COPY`"), "{}", denied.message);
        assert!(medium.message.contains("--data COPY") && !full.message.contains("--data COPY"), "{}", full.message);
    }
}
