//! The calls of `wasi:filesystem` 0.2 that take room in a directory.

use std::{fs::File, io, mem, sync::Arc};

use bytes::Bytes;
use tokio::{sync::Mutex, task::JoinHandle};
use wasmtime::{
    StoreContextMut,
    component::{Linker, Resource},
};
use wasmtime_wasi::{
    async_trait,
    filesystem::{Descriptor, WasiFilesystemView},
    p2::{
        DynOutputStream, FsResult, OutputStream, Pollable, StreamError, StreamResult,
        bindings::filesystem::types::{
            DescriptorFlags, ErrorCode, HostDescriptor, OpenFlags, PathFlags,
        },
    },
};

use super::{
    Counted, Holding,
    quota::{At, Held, Quota},
    within,
};
use crate::guest::Guest;

/// What a stream takes at once, as wasmtime's own do.
const STREAM_BYTES: usize = 64 << 10;

type Context<'a> = StoreContextMut<'a, Guest>;
type Fd = Resource<Descriptor>;

pub(super) fn link(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    // By the name that wasmtime links it under.
    let mut types = linker.instance("wasi:filesystem/types@0.2.12")?;
    types.func_wrap_async(
        "[method]descriptor.open-at",
        |mut guest: Context<'_>,
         (fd, follow, path, how, flags): (Fd, PathFlags, String, OpenFlags, DescriptorFlags)| {
            Box::new(async move {
                let guest = guest.data_mut();
                answer(open(guest, fd, follow, path, how, flags).await)
            })
        },
    )?;
    types.func_wrap_async(
        "[method]descriptor.create-directory-at",
        |mut guest: Context<'_>, (fd, path): (Fd, String)| {
            Box::new(async move {
                let guest = guest.data_mut();
                answer(
                    async {
                        let _held = Holding::with(guest.quota(), Held::DIRECTORY).await?;
                        guest.filesystem().create_directory_at(fd, path).await
                    }
                    .await,
                )
            })
        },
    )?;
    types.func_wrap_async(
        "[method]descriptor.symlink-at",
        |mut guest: Context<'_>, (fd, target, path): (Fd, String, String)| {
            Box::new(async move {
                let guest = guest.data_mut();
                answer(
                    async {
                        let _held = Holding::with(guest.quota(), Held::ENTRY).await?;
                        guest.filesystem().symlink_at(fd, target, path).await
                    }
                    .await,
                )
            })
        },
    )?;
    types.func_wrap_async(
        "[method]descriptor.link-at",
        |mut guest: Context<'_>,
         (fd, follow, old, to, new): (Fd, PathFlags, String, Fd, String)| {
            Box::new(async move {
                let guest = guest.data_mut();
                answer(
                    async {
                        let _held = Holding::with(guest.quota(), Held::ENTRY).await?;
                        let mut files = guest.filesystem();
                        files.link_at(fd, follow, old, to, new).await
                    }
                    .await,
                )
            })
        },
    )?;
    types.func_wrap_async(
        "[method]descriptor.rename-at",
        |mut guest: Context<'_>, (fd, old, to, new): (Fd, String, Fd, String)| {
            Box::new(async move {
                let guest = guest.data_mut();
                answer(
                    async {
                        // No room, but who measures meanwhile could miss it.
                        let _held = Holding::of(guest.quota()).await;
                        guest.filesystem().rename_at(fd, old, to, new).await
                    }
                    .await,
                )
            })
        },
    )?;
    types.func_wrap_async(
        "[method]descriptor.set-size",
        |guest: Context<'_>, (fd, size): (Fd, u64)| {
            Box::new(async move {
                let to_do = writable(guest.data(), &fd);
                answer(
                    async {
                        let (file, quota) = to_do?;
                        Ok(within(quota, move |quota| quota.set_size(&file, size)).await?)
                    }
                    .await,
                )
            })
        },
    )?;
    types.func_wrap_async(
        "[method]descriptor.write",
        |guest: Context<'_>, (fd, bytes, offset): (Fd, Vec<u8>, u64)| {
            Box::new(async move {
                let to_do = writable(guest.data(), &fd);
                answer(
                    async {
                        let (file, quota) = to_do?;
                        let at = At::Offset(offset);
                        let written =
                            within(quota, move |quota| quota.write(&file, &bytes, at)).await?;
                        Ok(written as u64)
                    }
                    .await,
                )
            })
        },
    )?;
    types.func_wrap(
        "[method]descriptor.write-via-stream",
        |mut guest: Context<'_>, (fd, offset): (Fd, u64)| {
            answer(stream(guest.data_mut(), &fd, At::Offset(offset)))
        },
    )?;
    types.func_wrap(
        "[method]descriptor.append-via-stream",
        |mut guest: Context<'_>, (fd,): (Fd,)| answer(stream(guest.data_mut(), &fd, At::End)),
    )
}

