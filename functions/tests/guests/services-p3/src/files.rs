//! Files, in the first directory that the host opened.

use wasip3::{
    filesystem::{
        preopens::get_directories,
        types::{Descriptor, DescriptorFlags, ErrorCode as FileError, OpenFlags, PathFlags},
    },
    wit_bindgen::rt::async_support::StreamReader,
    wit_stream,
};

use crate::query::{BadParameter, Query};

const KIB: usize = 1024;

/// The paths of what the host opened.
pub fn directories() -> Vec<String> {
    get_directories().into_iter().map(|it| it.1).collect()
}

/// What came of each step, a line each.
pub async fn steps(query: &Query) -> String {
    let mut lines = String::new();
    for step in query.texts("do") {
        let (_, step) = step.split_once('?').unwrap_or(("", &step));
        lines += &self::step(&Query::parse(step)).await;
    }
    lines
}

pub async fn step(query: &Query) -> String {
    let Some((directory, _)) = get_directories().into_iter().next() else {
        return "refused no directory is given\n".to_owned();
    };
    match done(&directory, query).await {
        Ok(Ok(line)) => format!("{line}\n"),
        Ok(Err(error)) => format!("refused {error:?}\n"),
        Err(bad) => format!("{bad}\n"),
    }
}

/// What came of it, or why the host refused.
type Outcome = Result<String, FileError>;

async fn done(directory: &Descriptor, query: &Query) -> Result<Outcome, BadParameter> {
    let path = query.required("path")?;
    let bytes = query.number("kib", 1)? * KIB;
    let to = || query.required("to");
    Ok(match query.required("how")?.as_str() {
        "open" => open_often(directory, &path, query.number("count", 1)?).await,
        "stream" => write(directory, &path, bytes, false).await,
        "append" => write(directory, &path, bytes, true).await,
        "size" => sized(directory, &path, bytes as u64).await,
        "read" => read(directory, &path).await,
        "symlink" => told("linked", directory.symlink_at(to()?, path).await),
        "link" => {
            let linked = directory.link_at(PathFlags::empty(), to()?, directory, path);
            told("linked", linked.await)
        }
        "rename" => told("renamed", directory.rename_at(path, directory, to()?).await),
        "directory" => told(
            "made a directory",
            directory.create_directory_at(path).await,
        ),
        "remove" => told("removed", directory.unlink_file_at(path).await),
        other => return Err(BadParameter(format!("how={other} is nothing to do"))),
    })
}

fn told(what: &str, outcome: Result<(), FileError>) -> Outcome {
    outcome.map(|()| what.to_owned())
}

async fn open(directory: &Descriptor, path: &str) -> Result<Descriptor, FileError> {
    let flags = DescriptorFlags::READ | DescriptorFlags::WRITE;
    directory
        .open_at(
            PathFlags::SYMLINK_FOLLOW,
            path.to_owned(),
            OpenFlags::CREATE,
            flags,
        )
        .await
}

async fn open_often(directory: &Descriptor, path: &str, count: u64) -> Outcome {
    let mut held = Vec::new();
    for opened in 0..count {
        match open(directory, path).await {
            Ok(file) => held.push(file),
            Err(error) => return Ok(format!("opened {opened} times, then {error:?}")),
        }
    }
    Ok(format!("opened {count} times"))
}

async fn write(directory: &Descriptor, path: &str, bytes: usize, appends: bool) -> Outcome {
    let file = open(directory, path).await?;
    let (mut writer, reader): (_, StreamReader<u8>) = wit_stream::new();
    let outcome = match appends {
        true => file.append_via_stream(reader),
        false => file.write_via_stream(reader, 0),
    };
    let rest = writer.write_all(vec![b'x'; bytes]).await;
    drop(writer);
    outcome.await?;
    Ok(format!("wrote {} bytes", bytes - rest.len()))
}

async fn sized(directory: &Descriptor, path: &str, bytes: u64) -> Outcome {
    open(directory, path).await?.set_size(bytes).await?;
    Ok(format!("made it {bytes} bytes"))
}

async fn read(directory: &Descriptor, path: &str) -> Outcome {
    let flags = (OpenFlags::empty(), DescriptorFlags::READ);
    let file = directory.open_at(PathFlags::SYMLINK_FOLLOW, path.to_owned(), flags.0, flags.1);
    let (reader, outcome) = file.await?.read_via_stream(0);
    let bytes = reader.collect().await;
    outcome.await?;
    Ok(format!("read {} bytes", bytes.len()))
}
