//! What is to be done at Cloudflare so that a tunnel is there as it is declared, or is gone. Pure.
//!
//! What is found by its name is taken over: a controller that made it may have been lost before it could say so.
//! Records that somebody else made are never touched.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::super::Trouble;

/// What Cloudflare's network calls tunnels in DNS.
const DOMAIN: &str = ".cfargotunnel.com";

/// What a request for another host is answered with; the last rule has no host.
const NOBODY: &str = "http_status:404";

/// Types of records that say where a name leads.
const LEADING: [&str; 3] = ["A", "AAAA", "CNAME"];

/// A tunnel as it is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// By which it is found.
    pub name: String,
    pub hosts: BTreeSet<String>,
    /// Where connectors hand requests, as a URL.
    pub service: String,
}

/// One rule of a tunnel's configuration. The first whose host is a request's takes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hostname: String,
    #[serde(default)]
    pub service: String,
}

/// One record of DNS.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Record {
    pub id: String,
    pub name: String,
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default)]
    pub content: String,
    #[serde(default)]
    pub proxied: bool,
    #[serde(default)]
    pub comment: Option<String>,
}

/// What there is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Its id.
    pub tunnel: Option<String>,
    pub ingress: Vec<Rule>,
    /// Of each host that is wanted or in the configuration: the id of its zone, if one is found.
    pub zones: BTreeMap<String, Option<String>>,
    pub records: BTreeMap<String, Vec<Record>>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Then there is more to see.
    CreateTunnel {
        name: String,
    },
    Configure {
        tunnel: String,
        ingress: Vec<Rule>,
    },
    CreateRecord {
        zone: String,
        record: Value,
    },
    ChangeRecord {
        zone: String,
        id: String,
        record: Value,
    },
    DeleteRecord {
        zone: String,
        id: String,
    },
    DeleteTunnel {
        tunnel: String,
    },
}

/// The steps in their order, of which each may be the last. None: all is as it is to be.
pub fn plan(wanted: Option<&Wanted>, seen: &Seen) -> Result<Vec<Step>, Trouble> {
    match (wanted, &seen.tunnel) {
        (None, None) => Ok(Vec::new()),
        (None, Some(tunnel)) => {
            let mut steps = forget(&BTreeSet::new(), tunnel, seen);
            let tunnel = tunnel.clone();
            steps.push(Step::DeleteTunnel { tunnel });
            Ok(steps)
        }
        (Some(wanted), None) => Ok(vec![Step::CreateTunnel {
            name: wanted.name.clone(),
        }]),
        (Some(wanted), Some(tunnel)) => {
            // The configuration remembers which records there are: it is the last to forget a host, and the first to
            // know a new one.
            let mut steps = forget(&wanted.hosts, tunnel, seen);
            let ingress = ingress(wanted);
            if ingress != seen.ingress {
                steps.push(Step::Configure {
                    tunnel: tunnel.clone(),
                    ingress,
                });
            }
            for host in &wanted.hosts {
                steps.extend(lead(host, wanted, tunnel, seen)?);
            }
            Ok(steps)
        }
    }
}

fn ingress(wanted: &Wanted) -> Vec<Rule> {
    let rule = |hostname: &str, service: &str| Rule {
        hostname: hostname.to_owned(),
        service: service.to_owned(),
    };
    let hosts = wanted.hosts.iter();
    let hosts = hosts.map(|host| rule(host, &wanted.service));
    hosts.chain([rule("", NOBODY)]).collect()
}

fn content(tunnel: &str) -> String {
    format!("{tunnel}{DOMAIN}")
}

/// Deletes the records of hosts that are not wanted any more.
fn forget(wanted: &BTreeSet<String>, tunnel: &str, seen: &Seen) -> Vec<Step> {
    let content = content(tunnel);
    let hosts = seen.ingress.iter().map(|rule| &rule.hostname);
    let hosts: BTreeSet<&String> = hosts
        .filter(|host| !host.is_empty() && !wanted.contains(*host))
        .collect();
    let mut steps = Vec::new();
    for host in hosts {
        // A zone that is not there any more has no records.
        let Some(Some(zone)) = seen.zones.get(host) else {
            continue;
        };
        let records = seen.records.get(host).into_iter().flatten();
        let own = records.filter(|it| it.kind == "CNAME" && it.content == content);
        steps.extend(own.map(|record| Step::DeleteRecord {
            zone: zone.clone(),
            id: record.id.clone(),
        }));
    }
    steps
}

