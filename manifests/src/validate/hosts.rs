//! Hosts that functions and tunnels answer for, hosts that a function may send requests to, and hosts that
//! nodes reach.
//!
//! The entries of `allowedHosts` are read once more where functions run, by the same rules: what
//! passes here must be understood there.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::Value;

use super::findings::{Findings, quoted};
use super::{Reason, names};
use crate::FieldPath;

pub(super) fn check(host: &str, path: &FieldPath, findings: &mut Findings) {
    if let Err(why) = names::host(host) {
        let (message, suggestion) = wrong(host, &why);
        findings.suggest(path, Reason::Invalid, message, suggestion);
    }
}

/// A name or an address, as a node reaches it.
pub(super) fn check_reached(host: &str, path: &FieldPath, findings: &mut Findings) {
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    if bare.is_some_and(|bare| bare.parse::<Ipv6Addr>().is_ok()) {
        findings.suggest(
            path,
            Reason::Invalid,
            format!(
                "{}: here an address has no brackets around it",
                quoted(host)
            ),
            bare.map(str::to_owned),
        );
        return;
    }
    if let Ok(address) = host.parse::<IpAddr>() {
        // What people read in the settings of the service.
        if address.is_unspecified() {
            let itself = match address {
                IpAddr::V4(_) => Ipv4Addr::LOCALHOST.to_string(),
                IpAddr::V6(_) => Ipv6Addr::LOCALHOST.to_string(),
            };
            findings.suggest(
                path,
                Reason::Invalid,
                format!(
                    "{} is where a service listens, and no address to reach it",
                    quoted(host)
                ),
                Some(itself),
            );
        }
        return;
    }
    // No name ends in a number: that is an address with a mistake in it.
    let last = host.rsplit('.').next().unwrap_or(host);
    if !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit()) {
        let message = format!(
            "{} is neither a name nor an address such as \"192.168.1.20\" or \"fd00::20\"",
            quoted(host)
        );
        findings.invalid(path, message);
        return;
    }
    check(host, path, findings);
}

/// A network or an address from which clients come: without brackets.
pub(super) fn check_network(text: &str, path: &FieldPath, findings: &mut Findings) {
    match network(text, text, |_| true) {
        Ok(()) => {}
        Err((message, first @ Some(_))) => {
            findings.suggest(path, Reason::Invalid, message, first);
        }
        Err((_, None)) => {
            let message = format!(
                "{} is no network: write one such as \"203.0.113.0/24\" or \"2001:db8::/32\", or a single address",
                quoted(text)
            );
            findings.invalid(path, message);
        }
    }
}

pub(super) fn check_allowed(hosts: &[Value], path: &FieldPath, findings: &mut Findings) {
    let mut seen = BTreeSet::new();
    for (index, host) in hosts.iter().enumerate() {
        let Some(text) = host.as_str() else {
            continue;
        };
        let path = path.index(index);
        if !seen.insert(text) {
            findings.duplicate(&path, format!("{} is listed twice", quoted(text)));
        }
        if let Err((message, suggestion)) = allowed(text) {
            findings.suggest(&path, Reason::Invalid, message, suggestion);
        }
    }
}

/// What is wrong with an entry, and what may have been meant.
type Wrong = (String, Option<String>);

fn allowed(text: &str) -> Result<(), Wrong> {
    // The colons inside the brackets of an IPv6 address end no host.
    let host_end = text.rfind(']').map_or(0, |end| end + 1);
    let (host, port) = match text[host_end..].rfind(':') {
        Some(colon) if !text.contains("://") => {
            let (host, port) = text.split_at(host_end + colon);
            (host, Some(&port[1..]))
        }
        _ => (text, None),
    };
    if text.parse::<Ipv6Addr>().is_ok() {
        return Err((
            format!("{}: an IPv6 address has brackets around it", quoted(text)),
            Some(format!("[{text}]")),
        ));
    }
    let is_port = |text: &str| {
        text == "*"
            || text.bytes().all(|b| b.is_ascii_digit())
                && text.parse::<u16>().is_ok_and(|port| port != 0)
    };
    if port.is_some_and(|port| !is_port(port)) {
        return Err((
            format!(
                "{}: a port is a number from 1 to 65535, or \"*\" for every port",
                quoted(text)
            ),
            None,
        ));
    }
    if host == "*" {
        return Ok(());
    }
    if let Some(inner) = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        return network(text, inner, IpAddr::is_ipv6);
    }
    let addressed = host.split_once('/').map(|(address, _)| address);
    if addressed.is_some_and(|address| address.parse::<IpAddr>().is_ok()) {
        return network(text, host, IpAddr::is_ipv4);
    }
    names::host(host.strip_prefix("*.").unwrap_or(host)).map_err(|why| wrong(text, &why))
}

/// An address of the version that belongs there, or a network: an address and the length of the
/// prefix.
fn network(text: &str, network: &str, belongs: fn(&IpAddr) -> bool) -> Result<(), Wrong> {
    let (address, prefix) = match network.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (network, None),
    };
    let not_one = || {
        let message = format!(
            "{}: a network is written like \"10.0.0.0/8\" or \"[fd00::/8]\"",
            quoted(text)
        );
        (message, None)
    };
    let address: IpAddr = address.parse().map_err(|_| not_one())?;
    if !belongs(&address) {
        return Err(not_one());
    }
    let Some(prefix) = prefix else {
        return Ok(());
    };
    let is_number = !prefix.is_empty() && prefix.bytes().all(|b| b.is_ascii_digit());
    let longest = if address.is_ipv4() { 32 } else { 128 };
    let prefix: u32 = prefix
        .parse()
        .ok()
        .filter(|prefix| is_number && *prefix <= longest)
        .ok_or_else(not_one)?;
    let first = first_of(address, prefix);
    if first == address {
        return Ok(());
    }
    Err((
        format!("{}: the network begins at {first}", quoted(text)),
        Some(text.replacen(&address.to_string(), &first.to_string(), 1)),
    ))
}

fn first_of(address: IpAddr, prefix: u32) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - prefix).unwrap_or(0);
            Ipv4Addr::from_bits(address.to_bits() & mask).into()
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - prefix).unwrap_or(0);
            Ipv6Addr::from_bits(address.to_bits() & mask).into()
        }
    }
}

/// Says why, and what is left when the scheme, port and path are taken off.
fn wrong(text: &str, why: &str) -> Wrong {
    let bare = text.split_once("://").map_or(text, |(_, rest)| rest);
    let bare = bare.split(['/', ':']).next().unwrap_or(bare);
    let bare = bare.to_ascii_lowercase();
    let suggestion = (bare != text && names::host(&bare).is_ok()).then_some(bare);
    (
        format!("{} is not a host name: {why}", quoted(text)),
        suggestion,
    )
}
