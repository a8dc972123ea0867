//! The plan of a local swarm: its members, their ports and directories. Pure.

use std::path::{Path, PathBuf};

/// Ports from the base on. Each kind has room for nine members, so swarms whose bases are 100
/// apart never meet.
const API_OFFSET: u16 = 10;
const LINK_OFFSET: u16 = 20;
const TLS_OFFSET: u16 = 30;
const AGENT_OFFSET: u16 = 40;

/// Of controllers: Raft gains nothing from more, and the ports above leave room for nine.
pub const MAX_CONTROLLERS: u8 = 9;
pub const MAX_AGENTS: u8 = 59;

/// The highest base port at which the last agent still has a port.
pub const MAX_BASE_PORT: u16 = u16::MAX - AGENT_OFFSET - MAX_AGENTS as u16;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    pub data_dir: PathBuf,
    pub controllers: Vec<ControllerSeat>,
    pub agents: Vec<AgentSeat>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControllerSeat {
    pub name: String,
    pub dir: PathBuf,
    pub ingress: u16,
    pub ingress_tls: u16,
    pub api: u16,
    pub link: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentSeat {
    pub name: String,
    pub dir: PathBuf,
    pub listen: u16,
}

/// One port that a member needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    pub port: u16,
    pub udp: bool,
    /// "the ingress of controller-1".
    pub purpose: String,
}

impl Layout {
    pub fn new(data_dir: &Path, controllers: u8, agents: u8, base: u16) -> Self {
        let controllers = (1..=controllers)
            .map(|number| {
                let index = u16::from(number) - 1;
                let name = format!("controller-{number}");
                ControllerSeat {
                    dir: data_dir.join(&name),
                    name,
                    ingress: base + index,
                    ingress_tls: base + TLS_OFFSET + index,
                    api: base + API_OFFSET + index,
                    link: base + LINK_OFFSET + index,
                }
            })
            .collect();
        let agents = (1..=agents)
            .map(|number| {
                let name = format!("node-{number}");
                AgentSeat {
                    dir: data_dir.join(&name),
                    name,
                    listen: base + AGENT_OFFSET + u16::from(number) - 1,
                }
            })
            .collect();
        Self {
            data_dir: data_dir.to_owned(),
            controllers,
            agents,
        }
    }

    pub fn needs(&self) -> Vec<Need> {
        let mut needs = Vec::new();
        let mut need = |port, udp, purpose: String| needs.push(Need { port, udp, purpose });
        for seat in &self.controllers {
            need(seat.ingress, false, format!("the ingress of {}", seat.name));
            let tls = format!("the TLS ingress of {}", seat.name);
            need(seat.ingress_tls, false, tls);
            need(seat.api, false, format!("the API of {}", seat.name));
            need(seat.link, false, format!("the links of {}", seat.name));
            need(seat.link, true, format!("the links of {}", seat.name));
        }
        for seat in &self.agents {
            need(
                seat.listen,
                false,
                format!("the functions of {}", seat.name),
            );
        }
        needs
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.data_dir.join("kubeconfig")
    }

    pub fn log(&self, member: &str) -> PathBuf {
        self.data_dir.join("logs").join(format!("{member}.log"))
    }

    /// Link addresses of all controllers, as agents are given them.
    pub fn links(&self) -> String {
        let links: Vec<_> = self
            .controllers
            .iter()
            .map(|seat| loopback(seat.link))
            .collect();
        links.join(",")
    }

    pub fn apis(&self) -> Vec<String> {
        self.controllers
            .iter()
            .map(|seat| loopback(seat.api))
            .collect()
    }
}

pub fn loopback(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn no_two_members_share_a_port_and_no_two_swarms_either() {
        let largest = |base| Layout::new(Path::new("d"), MAX_CONTROLLERS, MAX_AGENTS, base);
        let mut ports = BTreeSet::new();
        for base in [8080, 8180, MAX_BASE_PORT] {
            for need in largest(base).needs() {
                assert!(ports.insert((need.port, need.udp)), "{need:?}");
            }
        }
    }

    #[test]
    fn the_first_ingress_is_at_the_base_port() {
        let layout = Layout::new(Path::new("d"), 3, 3, 8080);
        assert_eq!(layout.controllers[0].ingress, 8080);
        assert_eq!(layout.controllers[0].ingress_tls, 8110);
        assert_eq!(
            layout.links(),
            "127.0.0.1:8100,127.0.0.1:8101,127.0.0.1:8102"
        );
    }
}
