//! The simulated agents, all in this process.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use futures::{StreamExt, TryStreamExt};
use hive_agent::sim::{SimAgent, SimConfig};
use hive_identity::JoinToken;
use hive_proto::link::{LinkSettings, SharedSocket, Traffic};

/// Agents to a socket: each has a link to every controller on it.
const TO_A_SOCKET: usize = 250;

/// Agents that join at once. Controllers let in so many newcomers at a time; who comes too early waits
/// for seconds, which would be measured instead of them.
const JOINING: usize = 48;

const POLL: Duration = Duration::from_millis(20);

#[derive(Default)]
pub struct Fleet {
    agents: Vec<SimAgent>,
    sockets: Vec<SharedSocket>,
}

impl Fleet {
    /// Returns when all have joined; they may not be linked yet.
    pub async fn join(count: usize, token: &str, links: &[u16]) -> anyhow::Result<Self> {
        let token: JoinToken = token.parse()?;
        let first = links.first().context("no controllers")?;
        let toward = ([127, 0, 0, 1], *first).into();
        let sockets = (0..count.div_ceil(TO_A_SOCKET))
            .map(|_| SharedSocket::toward(toward))
            .collect::<Result<Vec<_>, _>>()?;
        let controllers: Arc<[String]> = links
            .iter()
            .map(|port| format!("127.0.0.1:{port}"))
            .collect();
        let joining = futures::stream::iter(0..count).map(|number| {
            let mut controllers = controllers.to_vec();
            // As people would: not all name the same first.
            controllers.rotate_left(number % links.len());
            SimAgent::join(SimConfig {
                name: format!("sim-{number:05}"),
                controllers,
                token: token.clone(),
                links: LinkSettings {
                    socket: Some(sockets[number / TO_A_SOCKET].clone()),
                    // Nobody invokes anything here, and each stream that may come takes 70 bytes.
                    max_streams: 8,
                    ..LinkSettings::default()
                },
                artifacts: None,
            })
        });
        let agents = joining.buffer_unordered(JOINING).try_collect().await?;
        Ok(Self { agents, sockets })
    }

    /// Of all agents, since they began.
    pub fn traffic(&self) -> Traffic {
        self.sockets.iter().map(SharedSocket::traffic).sum()
    }

    /// Sessions that are held with the controller that listens on a port.
    pub fn held_with(&self, port: u16) -> usize {
        let endpoint = format!("127.0.0.1:{port}");
        let agents = self.agents.iter();
        agents
            .filter(|agent| agent.held_with().as_ref() == Some(&endpoint))
            .count()
    }

    /// Waits until every agent holds a session, and none with the controller `but`.
    pub async fn all_held(&self, but: Option<u16>, patience: Duration) -> anyhow::Result<()> {
        let but = but.map(|port| format!("127.0.0.1:{port}"));
        let deadline = Instant::now() + patience;
        loop {
            let is_held = |agent: &&SimAgent| {
                let held = agent.held_with();
                held.is_some() && held != but
            };
            let held = self.agents.iter().filter(is_held).count();
            if held == self.agents.len() {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("only {held} of {} agents hold a session", self.agents.len());
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits for as many links; when the last of them was there.
    pub async fn linked(&self, count: usize, patience: Duration) -> anyhow::Result<Instant> {
        let deadline = Instant::now() + patience;
        loop {
            let linked: usize = self.agents.iter().map(SimAgent::links).sum();
            let now = Instant::now();
            if linked >= count {
                return Ok(now);
            }
            if now > deadline {
                bail!("only {linked} of {count} links are there");
            }
            tokio::time::sleep(POLL).await;
        }
    }
}
