//! Which commands every controller of the swarm understands.
//!
//! A replica that skipped a command it does not know would hold another state than the others, so
//! it stops instead. To spare it that, a command is proposed only once all members have said that
//! they know its level, and the swarm has agreed on that with [`Command::RaiseLevel`]. Pure.

use hive_manifests::Resource;

use super::{Command, Member};

/// What the first release knows; of a member that announces nothing.
pub const FIRST: u32 = 1;

/// What this program knows. Raised with each new [`Command`], and with each new meaning of one.
/// 2: admission by device key, raising the level.
/// 3: nothing is created in a namespace that is not there; requests for certificates, a kind that
/// those before cannot read.
/// 4: several commands in one entry.
/// 5: revisions of functions, a kind that those before cannot read.
/// 6: what functions used is metered; fields of functions and assignments that those before refuse.
/// 7: artifacts that one controller puts on another come compressed.
/// 8: tunnels, a kind that those before cannot read.
/// 9: further fields of tunnels, and those of UDP; where controllers take TLS.
pub const OWN: u32 = 9;

/// From here on the namespace of what is created must exist.
pub const NAMESPACES: u32 = 3;

/// From here on commands may come in a batch.
pub const BATCHES: u32 = 4;

/// From here on what a function was is kept in revisions.
pub const REVISIONS: u32 = 5;

/// From here on what functions used is metered, and objects may have the fields of that release.
pub const METERING: u32 = 6;

/// From here on every controller takes artifacts compressed.
pub const COMPRESSED_PUTS: u32 = 7;

/// From here on there are tunnels.
pub const TUNNELS: u32 = 8;

/// From here on tunnels have the fields of the second release with them, or are of UDP, and members say where they take TLS.
pub const TUNNEL_FIELDS: u32 = 9;

/// From which level on every member reads objects of that kind.
pub fn of_kind(resource: Resource) -> u32 {
    match resource {
        Resource::CertificateSigningRequest => 3,
        Resource::ControllerRevision => REVISIONS,
        Resource::Tunnel => TUNNELS,
        _ => FIRST,
    }
}

/// From which level on every member reads all of this one.
fn of_member(member: &Member) -> u32 {
    match member.ingress_tls {
        Some(_) => TUNNEL_FIELDS,
        None => FIRST,
    }
}

impl Command {
    /// The level from which on every member understands this command.
    pub fn level(&self) -> u32 {
        match self {
            Self::Create { key, .. } | Self::Replace { key, .. } | Self::Delete { key, .. } => {
                of_kind(key.resource)
            }
            Self::AdmitController { member } | Self::MoveController { member, .. } => {
                of_member(member)
            }
            Self::RegisterArtifact { .. }
            | Self::ForgetArtifact { .. }
            | Self::RemoveController { .. } => FIRST,
            Self::AdmitDevice { member, .. } => of_member(member).max(2),
            Self::Meter { .. } => METERING,
            // What it raises to is known to all by then: it may be the first of its level.
            Self::RaiseLevel { to } => *to,
            Self::Batch { commands } => {
                let levels = commands.iter().map(Self::level);
                levels.max().unwrap_or_default().max(BATCHES)
            }
        }
    }
}

/// The level to raise the swarm to, if there is one. `announced` are the members' levels; of a
/// member that was not heard of yet it is `None`, and nothing is raised before it was.
pub fn raise(agreed: u32, announced: impl IntoIterator<Item = Option<u32>>) -> Option<u32> {
    let lowest = announced
        .into_iter()
        .try_fold(OWN, |lowest, level| Some(lowest.min(level?)))?;
    (lowest > agreed).then_some(lowest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_swarm_is_raised_to_what_its_oldest_member_knows() {
        type Case<'a> = (u32, &'a [Option<u32>], Option<u32>);
        let cases: &[Case] = &[
            (1, &[Some(2), Some(2), Some(2)], Some(2)),
            (1, &[Some(2), Some(1), Some(2)], None),
            (1, &[Some(2), None, Some(2)], None),
            (2, &[Some(2), Some(2)], None),
            // A newer member does not pull this program beyond what it knows itself.
            (1, &[Some(OWN + 1), Some(OWN + 1)], Some(OWN)),
            // Nothing is ever lowered.
            (2, &[Some(1)], None),
        ];
        for (agreed, announced, expected) in cases {
            let found = raise(*agreed, announced.iter().copied());
            assert_eq!(found, *expected, "{agreed} {announced:?}");
        }
    }
}
