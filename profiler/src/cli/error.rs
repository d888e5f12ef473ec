//! What the user sees when something fails: one line of cause, the command that mends it, a documented exit code.

use std::{fmt, io};

/// Exit codes, documented in the README (`profiler generate exit-codes`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Success,
    /// Something failed while working; what was recorded until then was written.
    Failure,
    /// The command line or an input file is wrong.
    Usage,
    /// This kernel or these privileges do not allow it.
    Unsupported,
    /// The target does not exist or went away before recording began.
    NoTarget,
    /// The command could not be executed.
    CannotExecute,
    /// The command was not found.
    CommandNotFound,
    /// Aborted by a second Ctrl-C.
    Aborted,
}

impl Exit {
    /// All codes with their meaning, in the order of their numbers.
    pub const ALL: [Self; 8] = [
        Self::Success,
        Self::Failure,
        Self::Usage,
        Self::Unsupported,
        Self::NoTarget,
        Self::CannotExecute,
        Self::CommandNotFound,
        Self::Aborted,
    ];

    /// The process's exit code.
    pub const fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Failure => 1,
            Self::Usage => 2,
            Self::Unsupported => 3,
            Self::NoTarget => 4,
            Self::CannotExecute => 126,
            Self::CommandNotFound => 127,
            Self::Aborted => 130,
        }
    }

    /// What the code means.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Success => "done (also when Ctrl-C or a broken pipe ended it)",
            Self::Failure => "failed while working; what was recorded until then was written",
            Self::Usage => "the command line or an input file is wrong",
            Self::Unsupported => {
                "this kernel or these privileges do not allow it (`profiler doctor` explains)"
            }
            Self::NoTarget => "the target does not exist or went away before recording began",
            Self::CannotExecute => "`record -- COMMAND`: the command could not be executed",
            Self::CommandNotFound => "`record -- COMMAND`: the command was not found",
            Self::Aborted => "aborted by a second Ctrl-C",
        }
    }
}

/// A failure as it is shown.
#[derive(Debug)]
pub struct Failure {
    /// One line: what failed and why.
    pub message: String,
    /// What mends it, a command if there is one.
    pub mend: Option<String>,
    /// Exit code.
    pub exit: Exit,
}

impl Failure {
    /// A failure of that cause and code.
    pub fn new(exit: Exit, message: impl fmt::Display) -> Self {
        Self { message: message.to_string(), mend: None, exit }
    }

    /// Adds what mends it.
    pub fn mend(mut self, mend: impl fmt::Display) -> Self {
        self.mend = Some(mend.to_string());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "profiler: {}", self.message)?;
        if let Some(mend) = &self.mend {
            write!(f, "\n  {mend}")?;
        }
        Ok(())
    }
}

/// What came of writing to stdout. A reader that has seen enough is no failure.
///
/// # Errors
/// Any other end of it.
pub fn to_stdout(result: io::Result<()>) -> Result<(), Failure> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new(Exit::Failure, format!("stdout: {error}")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_pipe_is_no_failure() {
        assert!(to_stdout(Ok(())).is_ok() && to_stdout(Err(io::ErrorKind::BrokenPipe.into())).is_ok());
        let failure = to_stdout(Err(io::ErrorKind::StorageFull.into())).unwrap_err();
        assert!(failure.message.starts_with("stdout: "), "{failure}");
        assert_eq!(failure.exit, Exit::Failure);
    }
}
