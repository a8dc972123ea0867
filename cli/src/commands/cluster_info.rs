//! `hivectl cluster-info`: where the controllers are, and whether each is ready.

use http::StatusCode;

use crate::cluster::Call;
use crate::failure::Failure;
use crate::session::Session;
use crate::table;

pub async fn run(session: &mut Session<'_>) -> Result<(), Failure> {
    let cluster = session.cluster().await?;
    let mut rows = Vec::new();
    let mut any_ready = false;
    for index in 0..cluster.addresses().count() {
        let single = cluster.only(index);
        let address = single.addresses().next().unwrap_or_default().to_owned();
        let state = match single.raw(&Call::get("/readyz")).await {
            Ok(response) if response.status() == StatusCode::OK => {
                any_ready = true;
                "ready".to_owned()
            }
            Ok(response) => {
                let status = response.status();
                let body = response.into_body().collect_bytes().await;
                let text = body
                    .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
                    .unwrap_or_default();
                match text.lines().next() {
                    Some(line) => format!("not ready: {}", table::harmless(line)),
                    None => format!("not ready: {status}"),
                }
            }
            Err(error) => format!("unreachable: {}", error.reason()),
        };
        rows.push(vec![address, state]);
    }
    session
        .world
        .text(table::simple(&["CONTROLLER", "STATE"], rows, true))?;
    match any_ready {
        true => Ok(()),
        false => Err(Failure::new("no controller is ready")
            .hint("is the swarm running? `hive up` starts one here")),
    }
}
