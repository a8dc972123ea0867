//! What a command can see and touch of the outside besides the swarm: streams and environment.
//!
//! Commands print and read through it, so that a test runs a command with other streams and
//! another environment in the same process. It opens no files and no sockets.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::{self, IsTerminal, Read, Write};
use std::path::PathBuf;

pub struct World {
    pub input: Box<dyn Read + Send>,
    pub out: Box<dyn Write + Send>,
    pub err: Box<dyn Write + Send>,
    /// Whether colour may be written to `out`.
    pub out_colour: bool,
    /// Whether colour may be written to `err`.
    pub err_colour: bool,
    /// Whether `err` is a terminal: progress bars are drawn there, and only there.
    pub interactive: bool,
    pub environment: Environment,
}

impl World {
    pub fn of_process() -> Self {
        let environment = Environment::of_process();
        // https://no-color.org: any non-empty value switches colour off.
        let colour = environment.text("NO_COLOR").is_none()
            && environment.text("TERM").as_deref() != Some("dumb");
        Self {
            out_colour: colour && io::stdout().is_terminal(),
            err_colour: colour && io::stderr().is_terminal(),
            interactive: io::stderr().is_terminal(),
            input: Box::new(io::stdin()),
            out: Box::new(io::BufWriter::new(io::stdout())),
            err: Box::new(io::stderr()),
            environment,
        }
    }

    /// Writes one line to standard output.
    pub fn line(&mut self, line: impl fmt::Display) -> io::Result<()> {
        writeln!(self.out, "{line}")?;
        self.out.flush()
    }

    /// Writes text to standard output as it is.
    pub fn text(&mut self, text: impl fmt::Display) -> io::Result<()> {
        write!(self.out, "{text}")?;
        self.out.flush()
    }

    /// Tells the person something that is not the result: it goes to standard error.
    pub fn note(&mut self, line: impl fmt::Display) -> io::Result<()> {
        writeln!(self.err, "{line}")?;
        self.err.flush()
    }

    pub fn warn(&mut self, line: impl fmt::Display) -> io::Result<()> {
        let label = if self.err_colour {
            "\x1b[33mWarning:\x1b[0m"
        } else {
            "Warning:"
        };
        self.note(format_args!("{label} {line}"))
    }
}

/// The environment variables of the process, or those a test chose.
#[derive(Clone, Debug, Default)]
pub struct Environment(BTreeMap<OsString, OsString>);

impl Environment {
    pub fn of_process() -> Self {
        Self(std::env::vars_os().collect())
    }

    pub fn with(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.0.insert(name.into(), value.into());
        self
    }

    /// The value of a variable that is set and not empty.
    pub fn get(&self, name: &str) -> Option<&OsStr> {
        self.0
            .get(OsStr::new(name))
            .map(OsString::as_os_str)
            .filter(|value| !value.is_empty())
    }

    pub fn text(&self, name: &str) -> Option<String> {
        Some(self.get(name)?.to_string_lossy().into_owned())
    }

    pub fn home(&self) -> Option<PathBuf> {
        self.get("HOME")
            .or_else(|| self.get("USERPROFILE"))
            .map(PathBuf::from)
    }

    /// Where programs keep what they can get again: `$XDG_CACHE_HOME`, else `~/.cache`.
    pub fn cache_home(&self) -> Option<PathBuf> {
        self.get("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .or_else(|| Some(self.home()?.join(".cache")))
    }

    /// Where programs keep a person's data: `$XDG_DATA_HOME`, else `~/.local/share`.
    pub fn data_home(&self) -> Option<PathBuf> {
        self.get("XDG_DATA_HOME")
            .map(PathBuf::from)
            .or_else(|| Some(self.home()?.join(".local/share")))
    }
}
