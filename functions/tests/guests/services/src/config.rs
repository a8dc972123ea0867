//! Settings, by both versions of `wasi:config` and as Spin's variables.

use crate::{
    Outcome,
    bindings::{
        fermyon::spin::variables,
        wasi::{config0_2_0_draft_2024_09_27::store as draft, config0_2_0_rc_1::store as rc},
    },
};

pub fn get(name: &str) -> Outcome {
    told(rc::get(name).map_err(|error| error.to_string())?)
}

pub fn get_draft(name: &str) -> Outcome {
    told(draft::get(name).map_err(|error| error.to_string())?)
}

pub fn all() -> Outcome {
    Ok(lines(rc::get_all().map_err(|error| error.to_string())?))
}

pub fn all_draft() -> Outcome {
    Ok(lines(draft::get_all().map_err(|error| error.to_string())?))
}

pub fn variable(name: &str) -> Outcome {
    variables::get(name).map_err(|error| format!("{error:?}"))
}

fn told(value: Option<String>) -> Outcome {
    Ok(value.unwrap_or_else(|| "nothing".to_owned()))
}

fn lines(all: Vec<(String, String)>) -> String {
    let lines: Vec<_> = all
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    lines.join("\n")
}
