//! `hivectl api-resources` and `hivectl api-versions`: what the server serves, by discovery.

use clap::{Args, ValueEnum};
use serde_json::Value;

use crate::cluster::{Call, Cluster};
use crate::failure::Failure;
use crate::session::Session;
use crate::table;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  hivectl api-resources
  hivectl api-resources -o wide
  hivectl api-resources --namespaced=false")]
pub struct ApiResources {
    /// Only resources that live in namespaces, or only those that don't
    #[arg(long, value_name = "BOOL")]
    namespaced: Option<bool>,

    /// wide: also verbs and categories; name: only names
    #[arg(short, long, value_enum, value_name = "FORM")]
    output: Option<Form>,

    /// Leave the headers out
    #[arg(long)]
    no_headers: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    Wide,
    Name,
}

pub async fn resources(args: ApiResources, session: &mut Session<'_>) -> Result<(), Failure> {
    let cluster = session.cluster().await?;
    let mut rows = Vec::new();
    for group_version in group_versions(&cluster).await? {
        let path = match group_version.contains('/') {
            true => format!("/apis/{group_version}"),
            false => format!("/api/{group_version}"),
        };
        let list = cluster.json(&Call::get(&path)).await?;
        for resource in list["resources"].as_array().into_iter().flatten() {
            let name = text(&resource["name"]);
            let namespaced = resource["namespaced"] == true;
            // Subresources are parts of their resource.
            if name.contains('/') || args.namespaced.is_some_and(|wanted| wanted != namespaced) {
                continue;
            }
            rows.push(match args.output {
                Some(Form::Name) => match group_version.split_once('/') {
                    Some((group, _)) => vec![format!("{name}.{group}")],
                    None => vec![name],
                },
                form => {
                    let mut row = vec![
                        name,
                        joined(&resource["shortNames"]),
                        group_version.clone(),
                        namespaced.to_string(),
                        text(&resource["kind"]),
                    ];
                    if form == Some(Form::Wide) {
                        row.push(joined(&resource["verbs"]));
                        row.push(joined(&resource["categories"]));
                    }
                    row
                }
            });
        }
    }
    let mut headers = vec!["NAME", "SHORTNAMES", "APIVERSION", "NAMESPACED", "KIND"];
    if args.output == Some(Form::Wide) {
        headers.extend(["VERBS", "CATEGORIES"]);
    }
    let with_headers = !args.no_headers && args.output != Some(Form::Name);
    session
        .world
        .text(table::simple(&headers, rows, with_headers))?;
    Ok(())
}

pub async fn versions(session: &mut Session<'_>) -> Result<(), Failure> {
    let cluster = session.cluster().await?;
    let mut versions = group_versions(&cluster).await?;
    versions.sort();
    for version in versions {
        session.world.line(version)?;
    }
    Ok(())
}

/// `v1`, `hive.dev/v1`, …
async fn group_versions(cluster: &Cluster) -> Result<Vec<String>, Failure> {
    let core = cluster.json(&Call::get("/api")).await?;
    let groups = cluster.json(&Call::get("/apis")).await?;
    let named = groups["groups"]
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|group| group["versions"].as_array().into_iter().flatten())
        .map(|version| text(&version["groupVersion"]));
    Ok(core["versions"]
        .as_array()
        .into_iter()
        .flatten()
        .map(text)
        .chain(named)
        .collect())
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn joined(values: &Value) -> String {
    let values: Vec<&str> = values
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    values.join(",")
}
