//! `hivectl get`: show objects, as a table that the server lays out or in the form of `-o`.

mod tables;

use std::sync::Arc;

use clap::Args;
use hive_manifests::Resource;
use serde_json::Value;

use crate::arguments::FileArguments;
use crate::cluster::Cluster;
use crate::commands::lookup::{self, finish};
use crate::failure::Failure;
use crate::jsonpath::Template;
use crate::manifest;
use crate::object;
use crate::output::{self, Format};
use crate::selection::{self, Selection};
use crate::session::Session;
use crate::watch::{Following, Scope};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  hivectl get functions                          those of the namespace
  hivectl get fn,nodes -A -o wide                several resources, all namespaces, all columns
  hivectl get function/hello -o yaml             one object, whole
  hivectl get nodes -l arch=aarch64 -w           those with a label, and follow them
  hivectl get fn -o jsonpath='{.items[*].status.url}'
  hivectl get fn -o custom-columns=NAME:.metadata.name,REPLICAS:.spec.replicas
  hivectl get events --sort-by=.lastTimestamp")]
pub struct Get {
    /// RESOURCE[,RESOURCE…] [NAME…], RESOURCE/NAME…, or `all`
    #[arg(value_name = "RESOURCE")]
    words: Vec<String>,

    #[command(flatten)]
    files: FileArguments,

    /// json, yaml, name, wide, jsonpath=TEMPLATE or custom-columns=HEADER:PATH,…
    #[arg(
        short,
        long,
        value_name = "FORM",
        default_value = "",
        hide_default_value = true
    )]
    output: Format,

    /// After listing, follow the changes
    #[arg(short, long)]
    watch: bool,

    /// Follow the changes without listing first
    #[arg(long)]
    watch_only: bool,

    /// In all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,

    /// Only objects with these labels, such as app=web,tier!=cache
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<String>,

    /// Only objects with these fields, such as metadata.name=hello or spec.nodeName=pi
    #[arg(long, value_name = "SELECTOR")]
    field_selector: Option<String>,

    /// Add a column with all labels
    #[arg(long)]
    show_labels: bool,

    /// Leave the headers out
    #[arg(long)]
    no_headers: bool,

    /// Sort by this path of each object, such as .metadata.creationTimestamp
    #[arg(long, value_name = "PATH")]
    sort_by: Option<Template>,

    /// Show who owns which field too, with -o json or yaml
    #[arg(long)]
    show_managed_fields: bool,

    /// Say nothing about names that don't exist
    #[arg(long)]
    ignore_not_found: bool,
}

/// What one command gets: selections with the namespace to look in.
struct Request {
    cluster: Arc<Cluster>,
    parts: Vec<(Selection, Option<String>)>,
    get: Get,
}

pub async fn run(get: Get, session: &mut Session<'_>) -> Result<(), Failure> {
    let parts = selections(&get, session).await?;
    if get.all_namespaces && parts.iter().any(|(part, _)| !part.names.is_empty()) {
        return Err(Failure::usage(
            "an object cannot be named across all namespaces: leave out -A or the name",
        ));
    }
    if (get.watch || get.watch_only) && parts.len() != 1 {
        return Err(Failure::usage("you may only watch one resource at a time"));
    }
    let request = Request {
        cluster: session.cluster().await?,
        parts,
        get,
    };
    match request.get.output {
        Format::Table { wide } => tables::print(&request, wide, session).await,
        _ => print_objects(&request, session).await,
    }
}

/// The selections of the arguments or of the manifests, each with its namespace.
async fn selections(
    get: &Get,
    session: &mut Session<'_>,
) -> Result<Vec<(Selection, Option<String>)>, Failure> {
    let selections = if get.files.files.is_empty() {
        selection::parse(&get.words)?
    } else {
        if !get.words.is_empty() {
            return Err(Failure::usage("give resources or -f, not both"));
        }
        return manifest::named_objects(&get.files, session).await;
    };
    let mut parts = Vec::new();
    for selection in selections {
        let namespace = match get.all_namespaces {
            true => None,
            false => lookup::namespace_for(selection.resource, session).await?,
        };
        parts.push((selection, namespace));
    }
    Ok(parts)
}

impl Get {
    /// What is printed of an object. A path that is asked for by name is found.
    fn shown(&self, value: Value) -> Value {
        match self.output {
            Format::Json | Format::Yaml if !self.show_managed_fields => {
                output::without_managed_fields(value)
            }
            _ => value,
        }
    }
}

