//! What a request asks for: its path names a behaviour, its query says how much of it.

use std::time::Duration;

use crate::{
    egress,
    files::{self, How},
    handles::Kind,
    network,
    query::{BadParameter, Query},
};

pub enum Behaviour {
    Hello,
    Echo,
    Environment,
    Count,
    Status { code: u16 },
    Silent,
    Error { text: String },
    Exit { code: u8 },
    Trap,
    Cut,
    Log { lines: u64, text: String },
    Stream { chunks: u64, pause: Duration },
    Slow { pause: Duration },
    Large { kib: u64, declared: Option<u64> },
    Batch { fail: usize },
    Stdin,

    Spin,
    Busy { time: Duration },
    After { time: Option<Duration> },
    Compute { turns: u64 },
    Poll { time: Option<Duration> },
    Recurse,

    Memory { mib: usize },
    Grow,
    Handles { kind: Kind, count: u64 },
    Headers { kib: usize },
    Argument { kib: usize },
    Random { bytes: u64 },

    Egress(egress::Asked),
    Follow(egress::Asked),
    Many { asked: egress::Asked, count: u64 },
    Files(files::Deed),
    Steps(Vec<files::Deed>),
    Network(network::Deed),

    Unknown { path: String },
}

impl Behaviour {
    /// What the target of a request, `/path?name=value&...`, asks for.
    pub fn of(target: &str) -> Result<Self, BadParameter> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let query = Query::parse(query);
        let milliseconds = |default| {
            let given = query.milliseconds("ms")?;
            Ok(given.unwrap_or(Duration::from_millis(default)))
        };
        Ok(match path {
            "" | "/" => Self::Hello,
            "/echo" => Self::Echo,
            "/env" => Self::Environment,
            "/count" => Self::Count,
            "/status" => Self::Status {
                code: query.number("code", 200)?,
            },
            "/silent" => Self::Silent,
            "/error" => Self::Error {
                text: query.text("text").unwrap_or("asked to fail".to_owned()),
            },
            "/exit" => Self::Exit {
                code: query.number("code", 0)?,
            },
            "/trap" => Self::Trap,
            "/cut" => Self::Cut,
            "/log" => Self::Log {
                lines: query.number("lines", 1)?,
                text: query.text("text").unwrap_or("line".to_owned()),
            },
            "/stream" => Self::Stream {
                chunks: query.number("chunks", 3)?,
                pause: milliseconds(0)?,
            },
            "/slow" => Self::Slow {
                pause: milliseconds(100)?,
            },
            "/large" => Self::Large {
                kib: query.number("kib", 1024)?,
                declared: query.parsed("declared")?,
            },
            "/batch" => Self::Batch {
                fail: query.number("fail", 0)?,
            },
            "/stdin" => Self::Stdin,

            "/spin" => Self::Spin,
            "/busy" => Self::Busy {
                time: milliseconds(100)?,
            },
            "/after" => Self::After {
                time: query.milliseconds("ms")?,
            },
            "/compute" => Self::Compute {
                turns: query.number("turns", 1_000_000)?,
            },
            "/poll0" => Self::Poll {
                time: query.milliseconds("ms")?,
            },
            "/recurse" => Self::Recurse,

            "/memory" => Self::Memory {
                mib: query.number("mib", 1)?,
            },
            "/grow" => Self::Grow,
            "/handles" => Self::Handles {
                kind: query.parsed("kind")?.unwrap_or(Kind::Fields),
                count: query.number("count", 1)?,
            },
            "/headers" => Self::Headers {
                kib: query.number("kib", 1)?,
            },
            "/argument" => Self::Argument {
                kib: query.number("kib", 1)?,
            },
            "/random" => Self::Random {
                bytes: query.number("bytes", 16)?,
            },

            "/egress" => Self::Egress(asked(&query)?),
            "/follow" => Self::Follow(asked(&query)?),
            "/many" => Self::Many {
                asked: asked(&query)?,
                count: query.number("count", 2)?,
            },

            "/steps" => Self::Steps(query.texts("do").map(|it| step(&it)).collect::<Result<_, _>>()?),
            "/tcp" => Self::Network(network::Deed::Connect {
                to: query.address("to")?,
            }),
            "/udp" => Self::Network(network::Deed::Send {
                to: query.address("to")?,
            }),
            "/listen" => Self::Network(network::Deed::Listen {
                at: query.address("at")?,
            }),
            "/resolve" => Self::Network(network::Deed::Resolve {
                name: query.required("name")?,
            }),

            path => match deed(path, &query)? {
                Some(deed) => Self::Files(deed),
                None => Self::Unknown {
                    path: path.to_owned(),
                },
            },
        })
    }
}

/// One of several things done with files by one instance.
fn step(target: &str) -> Result<files::Deed, BadParameter> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let deed = deed(path, &Query::parse(query))?;
    deed.ok_or_else(|| BadParameter(format!("do={target} is nothing to do")))
}

fn deed(path: &str, query: &Query) -> Result<Option<files::Deed>, BadParameter> {
    Ok(Some(match path {
        "/fs" => files::Deed::Read {
            path: query.text("path").unwrap_or("/etc/passwd".to_owned()),
        },
        "/write" => files::Deed::Write {
            path: query.required("path")?,
            text: query.text("text").unwrap_or("text".to_owned()),
        },
        "/dir" => files::Deed::List {
            path: query.required("path")?,
        },
        "/directories" => files::Deed::Directories,
        "/at" => files::Deed::At {
            path: query.required("path")?,
            how: how(query)?,
        },
        _ => return Ok(None),
    }))
}

fn asked(query: &Query) -> Result<egress::Asked, BadParameter> {
    Ok(egress::Asked {
        url: query.required("url")?,
        method: query.text("method"),
        scheme: query.text("scheme"),
        authority: query.text("authority"),
        path: query.text("path"),
        host: query.text("host"),
        headers: query.texts("header").collect(),
        body: query.text("body"),
        connect: query.milliseconds("connect")?,
        first_byte: query.milliseconds("first")?,
        between_bytes: query.milliseconds("between")?,
    })
}

fn how(query: &Query) -> Result<How, BadParameter> {
    let kib = query.number("kib", 1)?;
    let to = || query.required("to");
    Ok(match query.required("how")?.as_str() {
        "open" => How::Open {
            count: query.number("count", 1)?,
        },
        "write" => How::Write { kib },
        "stream" => How::Stream { kib },
        "append" => How::Append { kib },
        "size" => How::Size { kib },
        "symlink" => How::Symlink { to: to()? },
        "link" => How::Link { to: to()? },
        "directory" => How::Directory,
        "remove" => How::Remove,
        "rename" => How::Rename { to: to()? },
        "read" => How::Read,
        "hide" => How::Hide { kib },
        other => return Err(BadParameter(format!("how={other} is nothing to do"))),
    })
}
