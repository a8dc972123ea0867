//! What all limits cost together: the same component behind the same server, once as a function, once
//! with wasmtime alone.

use hive_functions::{Runtime, RuntimeOptions};

use super::bare::Bare;
use super::{ASYNC, Aims, compiled, front, loaded};
use crate::load::{Target, print_rounds, rounds};
use crate::swarm::COMPONENT;

/// Of requests per second, in percent.
const AIM_PERCENT: f64 = 10.0;

pub async fn run(aims: &mut Aims) -> anyhow::Result<()> {
    let runtime = Runtime::start(RuntimeOptions::default())?;
    let directory = tempfile::tempdir()?;
    for (name, component) in [
        ("hello (Rust, WASI 0.2)", COMPONENT),
        ("Rust, WASI 0.3", ASYNC),
    ] {
        let (artifact, _) = compiled(component, directory.path())?;
        let function = loaded(&runtime, &artifact)?;
        let bare = Bare::load(component)?;
        let with = front::serve(move |request| {
            let function = function.clone();
            async move { Ok(function.handle(request).await?) }
        });
        let without = front::serve(move |request| {
            let bare = bare.clone();
            async move { bare.handle(request).await }
        });
        let target = |address| Target {
            address,
            host: "bench.local".into(),
            pid: std::process::id(),
        };
        let contestants = [
            ("with all limits".to_owned(), target(with.await?)),
            ("wasmtime alone".to_owned(), target(without.await?)),
        ];
        println!("\nlimits: {name}, server and load in one process");
        let found = rounds(&contestants).await?;
        print_rounds(&contestants, &found);
        let lost = 100.0 * (1.0 - found[0].requests_per_second / found[1].requests_per_second);
        aims.at_most(
            &format!("cost of all limits, {name}"),
            lost,
            AIM_PERCENT,
            " %",
        );
    }
    Ok(())
}
