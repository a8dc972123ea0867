//! Three members of etcd, with TLS towards clients and among each other; its gRPC messages by hand.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::{BufMut, Bytes, BytesMut};
use http::Request;
use http_body_util::Full;
use prost::Message;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};

use super::connection::{Call, Connection, Member, Version};
use super::{Calls, System};
use crate::process::Process;

const MEMBERS: usize = 3;

const VALUE_BYTES: usize = 1024;

const PATIENCE: Duration = Duration::from_secs(60);

/// `etcdserverpb.PutRequest`, as far as it is used.
#[derive(Clone, PartialEq, Message)]
struct PutRequest {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

/// `etcdserverpb.RangeRequest`: linearizable unless it says otherwise.
#[derive(Clone, PartialEq, Message)]
struct RangeRequest {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    range_end: Bytes,
}

#[derive(Clone, PartialEq, Message)]
struct Empty {}

#[derive(Clone, PartialEq, Message)]
struct ResponseHeader {
    #[prost(uint64, tag = "2")]
    member_id: u64,
}

#[derive(Clone, PartialEq, Message)]
struct StatusResponse {
    #[prost(message, optional, tag = "1")]
    header: Option<ResponseHeader>,
    #[prost(uint64, tag = "4")]
    leader: u64,
}

pub struct Etcd {
    program: PathBuf,
    arguments: Vec<Vec<String>>,
    processes: Vec<Option<Process>>,
    members: Vec<Member>,
    calls: Arc<EtcdCalls>,
    _dir: tempfile::TempDir,
}

struct EtcdCalls {
    value: Bytes,
}

impl Etcd {
    /// The program, if it is there.
    pub fn find() -> Option<PathBuf> {
        let program = std::env::var_os("ETCD").map_or_else(|| "etcd".into(), PathBuf::from);
        crate::process::output(&program, &["--version"]).ok()?;
        Some(program)
    }

    pub async fn start(program: &Path) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let ca = Arc::new(certificates(dir.path())?);
        let ports: Vec<u16> = free_ports(2 * MEMBERS)?;
        let peers: Vec<String> = (0..MEMBERS)
            .map(|member| format!("m{member}=https://127.0.0.1:{}", ports[member]))
            .collect();
        let file = |name: &str| dir.path().join(name).display().to_string();
        let arguments: Vec<Vec<String>> = (0..MEMBERS)
            .map(|member| {
                let peer = format!("https://127.0.0.1:{}", ports[member]);
                let client = format!("https://127.0.0.1:{}", ports[MEMBERS + member]);
                let flags = [
                    ("--name", format!("m{member}")),
                    ("--data-dir", file(&format!("m{member}"))),
                    ("--listen-peer-urls", peer.clone()),
                    ("--initial-advertise-peer-urls", peer),
                    ("--listen-client-urls", client.clone()),
                    ("--advertise-client-urls", client),
                    ("--initial-cluster", peers.join(",")),
                    ("--cert-file", file("member.pem")),
                    ("--key-file", file("member.key")),
                    ("--peer-cert-file", file("member.pem")),
                    ("--peer-key-file", file("member.key")),
                    ("--peer-trusted-ca-file", file("ca.pem")),
                    ("--quota-backend-bytes", "8000000000".to_owned()),
                ];
                let mut flags: Vec<String> = flags
                    .into_iter()
                    .flat_map(|(flag, value)| [flag.to_owned(), value])
                    .collect();
                flags.push("--peer-client-cert-auth".to_owned());
                flags
            })
            .collect();
        let members = (0..MEMBERS)
            .map(|member| Member {
                address: ([127, 0, 0, 1], ports[MEMBERS + member]).into(),
                ca: ca.clone(),
            })
            .collect();
        let mut etcd = Self {
            program: program.to_owned(),
            arguments,
            processes: Vec::new(),
            members,
            calls: Arc::new(EtcdCalls {
                value: vec![b'v'; VALUE_BYTES].into(),
            }),
            _dir: dir,
        };
        for member in 0..MEMBERS {
            let process = etcd.spawn(member)?;
            etcd.processes.push(Some(process));
        }
        for member in 0..MEMBERS {
            etcd.serves(member).await?;
        }
        Ok(etcd)
    }

