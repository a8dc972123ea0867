//! The calls of `wasi:filesystem` 0.3 that take room in a directory.

use std::{
    fs::File,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context as Polling, Poll, ready},
};

use tokio::{
    sync::{Mutex, oneshot},
    task::JoinHandle,
};
use wasmtime::{
    StoreContextMut,
    component::{
        Accessor, FutureReader, Linker, Resource, Source, StreamConsumer, StreamReader,
        StreamResult,
    },
};
use wasmtime_wasi::{
    filesystem::{Descriptor, WasiFilesystem, WasiFilesystemView},
    p3::{
        bindings::filesystem::types::{
            DescriptorFlags, ErrorCode, HostDescriptorWithStore, OpenFlags, PathFlags,
        },
        filesystem::FilesystemResult,
    },
};

use super::{
    Holding,
    quota::{At, Held, Quota},
    within, writable,
};
use crate::guest::Guest;

/// What is taken of a stream at once, as by wasmtime's own.
const STREAM_BYTES: usize = 8 << 10;

type Context<'a> = StoreContextMut<'a, Guest>;
type Fd = Resource<Descriptor>;
type Done = Result<(), ErrorCode>;

pub(super) fn link(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    // By the name that wasmtime links it under.
    let mut types = linker.instance("wasi:filesystem/types@0.3.0")?;
    types.func_wrap_concurrent(
        "[method]descriptor.open-at",
        |guests: &Accessor<Guest>,
         (fd, follow, path, how, flags): (Fd, PathFlags, String, OpenFlags, DescriptorFlags)| {
            Box::pin(async move {
                answer(open(guests, fd, follow, path, how, flags).await)
            })
        },
    )?;
    types.func_wrap_concurrent(
        "[method]descriptor.create-directory-at",
        |guests: &Accessor<Guest>, (fd, path): (Fd, String)| {
            Box::pin(async move {
                answer(
                    async {
                        let _held = Holding::with(quota(guests), Held::DIRECTORY).await?;
                        WasiFilesystem::create_directory_at(&files(guests), fd, path).await
                    }
                    .await,
                )
            })
        },
    )?;
    types.func_wrap_concurrent(
        "[method]descriptor.symlink-at",
        |guests: &Accessor<Guest>, (fd, target, path): (Fd, String, String)| {
            Box::pin(async move {
                answer(
                    async {
                        let _held = Holding::with(quota(guests), Held::ENTRY).await?;
                        WasiFilesystem::symlink_at(&files(guests), fd, target, path).await
                    }
                    .await,
                )
            })
        },
    )?;
    types.func_wrap_concurrent(
        "[method]descriptor.link-at",
        |guests: &Accessor<Guest>,
         (fd, follow, old, to, new): (Fd, PathFlags, String, Fd, String)| {
            Box::pin(async move {
                answer(
                    async {
                        let _held = Holding::with(quota(guests), Held::ENTRY).await?;
                        WasiFilesystem::link_at(&files(guests), fd, follow, old, to, new).await
                    }
                    .await,
                )
            })
        },
    )?;
    types.func_wrap_concurrent(
        "[method]descriptor.rename-at",
        |guests: &Accessor<Guest>, (fd, old, to, new): (Fd, String, Fd, String)| {
            Box::pin(async move {
                answer(
                    async {
                        // No room, but who measures meanwhile could miss it.
                        let _held = Holding::of(quota(guests)).await;
                        WasiFilesystem::rename_at(&files(guests), fd, old, to, new).await
                    }
                    .await,
                )
            })
        },
    )?;
    types.func_wrap_concurrent(
        "[method]descriptor.set-size",
        |guests: &Accessor<Guest>, (fd, size): (Fd, u64)| {
            Box::pin(async move {
                let to_do = guests.with(|mut guest| writable(guest.data_mut(), &fd));
                answer(
                    async {
                        let (file, quota) = to_do?.ok_or(ErrorCode::BadDescriptor)?;
                        Ok(within(quota, move |quota| quota.set_size(&file, size)).await?)
                    }
                    .await,
                )
            })
        },
    )?;
    types.func_wrap(
        "[method]descriptor.write-via-stream",
        |guest: Context<'_>, (fd, data, offset): (Fd, StreamReader<u8>, u64)| {
            pipe(guest, &fd, data, At::Offset(offset))
        },
    )?;
    types.func_wrap(
        "[method]descriptor.append-via-stream",
        |guest: Context<'_>, (fd, data): (Fd, StreamReader<u8>)| pipe(guest, &fd, data, At::End),
    )
}

