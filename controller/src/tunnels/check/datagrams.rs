//! Asks a target of UDP how it is. Where nothing is known that it answers, silence is no evidence: it is well unless its
//! system says that nobody listens.

use std::time::Duration;

use hive_manifests::tunnel::TunnelTarget;
use hive_proto::flow::{FlowEnd, FlowReader, FlowWriter};
use hive_proto::tunnel::{REFUSED, UNREACHABLE};
use tokio::time::{Instant, timeout};

use super::Unwell;
use crate::gateway::bounds;
use crate::tunnels::Tunnels;
use crate::tunnels::health::Evidence;
use crate::tunnels::open::OpenError;
use crate::tunnels::table::Tunnel;

/// Datagrams get lost: so often a target is asked in the time that it has for an answer.
const TRIES: u32 = 3;

/// What was found, and by what.
pub(super) async fn reach(
    tunnels: &Tunnels,
    tunnel: &Tunnel,
    target: &TunnelTarget,
) -> (Evidence, Result<Duration, Unwell>) {
    let question = tunnel.spec.health_check.datagram();
    // What refused datagrams is asked with an empty one whether it still does: nobody listened who could mind.
    let by = match question.is_some() || refuses(tunnels, tunnel, target) {
        true => Evidence::Request,
        false => Evidence::Connection,
    };
    let within = tunnel.spec.health_check.timeout.0;
    let began = Instant::now();
    let opened = tunnels.opener.open_flow(&tunnel.key, target, within).await;
    let (mut reader, mut writer) = match opened {
        Ok(flow) => flow,
        Err(error) => return (by, Err(error.into())),
    };
    let opened_after = began.elapsed();
    let answered = match by {
        Evidence::Connection => Ok(opened_after),
        Evidence::Request => {
            let asked = question.as_deref().unwrap_or_default();
            match ask(&mut reader, &mut writer, asked, within).await {
                Ok(true) => Ok(began.elapsed()),
                Ok(false) if question.is_none() => Ok(opened_after),
                Ok(false) => Err(Unwell::Late(within)),
                Err(end) => Err(unwell(end)),
            }
        }
    };
    // Whoever does not hear of it notices that the flow is gone.
    let _ = timeout(within, writer.end()).await;
    (by, answered)
}

/// Whether its system said so the last time.
fn refuses(tunnels: &Tunnels, tunnel: &Tunnel, target: &TunnelTarget) -> bool {
    let known = tunnels.health.snapshot(&tunnel.key);
    let known = known.into_iter().find(|it| it.target == *target);
    known.is_some_and(|it| [REFUSED, UNREACHABLE].contains(&&*it.reason))
}

/// Whether anything was answered in time.
async fn ask(
    reader: &mut FlowReader,
    writer: &mut FlowWriter,
    question: &[u8],
    within: Duration,
) -> Result<bool, FlowEnd> {
    for _ in 0..TRIES {
        let exchange = async {
            writer.send(question).await.map_err(FlowEnd::Broken)?;
            reader.receive().await
        };
        if let Ok(answered) = timeout(within / TRIES, exchange).await {
            return answered.map(|_| true);
        }
    }
    Ok(false)
}

fn unwell(end: FlowEnd) -> Unwell {
    match end {
        FlowEnd::Refused(why) => {
            let why = bounds::refusal(why);
            Unwell::Unreached(OpenError::Refused {
                reason: why.reason,
                message: why.message,
            })
        }
        end => Unwell::Flow(end),
    }
}