    fn spawn(&self, member: usize) -> anyhow::Result<Process> {
        let arguments: Vec<&str> = self.arguments[member].iter().map(String::as_str).collect();
        Process::start(&self.program, &arguments)
    }

    /// Waits until a member answers a linearizable read.
    async fn serves(&self, member: usize) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let asked = async {
                let mut connection =
                    Connection::open(&self.members[member], Version::Http2).await?;
                connection.call(self.calls.read("ready", 0)).await
            };
            match asked.await {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() > deadline => {
                    bail!("etcd does not serve: {error:#}")
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    }
}

/// A CA and one certificate that serves every member towards clients and peers; the CA in PEM.
fn certificates(dir: &Path) -> anyhow::Result<Vec<u8>> {
    let ca_key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = params.self_signed(&ca_key)?.pem();
    let issuer = Issuer::new(params, ca_key);
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()])?;
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    let certificate = params.signed_by(&key, &issuer)?;
    std::fs::write(dir.join("ca.pem"), &ca)?;
    std::fs::write(dir.join("member.pem"), certificate.pem())?;
    std::fs::write(dir.join("member.key"), key.serialize_pem())?;
    Ok(ca.into_bytes())
}

fn free_ports(count: usize) -> anyhow::Result<Vec<u16>> {
    let listeners: Vec<TcpListener> = (0..count)
        .map(|_| TcpListener::bind("127.0.0.1:0"))
        .collect::<Result<_, _>>()?;
    listeners
        .iter()
        .map(|listener| Ok(listener.local_addr()?.port()))
        .collect()
}

fn grpc(method: &str, message: &impl Message) -> Call {
    let mut body = BytesMut::with_capacity(message.encoded_len() + 5);
    body.put_u8(0);
    body.put_u32(u32::try_from(message.encoded_len()).expect("a kilobyte"));
    message.encode(&mut body).expect("a buffer grows");
    let request = Request::post(format!("https://127.0.0.1/etcdserverpb.{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::new(body.freeze()))
        .expect("the request is well-formed");
    Call {
        request,
        grpc: true,
    }
}

impl Calls for EtcdCalls {
    fn is_grpc(&self) -> bool {
        true
    }

    fn write(&self, group: &str, number: u64) -> Call {
        let put = PutRequest {
            key: format!("{group}/{number}").into(),
            value: self.value.clone(),
        };
        grpc("KV/Put", &put)
    }

    fn read(&self, group: &str, number: u64) -> Call {
        let range = RangeRequest {
            key: format!("{group}/{number}").into(),
            range_end: Bytes::new(),
        };
        grpc("KV/Range", &range)
    }

    fn list(&self, group: &str) -> Call {
        let range = RangeRequest {
            key: format!("{group}/").into(),
            // The first key that does not begin so.
            range_end: format!("{group}0").into(),
        };
        grpc("KV/Range", &range)
    }
}

impl System for Etcd {
    fn name(&self) -> &'static str {
        "etcd"
    }

    fn calls(&self) -> Arc<dyn Calls> {
        self.calls.clone()
    }

    fn members(&self) -> &[Member] {
        &self.members
    }

    fn processes(&self) -> Vec<u32> {
        self.processes.iter().flatten().map(Process::pid).collect()
    }

    async fn leader(&mut self) -> anyhow::Result<usize> {
        for (number, member) in self.members.iter().enumerate() {
            let mut connection = Connection::open(member, Version::Http2).await?;
            let status = connection
                .call(grpc("Maintenance/Status", &Empty {}))
                .await?;
            let status = StatusResponse::decode(status)?;
            if status.header.context("a header")?.member_id == status.leader {
                return Ok(number);
            }
        }
        bail!("no member of etcd leads")
    }

    async fn restart(&mut self, member: usize) -> anyhow::Result<Duration> {
        self.processes[member] = None;
        let started = Instant::now();
        self.processes[member] = Some(self.spawn(member)?);
        self.serves(member).await?;
        Ok(started.elapsed())
    }
}