/// An error is the guest's, unless it must be stopped for it.
fn answer<T>(outcome: FilesystemResult<T>) -> wasmtime::Result<(Result<T, ErrorCode>,)> {
    match outcome {
        Ok(value) => Ok((Ok(value),)),
        Err(error) => Ok((Err(error.downcast()?),)),
    }
}

fn quota(guests: &Accessor<Guest>) -> Option<Arc<Mutex<Quota>>> {
    guests.with(|mut guest| guest.data_mut().quota())
}

fn files(guests: &Accessor<Guest>) -> Accessor<Guest, WasiFilesystem> {
    guests.with_getter::<WasiFilesystem>(|guest| guest.filesystem())
}

async fn open(
    guests: &Accessor<Guest>,
    fd: Fd,
    follow: PathFlags,
    path: String,
    how: OpenFlags,
    flags: DescriptorFlags,
) -> FilesystemResult<Fd> {
    let (mut holding, files) = (Holding::opening(quota(guests)).await?, files(guests));
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
            WasiFilesystem::open_at(&files, fd, follow, path, how, flags).await
        }
    };
    let opened = match found {
        Err(error) if creates && matches!(error.downcast_ref(), Some(ErrorCode::NoEntry)) => {
            holding = holding.count(Held::ENTRY).await?;
            WasiFilesystem::open_at(&files, fd, follow, path, how, flags).await?
        }
        found => found?,
    };
    guests.with(|mut guest| -> FilesystemResult<()> {
        holding.opened(guest.data_mut().table.get(&opened)?);
        Ok(())
    })?;
    Ok(opened)
}

fn pipe(
    mut guest: Context<'_>,
    fd: &Fd,
    mut data: StreamReader<u8>,
    at: At,
) -> wasmtime::Result<(FutureReader<Done>,)> {
    let (done, outcome) = oneshot::channel();
    match writable(guest.data(), fd)? {
        Some((file, quota)) => {
            let writer = Writer {
                file,
                quota,
                at,
                done: Some(done),
                writing: None,
            };
            data.pipe(&mut guest, writer)?;
        }
        None => {
            data.close(&mut guest)?;
            // The guest may have dropped the other end.
            _ = done.send(Err(ErrorCode::BadDescriptor));
        }
    }
    Ok((FutureReader::new(guest, outcome)?,))
}

/// Writes a guest's stream to a file, a piece at a time.
struct Writer {
    file: Arc<File>,
    quota: Arc<Mutex<Quota>>,
    at: At,
    /// None once it was told how it ended.
    done: Option<oneshot::Sender<Done>>,
    /// The piece that is being written, and how many bytes it has.
    writing: Option<(JoinHandle<io::Result<()>>, usize)>,
}

impl Writer {
    fn tell(&mut self, outcome: Done) {
        if let Some(done) = self.done.take() {
            // The guest may have dropped the other end.
            _ = done.send(outcome);
        }
    }
}

impl<D> StreamConsumer<D> for Writer {
    type Item = u8;

    /// What has begun to be written is waited for, even if the guest gives up: it is in the file.
    fn poll_consume(
        mut self: Pin<&mut Self>,
        polling: &mut Polling<'_>,
        store: StoreContextMut<'_, D>,
        source: Source<'_, u8>,
        _finish: bool,
    ) -> Poll<wasmtime::Result<StreamResult>> {
        let writer = &mut *self;
        let mut source = source.as_direct(store);
        let (task, length) = writer.writing.get_or_insert_with(|| {
            let bytes = source.remaining();
            let bytes = bytes[..bytes.len().min(STREAM_BYTES)].to_vec();
            let (file, quota, at) = (writer.file.clone(), writer.quota.clone(), writer.at);
            let length = bytes.len();
            let writing = within(quota, move |quota| quota.write_all(&file, &bytes, at));
            (tokio::spawn(writing), length)
        });
        let length = *length;
        let written = ready!(Pin::new(task).poll(polling));
        writer.writing = None;
        match written.unwrap_or_else(|error| Err(error.into())) {
            Ok(()) => {
                source.mark_read(length);
                if let At::Offset(offset) = &mut writer.at {
                    *offset += length as u64;
                }
                Poll::Ready(Ok(StreamResult::Completed))
            }
            Err(error) => {
                writer.tell(Err(error.into()));
                Poll::Ready(Ok(StreamResult::Dropped))
            }
        }
    }
}

impl Drop for Writer {
    /// Nothing more comes.
    fn drop(&mut self) {
        self.tell(Ok(()));
    }
}