/// An error is the guest's, unless it must be stopped for it.
fn answer<T>(outcome: FsResult<T>) -> wasmtime::Result<(Result<T, ErrorCode>,)> {
    match outcome {
        Ok(value) => Ok((Ok(value),)),
        Err(error) => Ok((Err(error.downcast()?),)),
    }
}

async fn open(
    guest: &mut Guest,
    fd: Fd,
    follow: PathFlags,
    path: String,
    how: OpenFlags,
    flags: DescriptorFlags,
) -> FsResult<Fd> {
    let mut holding = Holding::opening(guest.quota()).await?;
    let creates = how.contains(OpenFlags::CREATE);
    // What is there already takes no more room.
    let found = match creates && how.contains(OpenFlags::EXCLUSIVE) {
        true => Err(ErrorCode::NoEntry.into()),
        false => {
            let (fd, path, how) = (
                Fd::new_borrow(fd.rep()),
                path.clone(),
                how & !OpenFlags::CREATE,
            );
            let mut files = guest.filesystem();
            files.open_at(fd, follow, path, how, flags).await
        }
    };
    let opened = match found {
        Err(error) if creates && matches!(error.downcast_ref(), Some(ErrorCode::NoEntry)) => {
            holding = holding.count(Held::ENTRY).await?;
            let mut files = guest.filesystem();
            files.open_at(fd, follow, path, how, flags).await?
        }
        found => found?,
    };
    holding.opened(guest.table.get(&opened)?);
    Ok(opened)
}

fn writable(guest: &Guest, fd: &Fd) -> FsResult<Counted> {
    Ok(super::writable(guest, fd)?.ok_or(ErrorCode::BadDescriptor)?)
}

fn stream(guest: &mut Guest, fd: &Fd, at: At) -> FsResult<Resource<DynOutputStream>> {
    let (file, quota) = writable(guest, fd)?;
    let stream: DynOutputStream = Box::new(FileStream {
        file,
        quota,
        at,
        state: State::Ready,
    });
    Ok(guest.table.push(stream)?)
}

/// Writes to a file behind the guest, a piece at a time.
struct FileStream {
    file: Arc<File>,
    quota: Arc<Mutex<Quota>>,
    at: At,
    state: State,
}

enum State {
    Ready,
    Writing(JoinHandle<io::Result<()>>),
    Failed(io::Error),
    Closed,
}

impl FileStream {
    /// An error is told once, and then it is closed.
    fn check(&mut self) -> StreamResult<()> {
        match mem::replace(&mut self.state, State::Closed) {
            State::Failed(error) => Err(StreamError::LastOperationFailed(error.into())),
            State::Closed => Err(StreamError::Closed),
            well => {
                self.state = well;
                Ok(())
            }
        }
    }
}

#[async_trait]
impl Pollable for FileStream {
    async fn ready(&mut self) {
        if let State::Writing(task) = &mut self.state {
            self.state = match task.await.unwrap_or_else(|error| Err(error.into())) {
                Ok(()) => State::Ready,
                Err(error) => State::Failed(error),
            };
        }
    }
}

#[async_trait]
impl OutputStream for FileStream {
    fn check_write(&mut self) -> StreamResult<usize> {
        self.check()?;
        Ok(match self.state {
            State::Ready => STREAM_BYTES,
            _ => 0,
        })
    }

    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.check()?;
        if !matches!(self.state, State::Ready) {
            return Err(StreamError::trap("written to without asking before"));
        }
        let (file, quota, at) = (self.file.clone(), self.quota.clone(), self.at);
        if let At::Offset(offset) = &mut self.at {
            // A write that far fails, and the stream with it.
            *offset = offset.saturating_add(bytes.len() as u64);
        }
        self.state = State::Writing(tokio::spawn(within(quota, move |quota| {
            quota.write_all(&file, &bytes, at)
        })));
        Ok(())
    }

    /// Nothing is kept back.
    fn flush(&mut self) -> StreamResult<()> {
        self.check()
    }

    /// Waits for what was written: a guest must not have more under way than it has streams.
    async fn cancel(&mut self) {
        self.ready().await;
        self.state = State::Closed;
    }
}
