//! Why a command failed, as the person who typed it reads it.
//!
//! Every error of this crate flows in and ends as labelled lines on standard error and an exit
//! code. What went wrong comes first, then what to do. It never holds a secret.

use std::fmt;
use std::io;

use crate::cluster::RequestError;
use crate::kubeconfig::KubeconfigError;
use crate::world::World;

/// Wrong usage, as clap's own errors.
const USAGE: u8 = 2;

#[derive(Debug)]
pub struct Failure {
    problems: Vec<Problem>,
    hints: Vec<String>,
    code: u8,
}

#[derive(Debug)]
struct Problem {
    label: String,
    text: String,
}

impl Failure {
    pub fn new(message: impl fmt::Display) -> Self {
        Self::labelled("error", message)
    }

    fn labelled(label: impl Into<String>, message: impl fmt::Display) -> Self {
        Self {
            problems: vec![Problem {
                label: label.into(),
                text: message.to_string(),
            }],
            hints: Vec::new(),
            code: 1,
        }
    }

    /// The arguments make no sense together, or name something that does not exist.
    pub fn usage(message: impl fmt::Display) -> Self {
        Self::new(message).code(USAGE)
    }

    /// Nothing to say, only an exit code: `diff` found differences, `can-i` says no.
    pub fn silent(code: u8) -> Self {
        Self {
            problems: Vec::new(),
            hints: Vec::new(),
            code,
        }
    }

    /// Several failures of one command, each said.
    pub fn several(failures: impl IntoIterator<Item = Failure>) -> Self {
        let mut all = Self::silent(1);
        for failure in failures {
            all.problems.extend(failure.problems);
            for hint in failure.hints {
                if !all.hints.contains(&hint) {
                    all.hints.push(hint);
                }
            }
        }
        all
    }

    pub fn hint(mut self, hint: impl fmt::Display) -> Self {
        self.hints.push(hint.to_string());
        self
    }

    pub fn code(mut self, code: u8) -> Self {
        self.code = code;
        self
    }

    /// Puts what was being done before each problem: `functions "x": …`.
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        for problem in &mut self.problems {
            problem.text = format!("{context}: {}", problem.text);
        }
        self
    }

    /// Prints it and returns the exit code.
    pub fn report(&self, world: &mut World) -> u8 {
        for Problem { label, text } in &self.problems {
            // A closed stderr leaves nobody to tell; the exit code still says it.
            let _ = if world.err_colour {
                writeln!(world.err, "\x1b[1;31m{label}:\x1b[0m {text}")
            } else {
                writeln!(world.err, "{label}: {text}")
            };
        }
        for hint in &self.hints {
            let _ = writeln!(world.err, "  {hint}");
        }
        let _ = world.out.flush();
        let _ = world.err.flush();
        self.code
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            f.write_str(&problem.text)?;
        }
        for hint in &self.hints {
            write!(f, "\n  {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        // `hivectl get | head` closes our output on purpose.
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::silent(0);
        }
        Self::new(format_args!("cannot write the output: {error}"))
    }
}

impl From<RequestError> for Failure {
    fn from(error: RequestError) -> Self {
        let hint = error.hint();
        let failure = match error.status() {
            Some(status) if status.reason.is_empty() => {
                Self::labelled("Error from server", &status.message)
            }
            Some(status) => Self::labelled(
                format!("Error from server ({})", status.reason),
                &status.message,
            ),
            None => Self::new(chain(&error)),
        };
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

impl From<KubeconfigError> for Failure {
    fn from(error: KubeconfigError) -> Self {
        let hint = error.hint();
        let failure = Self::new(chain(&error));
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

/// An error and its sources in one line, without repeating what a source's text already says.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