/// Lets a host lead to the tunnel.
fn lead(host: &str, wanted: &Wanted, tunnel: &str, seen: &Seen) -> Result<Option<Step>, Trouble> {
    let Some(Some(zone)) = seen.zones.get(host) else {
        let message = format!(
            "{host} is in no zone of the account that the API token may see: add its domain at Cloudflare, let the \
             token read it, or correct spec.http.host"
        );
        return Err(Trouble::new("ZoneNotFound", message));
    };
    let comment = format!("Hive tunnel {}", wanted.name);
    let content = content(tunnel);
    let record = json!({
        "type": "CNAME",
        "name": host,
        "content": content,
        "proxied": true,
        // Cloudflare chooses.
        "ttl": 1,
        "comment": comment,
    });
    let zone = zone.clone();
    let records = seen.records.get(host).into_iter().flatten();
    let leading: Vec<&Record> = records.filter(|it| LEADING.contains(&&*it.kind)).collect();
    match leading[..] {
        [] => Ok(Some(Step::CreateRecord { zone, record })),
        [known] if known.kind == "CNAME" && known.content == content && known.proxied => Ok(None),
        // Its tunnel was made anew, or somebody meddled with it.
        [known]
            if known.kind == "CNAME"
                && (known.content == content || known.comment.as_ref() == Some(&comment)) =>
        {
            Ok(Some(Step::ChangeRecord {
                zone,
                id: known.id.clone(),
                record,
            }))
        }
        [other, ..] => {
            let message = format!(
                "{host} has the DNS record {} {} at Cloudflare, which Hive did not make: delete it there, or correct \
                 spec.http.host",
                other.kind, other.content
            );
            Err(Trouble::new("RecordInTheWay", message))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const SERVICE: &str = "http://127.0.0.1:8080";

    fn wanted(hosts: &[&str]) -> Wanted {
        Wanted {
            name: "hive.default.photos".to_owned(),
            hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
            service: SERVICE.to_owned(),
        }
    }

    fn rules(hosts: &[&str]) -> Vec<Rule> {
        ingress(&wanted(hosts))
    }

    /// `TYPE content [comment]`, of a host.
    fn record(host: &str, text: &str) -> Record {
        let mut words = text.splitn(3, ' ');
        let mut word = || words.next().unwrap_or_default().to_owned();
        let (kind, content, comment) = (word(), word(), word());
        Record {
            id: format!("of-{host}"),
            name: host.to_owned(),
            kind,
            content,
            proxied: true,
            comment: Some(comment).filter(|it| !it.is_empty()),
        }
    }

    fn seen(tunnel: bool, configured: &[&str], records: &[(&str, &str)]) -> Seen {
        let hosts = configured
            .iter()
            .chain(["a.example.org", "b.example.org"].iter());
        let mut seen = Seen {
            tunnel: tunnel.then(|| "t1".to_owned()),
            ingress: match configured {
                [] => Vec::new(),
                hosts => rules(hosts),
            },
            zones: hosts
                .map(|host| ((*host).to_owned(), Some("z1".to_owned())))
                .collect(),
            records: BTreeMap::new(),
        };
        for (host, text) in records {
            let known = seen.records.entry((*host).to_owned()).or_default();
            known.push(record(host, text));
        }
        seen
    }

    fn told(steps: Result<Vec<Step>, Trouble>) -> Vec<String> {
        let one = |step| match step {
            Step::CreateTunnel { name } => format!("create {name}"),
            Step::Configure { tunnel, ingress } => {
                let hosts: Vec<_> = ingress.iter().map(|rule| &*rule.hostname).collect();
                format!("configure {tunnel}: {}", hosts.join(" "))
            }
            Step::CreateRecord { zone, record } => {
                format!("{zone}: {} -> {}", record["name"], record["content"])
            }
            Step::ChangeRecord { zone, id, record } => {
                format!("{zone}: change {id} -> {}", record["content"])
            }
            Step::DeleteRecord { zone, id } => format!("{zone}: delete {id}"),
            Step::DeleteTunnel { tunnel } => format!("delete {tunnel}"),
        };
        match steps {
            Ok(steps) => steps.into_iter().map(one).collect(),
            Err(trouble) => vec![trouble.reason.to_owned()],
        }
    }

    /// The hosts that are wanted, what there is, and the steps.
    type Case<'a> = (Option<&'a [&'a str]>, Seen, &'a [&'a str]);

    #[test]
    fn what_is_there_is_brought_to_what_is_wanted() {
        let (a, b) = ("a.example.org", "b.example.org");
        let own = "CNAME t1.cfargotunnel.com";
        let former = "CNAME t0.cfargotunnel.com Hive tunnel hive.default.photos";
        let strange = "CNAME t0.cfargotunnel.com Somebody's";
        let cases: &[Case] = &[
            (
                Some(&[a]),
                seen(false, &[], &[]),
                &["create hive.default.photos"],
            ),
            (
                Some(&[a]),
                seen(true, &[], &[]),
                &[
                    "configure t1: a.example.org ",
                    "z1: \"a.example.org\" -> \"t1.cfargotunnel.com\"",
                ],
            ),
            (Some(&[a]), seen(true, &[a], &[(a, own)]), &[]),
            // Other records of a name are none of our business.
            (Some(&[a]), seen(true, &[a], &[(a, own), (a, "TXT x")]), &[]),
            (
                Some(&[a]),
                seen(true, &[a], &[(a, former)]),
                &["z1: change of-a.example.org -> \"t1.cfargotunnel.com\""],
            ),
            (
                Some(&[a]),
                seen(true, &[a], &[(a, strange)]),
                &["RecordInTheWay"],
            ),
            (
                Some(&[a]),
                seen(true, &[a], &[(a, "A 192.0.2.1")]),
                &["RecordInTheWay"],
            ),
            (
                Some(&["c.example.net"]),
                seen(true, &[], &[]),
                &["ZoneNotFound"],
            ),
            (
                Some(&[b]),
                seen(true, &[a], &[(a, own)]),
                &[
                    "z1: delete of-a.example.org",
                    "configure t1: b.example.org ",
                    "z1: \"b.example.org\" -> \"t1.cfargotunnel.com\"",
                ],
            ),
            // Somebody has put something else in its place.
            (
                Some(&[b]),
                seen(true, &[a, b], &[(a, "A 192.0.2.1"), (b, own)]),
                &["configure t1: b.example.org "],
            ),
            (None, seen(false, &[], &[]), &[]),
            (
                None,
                seen(true, &[a, b], &[(a, own), (b, strange)]),
                &["z1: delete of-a.example.org", "delete t1"],
            ),
        ];
        for (hosts, seen, expected) in cases {
            let wanted = hosts.map(wanted);
            let found = told(plan(wanted.as_ref(), seen));
            assert_eq!(found, *expected, "{hosts:?} {seen:?}");
        }
    }

    #[test]
    fn a_record_that_does_not_lead_through_the_network_is_put_right() {
        let host = "a.example.org";
        let mut seen = seen(true, &[host], &[(host, "CNAME t1.cfargotunnel.com")]);
        seen.records.get_mut(host).unwrap()[0].proxied = false;
        let steps = plan(Some(&wanted(&[host])), &seen);
        assert_eq!(
            told(steps),
            ["z1: change of-a.example.org -> \"t1.cfargotunnel.com\""]
        );
    }

    #[test]
    fn another_service_is_told() {
        let host = "a.example.org";
        let seen = seen(true, &[host], &[(host, "CNAME t1.cfargotunnel.com")]);
        let mut wanted = wanted(&[host]);
        wanted.service = "http://127.0.0.1:80".to_owned();
        assert_eq!(
            told(plan(Some(&wanted), &seen)),
            ["configure t1: a.example.org "]
        );
    }
}
