//! How a run can end badly; each way has its exit code.

/// What went wrong, for a person, with what to do next.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// It was done and failed, was refused, or a check found something.
    #[error("{0}")]
    Failed(String),
    /// The command line, environment or configuration file is wrong.
    #[error("{0}")]
    Usage(String),
    /// There is no connection to the broker.
    #[error("{0}")]
    Unreachable(String),
    /// Nothing, or not enough, came in time.
    #[error("{0}")]
    NoAnswer(String),
    /// What there is to say has been said; only the exit code is left.
    #[error("")]
    Said(u8),
}

impl Failure {
    /// The process's exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
            Self::Unreachable(_) => 3,
            Self::NoAnswer(_) => 4,
            Self::Said(code) => *code,
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        // A reader that has seen enough (`| head`) is no error worth a message.
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            Self::Said(0)
        } else {
            Self::Failed(format!("cannot write the output: {error}"))
        }
    }
}
