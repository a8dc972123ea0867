//! What is done to controllers while clients work, and the proof that it was.

use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant, SystemTime};

use http::Method;
use rustix::process::Signal;
use serde_json::json;

use super::client::{CALM, Heard};
use super::cluster::Cluster;
use super::levers::faketime;
use super::network::Drop;
use super::seed::Seed;
use super::tool::must;
use crate::wait::PATIENCE;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The leader reaches no other controller, nor they it; clients reach all.
    LeaderCutOff,
    /// The same for any controller.
    OneCutOff,
    /// Nobody hears the leader, which hears the others.
    LeaderMute,
    /// The leader hears nobody, and is heard.
    LeaderDeaf,
    /// One packet in five gets lost, between all and with clients.
    PacketsLost,
    Killed,
    AllKilled,
    /// Stopped for longer than an election takes, then let go on.
    Paused,
    DiskFull,
    SyncFails,
    DiskSlow,
    ClockJumps,
    ClockRuns,
    /// A fresh controller takes a member's place, with `hivectl controller replace`.
    Replaced,
}

use Fault::{
    AllKilled, ClockJumps, ClockRuns, DiskFull, DiskSlow, Killed, LeaderCutOff, LeaderDeaf,
    LeaderMute, OneCutOff, PacketsLost, Paused, Replaced, SyncFails,
};

const OF_THE_NETWORK: [Fault; 5] = [LeaderCutOff, OneCutOff, LeaderMute, LeaderDeaf, PacketsLost];

const OF_A_PROCESS: [Fault; 8] = [
    Killed, AllKilled, Paused, DiskFull, SyncFails, DiskSlow, ClockJumps, ClockRuns,
];

/// Which come alone: what a person does, and would not begin while something else is broken.
const OF_MEMBERSHIP: [Fault; 1] = [Replaced];

/// In a hundred.
const LOSS: u8 = 20;

/// An election begins after 1.2 to 2.4 s without a leader.
const LEAST_HOLD_MS: u64 = 2_600;
const MOST_HOLD_MS: u64 = 4_500;

const CONTROLLERS: &str = "/apis/hive.dev/v1/controllers";

/// An object that every controller has.
const NAMESPACE: &str = "/api/v1/namespaces/default";

/// Between two looks for a proof.
const LOOK: Duration = Duration::from_millis(100);

/// What was not seen to happen by then did not.
const PROOF: Duration = Duration::from_secs(30);

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LeaderCutOff => "leader cut off",
            OneCutOff => "one cut off",
            LeaderMute => "leader not heard (one way)",
            LeaderDeaf => "leader hears nobody (one way)",
            PacketsLost => "20 % of packets lost",
            Killed => "kill -9",
            AllKilled => "kill -9 of all",
            Paused => "SIGSTOP",
            DiskFull => "disk full",
            SyncFails => "sync fails (EIO)",
            DiskSlow => "slow disk",
            ClockJumps => "clock jumps",
            ClockRuns => "clock runs fast",
            Replaced => "member replaced",
        })
    }
}

impl Fault {
    /// Those that this machine can make.
    pub fn all() -> Vec<Self> {
        let mut all = OF_THE_NETWORK.to_vec();
        all.extend(OF_A_PROCESS.into_iter().filter(|fault| fault.is_possible()));
        all.extend(OF_MEMBERSHIP);
        all
    }

    fn is_possible(self) -> bool {
        !matches!(self, ClockJumps | ClockRuns) || faketime().is_some()
    }
}

/// What is to be done at once, and for how long.
#[derive(Clone, Debug)]
pub struct Step {
    pub faults: Vec<Fault>,
    pub hold: Duration,
}

/// Steps from a seed; each fault is in one of `2 * all` steps or so. `first` is the fault that begins:
/// over several runs each gets its turn.
pub fn plan(seed: &mut Seed, first: usize, steps: usize) -> Vec<Step> {
    let all = Fault::all();
    let processes: Vec<Fault> = all
        .iter()
        .filter(|f| OF_A_PROCESS.contains(f))
        .copied()
        .collect();
    (0..steps)
        .map(|step| {
            let fault = match step {
                0 => all[first % all.len()],
                _ => *seed.pick(&all),
            };
            let mut faults = vec![fault];
            if OF_THE_NETWORK.contains(&fault) && seed.chance(50) {
                faults.push(*seed.pick(&processes));
            }
            let hold = Duration::from_millis(seed.between(LEAST_HOLD_MS, MOST_HOLD_MS));
            Step { faults, hold }
        })
        .collect()
}

