//! Rules about a Function's schedules that their schema cannot express.

use std::collections::BTreeSet;

use serde_json::Value;

use super::findings::{Findings, quoted};
use super::http::is_path;
use super::names;
use crate::FieldPath;
use crate::schedule::{MAX_SCHEDULES, Times, default_time_zone};

pub(super) fn check(schedules: &[Value], path: &FieldPath, findings: &mut Findings) {
    if schedules.len() > MAX_SCHEDULES {
        let message = format!(
            "{} schedules; a function has at most {MAX_SCHEDULES}",
            schedules.len()
        );
        findings.invalid(path, message);
    }
    let mut seen = BTreeSet::new();
    for (index, schedule) in schedules.iter().enumerate() {
        let text = |name: &str| schedule.get(name).and_then(Value::as_str);
        let path = path.index(index);
        if let Some(name) = text("name") {
            let path = path.field("name");
            if let Err(why) = names::dns_label(name) {
                findings.invalid(&path, format!("{} is not a name: {why}", quoted(name)));
            }
            if !seen.insert(name) {
                findings.duplicate(&path, format!("{} is there twice", quoted(name)));
            }
        }
        if let Some(expression) = text("schedule") {
            let zone = text("timeZone").map_or_else(default_time_zone, str::to_owned);
            if let Err(error) = Times::parse(expression, &zone) {
                let path = path.field(error.field());
                let message = match error.field() {
                    "schedule" => format!("{}: {error}", quoted(expression)),
                    _ => error.to_string(),
                };
                findings.invalid(&path, message);
            }
        }
        if let Some(target) = text("path")
            && !(target.starts_with('/')
                && is_path(target.split_once('?').map_or(target, |(path, _)| path)))
        {
            let message = format!(
                "{} is not the path of a request, such as \"/nightly?full=1\"",
                quoted(target)
            );
            findings.invalid(&path.field("path"), message);
        }
    }
}
