//! Flags of the audit log.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;

use crate::audit::{AuditOptions, OnFailure, Policy, Rotation};

/// The record of who did what through the API.
#[derive(Debug, Clone, Args)]
pub struct AuditArgs {
    /// Where the audit log goes [default: audit/audit.log in the data directory]
    #[arg(long, value_name = "FILE")]
    pub audit_log_path: Option<PathBuf>,
    /// What is recorded: a Policy of audit.k8s.io/v1 with levels None, Metadata and Request
    /// [default: writes, and whatever touches secrets, as Metadata]
    #[arg(long, value_name = "FILE")]
    pub audit_policy_file: Option<PathBuf>,
    /// Megabytes after which the audit log is put aside
    #[arg(long, value_name = "MB", default_value_t = 32, value_parser = clap::value_parser!(u64).range(1..=4096))]
    pub audit_log_maxsize: u64,
    /// Audit logs kept beside the current one
    #[arg(long, value_name = "N", default_value_t = 7)]
    pub audit_log_maxbackup: usize,
    /// What happens to requests while the audit log cannot be written
    #[arg(long, value_enum, default_value_t = OnFailure::Continue)]
    pub audit_on_failure: OnFailure,
}

impl AuditArgs {
    pub fn options(&self, otherwise: PathBuf) -> anyhow::Result<AuditOptions> {
        let policy = match &self.audit_policy_file {
            None => Policy::default(),
            Some(file) => std::fs::read_to_string(file)
                .map_err(anyhow::Error::new)
                .and_then(|text| Ok(Policy::parse(&text)?))
                .with_context(|| format!("--audit-policy-file {}", file.display()))?,
        };
        Ok(AuditOptions {
            path: self.audit_log_path.clone().unwrap_or(otherwise),
            rotation: Rotation {
                max_bytes: self.audit_log_maxsize << 20,
                keep: self.audit_log_maxbackup,
            },
            policy,
            on_failure: self.audit_on_failure,
        })
    }
}