/// A fault that is on.
#[derive(Debug)]
pub struct Active {
    pub fault: Fault,
    target: usize,
    /// Of what its proof counts, before.
    before: u64,
    /// Seconds that the clock is to be wrong by, at least, and which way.
    offset: i64,
    /// Of a replacement: the ids before and after it.
    ids: (u64, u64),
}

impl Active {
    /// Does it. `chosen`: the controller, where it is not the leader's turn by its nature.
    pub async fn start(fault: Fault, cluster: &mut Cluster, seed: &mut Seed) -> Self {
        let any = seed.below(cluster.nodes.len() as u64) as usize;
        let leader = cluster.leader().unwrap_or(any);
        let target = match fault {
            LeaderCutOff | LeaderMute | LeaderDeaf => leader,
            _ if seed.chance(60) => leader,
            _ => any,
        };
        let others = (0..cluster.nodes.len()).filter(|index| *index != target);
        let mut active = Self {
            fault,
            target,
            before: 0,
            offset: 0,
            ids: (0, 0),
        };
        let place = cluster.nodes[target].place();
        let others: Vec<usize> = others.map(|other| cluster.nodes[other].place()).collect();
        let node = &mut cluster.nodes[target];
        match fault {
            LeaderCutOff | OneCutOff => cluster.network.part(&[place]),
            LeaderMute => {
                for other in others {
                    cluster.network.drop(other, Drop::From(place));
                }
            }
            LeaderDeaf => {
                for other in others {
                    cluster.network.drop(place, Drop::From(other));
                }
            }
            PacketsLost => {
                for member in others.into_iter().chain([place]) {
                    cluster.network.drop(member, Drop::Share(LOSS));
                }
            }
            Killed => kill(cluster, &[target]).await,
            AllKilled => {
                let all: Vec<usize> = (0..cluster.nodes.len()).collect();
                kill(cluster, &all).await;
            }
            Paused => {
                if node.member.is_running() {
                    node.member.signal(Signal::STOP);
                }
            }
            DiskFull => node.disk.fill(),
            SyncFails => {
                active.before = node.levers.syncs_failed();
                node.levers.fail_syncs();
            }
            DiskSlow => {
                active.before = node.levers.syncs_slowed();
                let by = Duration::from_millis(seed.between(100, 600));
                node.levers.slow_syncs(by);
            }
            ClockJumps => {
                let seconds = seed.between(60, 3_600) as i64;
                active.offset = if seed.chance(50) { seconds } else { -seconds };
                node.levers.set_clock(&format!("{:+}", active.offset));
            }
            ClockRuns => {
                active.offset = 3;
                node.levers.set_clock("+0 x4.0");
            }
            Replaced => {
                let (old, new, status) = cluster.replace(target).await;
                assert!(status.success(), "controller {old} ended with {status}");
                active.ids = (old, new);
            }
        }
        active
    }

    /// Waits until it was seen to happen; the proof, or what was seen instead.
    pub async fn proof(&self, cluster: &mut Cluster) -> Result<String, String> {
        let end = Instant::now() + PROOF;
        loop {
            match self.seen(cluster).await {
                Err(_) if Instant::now() < end => tokio::time::sleep(LOOK).await,
                proof => return proof,
            }
        }
    }

