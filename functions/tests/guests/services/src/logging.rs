//! Lines with a level and a context.

use crate::{
    Outcome,
    bindings::wasi::{logging::logging as bare, logging0_1_0_draft::logging as draft},
    query::{BadParameter, Query},
};

/// Says the message at every level, from the lowest.
pub fn say(query: &Query) -> Result<Outcome, BadParameter> {
    let (context, message) = said(query)?;
    for level in [
        draft::Level::Trace,
        draft::Level::Debug,
        draft::Level::Info,
        draft::Level::Warn,
        draft::Level::Error,
        draft::Level::Critical,
    ] {
        draft::log(level, &context, &message);
    }
    Ok(Ok("said".to_owned()))
}

pub fn say_bare(query: &Query) -> Result<Outcome, BadParameter> {
    let (context, message) = said(query)?;
    bare::log(bare::Level::Info, &context, &message);
    Ok(Ok("said".to_owned()))
}

fn said(query: &Query) -> Result<(String, String), BadParameter> {
    let context = query.text("context").unwrap_or_default();
    Ok((context, query.required("message")?))
}
