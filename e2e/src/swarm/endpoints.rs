//! Members of a swarm, and where each of them listens.

use crate::member::Member;
use crate::ports::loopback;

#[derive(Debug)]
pub struct Controller {
    pub member: Member,
    /// An address of this machine.
    pub host: String,
    pub ingress: u16,
    pub api: u16,
    pub link: u16,
}

#[derive(Debug)]
pub struct Agent {
    pub member: Member,
    /// The port at which it serves its functions locally.
    pub listen: u16,
}

impl Agent {
    pub fn address(&self) -> String {
        loopback(self.listen)
    }
}

impl Controller {
    pub fn ingress_address(&self) -> String {
        self.address(self.ingress)
    }

    pub fn api_address(&self) -> String {
        self.address(self.api)
    }

    pub fn link_address(&self) -> String {
        self.address(self.link)
    }

    /// Where it listens at a port.
    pub fn address(&self, port: u16) -> String {
        format!("{}:{port}", self.host)
    }
}
