//! `hivectl usage`: what functions and namespaces used, each thing counted once.

use clap::{Args, Subcommand};
use hive_manifests::GROUP;

use crate::cluster::{AS_TABLE, Call, path};
use crate::failure::Failure;
use crate::output::Format;
use crate::session::Session;
use crate::table::{self, Columns, TableStyle};

#[derive(Debug, Args)]
#[command(
    after_help = "Nodes write down what was used each minute, and tell it until the controllers hold it: it \
is counted once whatever fails. REQUESTS are those that ran. GB-S is memory times time; 1 GB is 1,024 MiB.

Examples:
  hivectl usage functions -A
  hivectl usage namespaces
  hivectl usage function hello -o jsonpath={.cpuMilliseconds}"
)]
pub struct Usage {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Of the functions that there are
    #[command(visible_aliases = ["function", "fn"])]
    Functions {
        #[command(flatten)]
        common: Common,

        /// In all namespaces
        #[arg(short = 'A', long)]
        all_namespaces: bool,
    },
    /// Of namespaces, also by functions that were deleted
    #[command(visible_aliases = ["namespace", "ns"])]
    Namespaces {
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Debug, Args)]
struct Common {
    /// Only this one
    name: Option<String>,

    /// Only those with these labels
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<String>,

    /// json, yaml, name, wide, jsonpath=TEMPLATE or custom-columns=HEADER:PATH,…
    #[arg(
        short,
        long,
        value_name = "FORM",
        default_value = "",
        hide_default_value = true
    )]
    output: Format,

    /// Leave the headers out
    #[arg(long)]
    no_headers: bool,
}

pub async fn run(usage: Usage, session: &mut Session<'_>) -> Result<(), Failure> {
    let base = format!("/apis/metering.{GROUP}/v1");
    match usage.command {
        Command::Functions {
            common,
            all_namespaces: true,
        } if common.name.is_none() => {
            show(&format!("{base}/functions"), true, common, session).await
        }
        Command::Functions { common, .. } => {
            let namespace = session.namespace().await?;
            let path = format!("{base}/namespaces/{namespace}/functions");
            show(&path, false, common, session).await
        }
        Command::Namespaces { common } => {
            show(&format!("{base}/namespaces"), false, common, session).await
        }
    }
}

async fn show(
    collection: &str,
    with_namespace: bool,
    common: Common,
    session: &mut Session<'_>,
) -> Result<(), Failure> {
    let mut path = collection.to_owned();
    if let Some(name) = &common.name {
        path.push('/');
        path.extend(url::form_urlencoded::byte_serialize(name.as_bytes()));
    }
    let selector = common.selector.as_deref();
    let path = path::with_query(&path, selector.map(|selector| ("labelSelector", selector)));
    let cluster = session.cluster().await?;
    let Format::Table { wide } = common.output else {
        let found = cluster.json(&Call::get(&path)).await?;
        let text = common.output.render(&found, !common.no_headers)?;
        session.world.text(text)?;
        return Ok(());
    };
    let table = cluster.json(&Call::get(&path).accept(AS_TABLE)).await?;
    let style = TableStyle {
        wide,
        namespace: with_namespace,
        ..TableStyle::default()
    };
    let mut lines = table::rows(&table, &table, style);
    if lines.is_empty() {
        session.world.note("No usage found.")?;
        return Ok(());
    }
    if !common.no_headers {
        lines.insert(0, table::headers(&table, style));
    }
    session.world.text(Columns::default().lay_out(&lines))?;
    Ok(())
}
