//! The few calls that depend on the operating system, so that a port has one file to look at.
//! Figures about the machine are in `resources`.

use std::io;
use std::path::Path;
use std::time::Duration;

/// Makes names that were created, renamed or removed in `dir` survive a power cut.
#[cfg(unix)]
pub fn sync_directory(dir: &Path) -> io::Result<()> {
    std::fs::File::open(dir)?.sync_all()
}

#[cfg(not(unix))]
pub fn sync_directory(_dir: &Path) -> io::Result<()> {
    Ok(())
}

/// Space on the file system of a directory, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Space {
    pub total: u64,
    /// What an unprivileged process may still write.
    pub free: u64,
}

#[cfg(unix)]
pub fn space(dir: &Path) -> io::Result<Space> {
    let stat = rustix::fs::statvfs(dir)?;
    Ok(Space {
        total: stat.f_blocks.saturating_mul(stat.f_frsize),
        free: stat.f_bavail.saturating_mul(stat.f_frsize),
    })
}

#[cfg(not(unix))]
pub fn space(_dir: &Path) -> io::Result<Space> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Lets the process have as many files open as it may: a shell's usual 1024 are few for a node.
#[cfg(unix)]
pub fn raise_open_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Refused, it runs with what it has.
    _ = setrlimit(Resource::Nofile, limit);
}

#[cfg(not(unix))]
pub fn raise_open_files() {}

/// Lets the system ask after a peer from which nothing was heard for so long.
#[cfg(unix)]
pub fn keep_alive(connection: &tokio::net::TcpStream, after: Duration) {
    // A peer that vanishes is noticed later without it: no reason to refuse the connection.
    let _ = rustix::net::sockopt::set_socket_keepalive(connection, true);
    let _ = rustix::net::sockopt::set_tcp_keepidle(connection, after);
}

#[cfg(not(unix))]
pub fn keep_alive(_connection: &tokio::net::TcpStream, _after: Duration) {}

/// Makes a directory that only its owner can enter, with its parents.
pub fn create_private_dir(dir: &Path) -> io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir)
}

#[cfg(unix)]
pub fn hostname() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

#[cfg(not(unix))]
pub fn hostname() -> String {
    std::env::var("COMPUTERNAME").unwrap_or_default()
}

/// Name and version of the kernel, as in `6.1.0-18-arm64`.
#[cfg(unix)]
pub fn kernel() -> String {
    rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned()
}

#[cfg(not(unix))]
pub fn kernel() -> String {
    String::new()
}