impl Request {
    fn scope(&self, selection: &Selection, namespace: Option<&str>) -> Result<Scope, Failure> {
        let mut scope = Scope {
            resource: selection.resource,
            namespace: namespace.map(str::to_owned),
            label_selector: self.get.selector.clone(),
            field_selector: self.get.field_selector.clone(),
        };
        match selection.names.as_slice() {
            [] => {}
            [name] if scope.field_selector.is_none() => {
                scope.field_selector = Some(format!("metadata.name={name}"));
            }
            _ => return Err(Failure::usage("you may only watch one object by name")),
        }
        Ok(scope)
    }

    /// The failure for a name that does not exist, unless it is to be ignored.
    async fn missing(
        &self,
        resource: Resource,
        namespace: Option<&str>,
        name: &str,
        error: crate::cluster::RequestError,
    ) -> Result<Option<Failure>, Failure> {
        if !error.is_not_found() {
            return Err(error.into());
        }
        if self.get.ignore_not_found {
            return Ok(None);
        }
        Ok(Some(
            lookup::not_found(&self.cluster, resource, namespace, name, error).await,
        ))
    }
}

/// Prints objects in a form that shows them whole.
async fn print_objects(request: &Request, session: &mut Session<'_>) -> Result<(), Failure> {
    let mut objects = Vec::new();
    let mut failures = Vec::new();
    let mut version = String::new();
    for (selection, namespace) in &request.parts {
        let namespace = namespace.as_deref();
        if selection.names.is_empty() || request.get.watch || request.get.watch_only {
            let scope = request.scope(selection, namespace)?;
            let mut list = request
                .cluster
                .list(selection.resource, namespace, &scope.query())
                .await?;
            version = object::resource_version(&list).to_owned();
            let items = list["items"].as_array_mut().map(std::mem::take);
            objects.extend(items.into_iter().flatten());
            continue;
        }
        for name in &selection.names {
            match request
                .cluster
                .get(selection.resource, namespace, name)
                .await
            {
                Ok(object) => objects.push(object),
                Err(error) => failures.extend(
                    request
                        .missing(selection.resource, namespace, name, error)
                        .await?,
                ),
            }
        }
    }
    if let Some(path) = &request.get.sort_by {
        objects.sort_by(|a, b| compare(path, a, b));
    }
    if request.get.watch || request.get.watch_only {
        return watch_objects(request, objects, version, session).await;
    }
    let single = matches!(request.parts.as_slice(), [(only, _)] if only.names.len() == 1);
    let value = match single {
        true => objects.pop(),
        false => Some(output::list(objects)),
    };
    if let Some(value) = value {
        let value = request.get.shown(value);
        let text = request.get.output.render(&value, !request.get.no_headers)?;
        session.world.text(text)?;
    }
    finish(failures)
}

/// Prints each object again whenever it changes.
async fn watch_objects(
    request: &Request,
    objects: Vec<Value>,
    version: String,
    session: &mut Session<'_>,
) -> Result<(), Failure> {
    let (selection, namespace) = &request.parts[0];
    let scope = request.scope(selection, namespace.as_deref())?;
    let mut headers = !request.get.no_headers;
    if !request.get.watch_only {
        for object in objects {
            let object = request.get.shown(object);
            print_one(&request.get.output, &object, headers, session)?;
            headers = false;
        }
    }
    let mut following = Following::new(&request.cluster, &scope, None, &version);
    loop {
        let (_, object) = following.next().await?;
        let object = request.get.shown(object);
        print_one(&request.get.output, &object, headers, session)?;
        headers = false;
    }
}

fn print_one(
    format: &Format,
    object: &Value,
    headers: bool,
    session: &mut Session<'_>,
) -> Result<(), Failure> {
    let text = format.render(object, headers)?;
    let separator = match format {
        Format::Yaml => "---\n",
        _ => "",
    };
    session.world.text(format_args!("{separator}{text}"))?;
    Ok(())
}

/// Compares two objects by what a path selects: numbers as numbers, everything else as text.
fn compare(path: &Template, a: &Value, b: &Value) -> std::cmp::Ordering {
    let (a, b) = (path.select(a), path.select(b));
    match (a.first(), b.first()) {
        (Some(a), Some(b)) => match (a.as_f64(), b.as_f64()) {
            (Some(a), Some(b)) => a.total_cmp(&b),
            _ => crate::jsonpath::scalar_text(a).cmp(&crate::jsonpath::scalar_text(b)),
        },
        (a, b) => a.is_some().cmp(&b.is_some()),
    }
}
