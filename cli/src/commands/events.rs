//! `hivectl events`: what happened, oldest first, and what happens.

use clap::Args;
use hive_manifests::Resource;
use jiff::Timestamp;
use serde_json::Value;

use crate::age;
use crate::cluster::{Cluster, RequestError};
use crate::failure::Failure;
use crate::object;
use crate::selection;
use crate::session::Session;
use crate::suggest;
use crate::table::{Columns, cell_text, harmless};
use crate::watch::{Following, Scope};

const HEADERS: [&str; 5] = ["LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"];
/// The types that events have.
const TYPES: [&str; 2] = ["Normal", "Warning"];

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  hivectl events                           of the namespace, oldest first
  hivectl events -A --types=Warning -w     all warnings, and those to come
  hivectl events --for function/hello")]
pub struct Events {
    /// In all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,

    /// Only those about this object: RESOURCE/NAME
    #[arg(long = "for", value_name = "OBJECT")]
    about: Option<String>,

    /// After listing, go on printing what happens
    #[arg(short, long)]
    watch: bool,

    /// Only these types: Normal, Warning
    #[arg(long, value_delimiter = ',', value_name = "TYPES", value_parser = event_type)]
    types: Vec<String>,

    /// Leave the headers out
    #[arg(long)]
    no_headers: bool,
}

fn event_type(text: &str) -> Result<String, String> {
    TYPES
        .into_iter()
        .find(|known| known.eq_ignore_ascii_case(text))
        .map(str::to_owned)
        .ok_or_else(|| {
            format!(
                "events are Normal or Warning{}",
                suggest::did_you_mean(text, TYPES)
            )
        })
}

pub async fn run(events: Events, session: &mut Session<'_>) -> Result<(), Failure> {
    let cluster = session.cluster().await?;
    let mut namespace = match events.all_namespaces {
        true => None,
        false => Some(session.namespace().await?),
    };
    let mut fields = Vec::new();
    if let Some(about) = &events.about {
        let (resource, name) = selection::single(std::slice::from_ref(about), Resource::Function)?;
        // Events about what has no namespace are kept in a namespace all the same: look in all.
        if !resource.namespaced() {
            namespace = None;
        }
        fields.push(format!("involvedObject.kind={}", resource.kind()));
        fields.push(format!("involvedObject.name={name}"));
    }
    let scope = Scope {
        resource: Resource::Event,
        namespace,
        label_selector: None,
        field_selector: (!fields.is_empty()).then(|| fields.join(",")),
    };
    let wanted = |event: &Value| {
        events.types.is_empty() || events.types.iter().any(|kind| event["type"] == **kind)
    };
    let list = cluster
        .list(scope.resource, scope.namespace.as_deref(), &scope.query())
        .await?;
    let mut found: Vec<&Value> = list["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|event| wanted(event))
        .collect();
    found.sort_by_key(|event| last_seen(event));
    if found.is_empty() && !events.watch {
        session.world.note(match &scope.namespace {
            Some(namespace) => format!("No events found in {namespace} namespace."),
            None => "No events found.".into(),
        })?;
        return Ok(());
    }
    let now = Timestamp::now();
    let mut lines: Vec<Vec<String>> = Vec::new();
    if !events.no_headers {
        let headers = HEADERS.map(str::to_owned).into_iter();
        lines.push(
            namespace_column(&scope, "NAMESPACE")
                .chain(headers)
                .collect(),
        );
    }
    lines.extend(found.into_iter().map(|event| line(&scope, event, now)));
    let mut columns = Columns::default();
    session.world.text(columns.lay_out(&lines))?;
    if !events.watch {
        return Ok(());
    }
    let mut following = Following::new(&cluster, &scope, None, object::resource_version(&list));
    loop {
        let (change, event) = following.next().await?;
        // Events expire; that is nothing that happened.
        if change != crate::watch::Change::Deleted && wanted(&event) {
            let lines = [line(&scope, &event, Timestamp::now())];
            session.world.text(columns.lay_out(&lines))?;
        }
    }
}

fn namespace_column(scope: &Scope, text: &str) -> impl Iterator<Item = String> {
    scope
        .namespace
        .is_none()
        .then(|| text.to_owned())
        .into_iter()
}

fn line(scope: &Scope, event: &Value, now: Timestamp) -> Vec<String> {
    let namespace = object::namespace(event).unwrap_or_default();
    namespace_column(scope, namespace)
        .chain(cells(event, now))
        .collect()
}

fn cells(event: &Value, now: Timestamp) -> [String; 5] {
    let about = &event["involvedObject"];
    [
        age::since(&last_seen(event), now).unwrap_or_else(|| "<unknown>".into()),
        cell_text(&event["type"]),
        cell_text(&event["reason"]),
        harmless(&format!(
            "{}/{}",
            about["kind"].as_str().unwrap_or_default().to_lowercase(),
            about["name"].as_str().unwrap_or_default()
        )),
        cell_text(&event["message"]),
    ]
}

/// When an event happened last: RFC 3339, which sorts as text.
fn last_seen(event: &Value) -> String {
    [
        &event["lastTimestamp"],
        &event["eventTime"],
        &event["firstTimestamp"],
        &event["metadata"]["creationTimestamp"],
    ]
    .into_iter()
    .find_map(Value::as_str)
    .unwrap_or_default()
    .to_owned()
}

/// Whether an event is about this object, and not about one that had its name before. Who does not say leaves it open.
fn is_of(event: &Value, uid: &str) -> bool {
    let about = event["involvedObject"]["uid"].as_str().unwrap_or_default();
    about.is_empty() || uid.is_empty() || about == uid
}

/// The newest events about one object as indented lines, for `describe`.
pub async fn about(
    cluster: &Cluster,
    resource: Resource,
    subject: &Value,
) -> Result<String, RequestError> {
    /// More than fit on a screen hide the rest of the description.
    const SHOWN: usize = 20;
    let selector = format!(
        "involvedObject.kind={},involvedObject.name={}",
        resource.kind(),
        object::name(subject)
    );
    let list = cluster
        .list(
            Resource::Event,
            object::namespace(subject),
            &[("fieldSelector", &selector)],
        )
        .await?;
    let all = list["items"].as_array().into_iter().flatten();
    let uid = object::uid(subject);
    let mut found: Vec<&Value> = all.filter(|event| is_of(event, uid)).collect();
    found.sort_by_key(|event| last_seen(event));
    let now = Timestamp::now();
    let lines: Vec<Vec<String>> = found
        .into_iter()
        .rev()
        .take(SHOWN)
        .map(|event| {
            let [age, kind, reason, _, message] = cells(event, now);
            vec![format!("  {kind}"), reason, age, message]
        })
        .rev()
        .collect();
    if lines.is_empty() {
        return Ok("Events:  <none>\n".into());
    }
    let headers = ["  Type", "Reason", "Age", "Message"]
        .map(str::to_owned)
        .to_vec();
    let mut all = vec![headers];
    all.extend(lines);
    Ok(format!("Events:\n{}", Columns::default().lay_out(&all)))
}
