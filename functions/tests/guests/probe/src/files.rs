//! Files, through the standard library as programs do and through WASI itself, which passes a path
//! on as it is: what is refused there was refused by the host.

use std::{fs, io::Write, mem};

use wasip2::filesystem::{
    preopens::get_directories,
    types::{Descriptor, DescriptorFlags, ErrorCode, OpenFlags, PathFlags},
};

const KIB: usize = 1024;

pub enum Deed {
    Read { path: String },
    Write { path: String, text: String },
    List { path: String },
    Directories,
    At { path: String, how: How },
}

/// What is done with a path in the first directory that the host opened.
pub enum How {
    /// So often at once.
    Open {
        count: u64,
    },
    Write {
        kib: usize,
    },
    Stream {
        kib: usize,
    },
    Append {
        kib: usize,
    },
    Size {
        kib: usize,
    },
    Symlink {
        to: String,
    },
    Link {
        to: String,
    },
    Directory,
    Remove,
    Rename {
        to: String,
    },
    Read,
    /// Removed, and written to all the same: it stays open, and has no name.
    Hide {
        kib: usize,
    },
}

impl Deed {
    /// What came of it, as text.
    pub fn done(self) -> Result<String, String> {
        let failed = |error: std::io::Error| error.to_string();
        match self {
            Self::Read { path } => {
                let bytes = fs::read(path).map_err(failed)?;
                Ok(format!("opened {} bytes", bytes.len()))
            }
            Self::Write { path, text } => {
                fs::write(path, &text).map_err(failed)?;
                Ok(format!("wrote {} bytes", text.len()))
            }
            Self::List { path } => {
                let mut names = Vec::new();
                for entry in fs::read_dir(path).map_err(failed)? {
                    names.push(entry.map_err(failed)?.file_name());
                }
                names.sort();
                Ok(format!("listed {names:?}"))
            }
            Self::Directories => {
                let paths: Vec<_> = get_directories().into_iter().map(|it| it.1).collect();
                Ok(format!("given {paths:?}"))
            }
            Self::At { path, how } => {
                let (directory, _) = get_directories()
                    .into_iter()
                    .next()
                    .ok_or("no directory is given")?;
                how.done(&directory, &path)
            }
        }
    }
}

/// What came of each, a line each.
pub fn all(deeds: Vec<Deed>) -> String {
    let line = |deed: Deed| match deed.done() {
        Ok(done) => format!("{done}\n"),
        Err(error) => format!("refused {error}\n"),
    };
    deeds.into_iter().map(line).collect()
}

impl How {
    fn done(self, directory: &Descriptor, path: &str) -> Result<String, String> {
        let failed = |error: ErrorCode| error.name().to_owned();
        let open = || {
            directory
                .open_at(
                    PathFlags::SYMLINK_FOLLOW,
                    path,
                    OpenFlags::CREATE,
                    DescriptorFlags::READ | DescriptorFlags::WRITE,
                )
                .map_err(failed)
        };
        match self {
            Self::Open { count } => {
                let mut held = Vec::new();
                for opened in 0..count {
                    held.push(open().map_err(|error| format!("after {opened}: {error}"))?);
                }
                Ok(format!("opened {count} times"))
            }
            Self::Write { kib } => written(&open()?, kib),
            Self::Stream { kib } => {
                let file = open()?;
                streamed(file.write_via_stream(0).map_err(failed)?, kib)
            }
            Self::Append { kib } => {
                let file = open()?;
                streamed(file.append_via_stream().map_err(failed)?, kib)
            }
            Self::Size { kib } => {
                let bytes = kib * KIB;
                open()?.set_size(bytes as u64).map_err(failed)?;
                Ok(format!("made it {bytes} bytes"))
            }
            Self::Symlink { to } => {
                directory.symlink_at(&to, path).map_err(failed)?;
                Ok("linked".to_owned())
            }
            Self::Link { to } => {
                directory
                    .link_at(PathFlags::empty(), &to, directory, path)
                    .map_err(failed)?;
                Ok("linked".to_owned())
            }
            Self::Directory => {
                directory.create_directory_at(path).map_err(failed)?;
                Ok("made a directory".to_owned())
            }
            Self::Remove => {
                directory.unlink_file_at(path).map_err(failed)?;
                Ok("removed".to_owned())
            }
            Self::Rename { to } => {
                directory.rename_at(path, directory, &to).map_err(failed)?;
                Ok("renamed".to_owned())
            }
            Self::Read => {
                let flags = (OpenFlags::empty(), DescriptorFlags::READ);
                let file = directory.open_at(PathFlags::SYMLINK_FOLLOW, path, flags.0, flags.1);
                let (bytes, _) = file.map_err(failed)?.read(u64::MAX, 0).map_err(failed)?;
                Ok(format!("read {} bytes", bytes.len()))
            }
            Self::Hide { kib } => {
                let file = open()?;
                directory.unlink_file_at(path).map_err(failed)?;
                let written = written(&file, kib);
                mem::forget(file);
                written
            }
        }
    }
}

fn written(file: &Descriptor, kib: usize) -> Result<String, String> {
    let bytes = vec![b'x'; kib * KIB];
    let mut written = 0;
    while written < bytes.len() {
        let more = file.write(&bytes[written..], written as u64);
        let more = more.map_err(|error| format!("after {written} bytes: {}", error.name()))?;
        written += more as usize;
    }
    Ok(format!("wrote {written} bytes"))
}

fn streamed(mut stream: impl Write, kib: usize) -> Result<String, String> {
    let block = [b'x'; KIB];
    for written in 0..kib {
        let failed = |error| format!("after {written} KiB: {error}");
        stream.write_all(&block).map_err(failed)?;
        stream.flush().map_err(failed)?;
    }
    Ok(format!("wrote {} bytes", kib * KIB))
}
