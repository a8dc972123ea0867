//! `wasi:logging`: lines that have a level and a context.
//!
//! What is said goes where stdout and stderr go, counts as much, and is cut alike.

use wasmtime::{
    StoreContextMut,
    component::{ComponentType, Lift, Linker, Lower},
};

use crate::{guest::Guest, interfaces::LOGGING};

/// `wasi:logging/logging.level`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ComponentType, Lift, Lower)]
#[component(enum)]
#[repr(u8)]
pub enum LogLevel {
    #[component(name = "trace")]
    Trace,
    #[component(name = "debug")]
    Debug,
    #[component(name = "info")]
    Info,
    #[component(name = "warn")]
    Warn,
    #[component(name = "error")]
    Error,
    #[component(name = "critical")]
    Critical,
}

impl LogLevel {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
            Self::Critical => "critical",
        }
    }
}

/// Takes what a guest says. Must return at once.
pub(crate) trait Log {
    fn log(&self, level: LogLevel, context: &str, message: &str);
}

pub(super) fn link(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    for name in LOGGING {
        linker.instance(name)?.func_wrap(
            "log",
            |guest: StoreContextMut<'_, Guest>,
             (level, context, message): (LogLevel, String, String)| {
                guest.data().log().log(level, &context, &message);
                Ok(())
            },
        )?;
    }
    Ok(())
}
