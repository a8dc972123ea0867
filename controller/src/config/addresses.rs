//! Flags from which a controller has its endpoints.

use std::net::Ipv6Addr;

use clap::Args;

use crate::state::Member;

/// Where others reach this controller.
#[derive(Debug, Clone, Args)]
pub struct Addresses {
    /// Name or address at which agents, controllers and people reach this machine
    #[arg(long, default_value = "127.0.0.1", value_name = "HOST")]
    pub advertise: String,
    /// Port for agents and controllers, UDP and TCP
    #[arg(long, default_value_t = 7443, value_name = "PORT")]
    pub link_port: u16,
    /// Port of the API (HTTPS)
    #[arg(long, default_value_t = 6443, value_name = "PORT")]
    pub api_port: u16,
    /// Port of the public ingress (HTTP)
    #[arg(long, default_value_t = 8080, value_name = "PORT")]
    pub ingress_port: u16,
    /// Port of the public ingress for TLS: tunnels by https, and those of protocol TLS [default: none]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub ingress_tls_port: Option<u16>,
}

impl Addresses {
    pub fn member(&self) -> Member {
        let host = match self.advertise.parse::<Ipv6Addr>() {
            Ok(address) => format!("[{address}]"),
            Err(_) => self.advertise.clone(),
        };
        Member {
            link: format!("{host}:{}", self.link_port),
            api: format!("{host}:{}", self.api_port),
            ingress: format!("{host}:{}", self.ingress_port),
            ingress_tls: self.ingress_tls_port.map(|port| format!("{host}:{port}")),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use clap::Parser;

    use crate::config::{Action, ControllerCommand};

    #[test]
    fn addresses_become_endpoints() {
        let args = [
            "hive-controller",
            "init",
            "--advertise",
            "fd00::1",
            "--api-port",
            "1",
        ];
        let Action::Init(init) = ControllerCommand::try_parse_from(args).unwrap().action else {
            panic!("not init");
        };
        let member = init.addresses.member();
        assert_eq!(member.api, "[fd00::1]:1");
        assert_eq!(member.link, "[fd00::1]:7443");
        assert_eq!(member.ingress_tls, None);
    }
}
