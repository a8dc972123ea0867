//! Making a swarm: how large, with which times, and in which order.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Swarm, strings};
use crate::ctl::Ctl;
use crate::ports::free_row;
use crate::program::hive;
use crate::turn::Turn;

/// On loopback nothing gets lost: a dead node is found in seconds. As many as a machine of one core may leave a
/// process without a turn, while the others start.
pub const NODE_GRACE: Duration = Duration::from_secs(8);
const KEEP_ALIVE: &str = "1s";
const IDLE_TIMEOUT: &str = "6s";

/// Ports for agents that join later, and for what tests listen at.
const SPARE_PORTS: u16 = 24;

#[derive(Debug)]
pub struct Builder {
    controllers: u16,
    agents: u16,
    apart: bool,
    make_flags: Vec<String>,
    run_flags: Vec<String>,
    agent_flags: Vec<String>,
    program: PathBuf,
}

/// Three controllers and three agents that notice within seconds what is lost.
impl Default for Builder {
    fn default() -> Self {
        Self {
            controllers: 3,
            agents: 3,
            apart: false,
            make_flags: Vec::new(),
            run_flags: strings(&[
                "--node-grace",
                &format!("{}s", NODE_GRACE.as_secs()),
                "--link-keep-alive",
                KEEP_ALIVE,
                "--link-idle-timeout",
                IDLE_TIMEOUT,
            ]),
            agent_flags: Vec::new(),
            program: hive(),
        }
    }
}

impl Builder {
    /// With the times that controllers have where nobody chose others: links are given up after 30 s.
    pub fn default_timing(mut self) -> Self {
        self.run_flags.clear();
        self
    }

    pub fn controllers(mut self, count: u16) -> Self {
        self.controllers = count;
        self
    }

    pub fn agents(mut self, count: u16) -> Self {
        self.agents = count;
        self
    }

    /// Each controller at an address of its own, so that all of them can listen at one port. Of Linux: there
    /// all of 127/8 is the machine itself.
    pub fn apart(mut self) -> Self {
        self.apart = true;
        self
    }

    /// A flag of `hive controller init` and `join`.
    pub fn make_flag(mut self, flag: &str) -> Self {
        self.make_flags.push(flag.to_owned());
        self
    }

    /// A flag of `hive controller run`, for all controllers.
    pub fn run_flag(mut self, flag: &str, value: &str) -> Self {
        self.run_flags.extend([flag.to_owned(), value.to_owned()]);
        self
    }

    /// A flag of `hive agent`, for all agents.
    pub fn agent_flag(mut self, flag: &str, value: &str) -> Self {
        self.agent_flags.extend([flag.to_owned(), value.to_owned()]);
        self
    }

    /// Of another program than the one that was built with the tests.
    pub fn program(mut self, program: &Path) -> Self {
        self.program = program.to_owned();
        self
    }

    /// Makes the swarm, and waits until every member is ready.
    pub async fn start(self) -> Swarm {
        let turn = Turn::take().await;
        let dir = tempfile::tempdir().expect("the directory for temporary files can be written");
        let mut ctl = Ctl::new(&dir.path().join("kubeconfig"));
        ctl.program = self.program;
        let ports = 3 * self.controllers + self.agents + SPARE_PORTS;
        let first_port = free_row(ports);
        let mut swarm = Swarm {
            controllers: Vec::new(),
            agents: Vec::new(),
            ctl,
            next_port: first_port,
            apart: self.apart,
            make_flags: self.make_flags,
            run_flags: self.run_flags,
            agent_flags: self.agent_flags,
            dir,
            _turn: turn,
        };
        for _ in 0..self.controllers {
            swarm.make_controller().await;
        }
        swarm.write_kubeconfig();
        let token = match self.agents {
            0 => String::new(),
            uses => swarm.token(&["--uses", &uses.to_string()]).await,
        };
        for number in 1..=self.agents {
            let agent = swarm.new_agent(&format!("node-{number}"), &token);
            swarm.agents.push(agent);
        }
        for agent in &mut swarm.agents {
            agent.member.start();
        }
        swarm.wait_ready().await;
        swarm
    }
}