    async fn seen(&self, cluster: &mut Cluster) -> Result<String, String> {
        let mut door = cluster.door(self.target);
        let node = &mut cluster.nodes[self.target];
        match self.fault {
            LeaderCutOff | OneCutOff | LeaderMute | LeaderDeaf | PacketsLost => {
                match cluster.network.dropped() {
                    0 => Err("no packet was dropped".to_owned()),
                    count => Ok(format!("{count} packets dropped")),
                }
            }
            Killed | AllKilled => match node.ended {
                Some(status) if status.signal() == Some(Signal::KILL.as_raw()) => {
                    Ok("ended by signal 9".to_owned())
                }
                other => Err(format!("ended with {other:?}")),
            },
            Paused => {
                let path = format!("/proc/{}/stat", node.member.pid());
                let stat = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
                match stat.contains(") T ") {
                    true => Ok("its state is T (stopped)".to_owned()),
                    false => Err(stat),
                }
            }
            DiskFull => {
                let free = node.disk.free();
                match node.member.is_running() {
                    false => Ok(format!("{free} bytes free, and it ended")),
                    true => Err(format!("{free} bytes free, and it runs")),
                }
            }
            SyncFails => {
                let count = node.levers.syncs_failed() - self.before;
                match node.member.is_running() {
                    false if count > 0 => Ok(format!("{count} syncs failed, and it ended")),
                    runs => Err(format!("{count} syncs failed, it runs: {runs}")),
                }
            }
            DiskSlow => match node.levers.syncs_slowed() - self.before {
                0 => Err("no sync took longer".to_owned()),
                count => Ok(format!("{count} syncs took longer")),
            },
            Replaced => {
                let (old, new) = self.ids;
                let list = door.get(CONTROLLERS).await?;
                let voters: Vec<&str> = list["items"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter(|controller| controller["status"]["voter"] == true)
                    .filter_map(|controller| controller["metadata"]["name"].as_str())
                    .collect();
                let is_in = |id: u64| voters.contains(&id.to_string().as_str());
                match voters.len() == cluster.nodes.len() && is_in(new) && !is_in(old) {
                    true => Ok(format!("controller {old} has ended, {new} votes")),
                    false => Err(format!("{voters:?} vote")),
                }
            }
            ClockJumps | ClockRuns => {
                // What it would write into an object that it has: one whose clock is far behind
                // takes the others' certificates for ones of the future, and reaches nobody. (The header
                // `Date` is kept for a second by that same clock: set back, it stands still.)
                let mut object = door.get(&format!("{NAMESPACE}?resourceVersion=0")).await?;
                object["metadata"]["labels"]["clock"] = json!("asked");
                let path = format!("{NAMESPACE}?dryRun=All&fieldManager=clock");
                let heard = door.ask(Method::PUT, &path, Some(&object), CALM).await;
                let Heard::Answer { body, .. } = &heard else {
                    return Err(format!("{heard:?}"));
                };
                let mut managers = body["metadata"]["managedFields"]
                    .as_array()
                    .into_iter()
                    .flatten();
                let own = managers.find(|entry| entry["manager"] == "clock");
                let stamp = own.and_then(|entry| entry["time"].as_str());
                let stamp = stamp.ok_or_else(|| format!("{heard:?}"))?;
                let told = must("date", &["-u", "-d", stamp, "+%s"]);
                let told: i64 = told.trim().parse().map_err(|_| told)?;
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
                let off = told - now.expect("it is after 1970").as_secs() as i64;
                // It goes on from where it was, and the answer took its time.
                let enough = self.offset.abs() / 2;
                match off.abs() >= enough && off.signum() == self.offset.signum() {
                    true => Ok(format!("its clock is off by {off} s")),
                    false => Err(format!("its clock is off by {off} s only")),
                }
            }
        }
    }

    /// Takes it away. What it ended is started again by [`Cluster::revive`].
    pub async fn end(self, cluster: &mut Cluster) {
        let node = &mut cluster.nodes[self.target];
        match self.fault {
            LeaderCutOff | OneCutOff | LeaderMute | LeaderDeaf | PacketsLost => {
                cluster.network.heal();
            }
            Killed | AllKilled | Replaced => {}
            Paused => {
                if node.member.is_running() {
                    node.member.signal(Signal::CONT);
                }
            }
            DiskFull => node.disk.empty(),
            SyncFails | DiskSlow => node.levers.heal_syncs(),
            ClockJumps | ClockRuns => node.levers.set_clock("+0"),
        }
    }
}

/// At the same time, as far as one can.
async fn kill(cluster: &mut Cluster, targets: &[usize]) {
    for target in targets {
        let member = &cluster.nodes[*target].member;
        member.signal(Signal::KILL);
    }
    for target in targets {
        let node = &mut cluster.nodes[*target];
        node.ended = Some(node.member.ended(PATIENCE).await);
    }
}
