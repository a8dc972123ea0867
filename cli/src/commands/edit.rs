//! `hivectl edit`: an object opens in the editor; what was changed there is sent as a patch.
//!
//! The edited text is kept in a private temporary file until the server has taken it, so that a
//! refusal loses no work.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use clap::Args;
use hive_manifests::{Document, Resource, document, validate};
use serde_json::Value;

use crate::commands::lookup;
use crate::failure::{Failure, chain};
use crate::kubeconfig::create_private;
use crate::object;
use crate::output;
use crate::selection;
use crate::session::Session;
use crate::threeway;

const HEADER: &str =
    "# Lines that begin with # are ignored. Saving without a change changes nothing.\n#\n";

#[derive(Debug, Args)]
#[command(after_help = "The editor is $HIVE_EDITOR, $VISUAL, $EDITOR, or vi.

Examples:
  hivectl edit function/hello
  EDITOR='code --wait' hivectl edit configmap settings")]
pub struct Edit {
    /// RESOURCE NAME, or RESOURCE/NAME
    #[arg(value_name = "RESOURCE", required = true)]
    words: Vec<String>,
}

pub async fn run(edit: Edit, session: &mut Session<'_>) -> Result<(), Failure> {
    let (resource, name) = selection::single(&edit.words, Resource::Function)?;
    let namespace = lookup::namespace_for(resource, session).await?;
    let cluster = session.cluster().await?;
    let live = lookup::get(&cluster, resource, namespace.as_deref(), &name).await?;
    let original = editable(&live);
    let file = std::env::temp_dir().join(format!(
        "hivectl-edit-{}-{name}-{}.yaml",
        resource.singular(),
        std::process::id()
    ));
    let text = format!("{HEADER}{}", output::yaml(&original)?);
    create_private(&file)
        .and_then(|mut open| open.write_all(text.as_bytes()))
        .map_err(|error| Failure::new(format_args!("cannot write {}: {error}", file.display())))?;
    open_editor(&file, session)?;

    // From here on a failure keeps the file, which holds somebody's work.
    let edited = read_back(&file, resource, &original).map_err(|failure| kept(failure, &file))?;
    let mut patch = threeway::merge_patch(Some(&original), &edited, &original);
    if threeway::is_empty(&patch) {
        remove(&file);
        session.world.note("Edit cancelled, no changes made.")?;
        return Ok(());
    }
    patch["metadata"]["resourceVersion"] = object::resource_version(&live).into();
    cluster
        .merge_patch(resource, namespace.as_deref(), &name, &patch, false)
        .await
        .map_err(|error| {
            let conflict = error.is_conflict();
            let failure = kept(Failure::from(error), &file);
            match conflict {
                true => failure.hint("somebody changed it meanwhile: run edit again"),
                false => failure,
            }
        })?;
    remove(&file);
    session.world.line(format_args!(
        "{} edited",
        object::reference(resource, &name)
    ))?;
    Ok(())
}

/// The object without its status and the server's bookkeeping, which can't be edited.
fn editable(live: &Value) -> Value {
    let mut object = live.clone();
    if let Some(fields) = object.as_object_mut() {
        fields.remove("status");
    }
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.remove("managedFields");
    }
    object
}

fn open_editor(file: &Path, session: &Session<'_>) -> Result<(), Failure> {
    let environment = &session.world.environment;
    let editor = ["HIVE_EDITOR", "VISUAL", "EDITOR"]
        .into_iter()
        .find_map(|name| environment.text(name))
        .unwrap_or_else(|| "vi".into());
    // Editors are set with arguments: `code --wait`.
    let mut words = editor.split_whitespace();
    let program = words.next().unwrap_or("vi");
    let status = Command::new(program)
        .args(words)
        .arg(file)
        .status()
        .map_err(|error| {
            remove(file);
            Failure::new(format_args!("cannot start the editor {program:?}: {error}"))
                .hint("name yours in $EDITOR")
        })?;
    match status.success() {
        true => Ok(()),
        false => {
            remove(file);
            Err(Failure::new(format_args!(
                "the editor {program:?} ended with {status}; nothing was changed"
            )))
        }
    }
}

fn read_back(file: &Path, resource: Resource, original: &Value) -> Result<Value, Failure> {
    let source = file.display().to_string();
    let open = fs::File::open(file)
        .map_err(|error| Failure::new(format_args!("cannot read {source}: {error}")))?;
    let mut documents =
        document::read(open, &source).map_err(|error| Failure::new(chain(&error)))?;
    let (Some(edited), true) = (documents.pop(), documents.is_empty()) else {
        return Err(Failure::new("the edited file must hold exactly one object"));
    };
    check(&edited, resource, original)?;
    Ok(edited.value)
}

fn check(edited: &Document, resource: Resource, original: &Value) -> Result<(), Failure> {
    for field in ["apiVersion", "kind"] {
        if edited.value[field] != original[field] {
            return Err(Failure::new(format_args!("{field} cannot be edited")));
        }
    }
    for field in ["name", "namespace"] {
        if edited.value["metadata"][field] != original["metadata"][field] {
            return Err(Failure::new(format_args!(
                "metadata.{field} cannot be edited"
            )));
        }
    }
    let failures: Vec<Failure> = validate(resource, &edited.value)
        .iter()
        .map(|error| Failure::new(edited.locate(error)))
        .collect();
    lookup::finish(failures)
}

fn kept(failure: Failure, file: &Path) -> Failure {
    failure.hint(format_args!("your edit is kept in {}", file.display()))
}

fn remove(file: &Path) {
    // Left behind it would only take room in the temporary directory.
    let _ = fs::remove_file(file);
}
