//! What `probe` does with files, by the calls of WASI 0.3: `files3 <what> [argument...]`.
//!
//! The answers are the same, so that one table of cases fits both. No library translates paths here: the longest preopened
//! directory that a path begins with is the one it is looked up in.

use wasip3::cli::{environment, stdout};
use wasip3::filesystem::preopens;
use wasip3::filesystem::types::{Descriptor, DescriptorFlags, ErrorCode, OpenFlags, PathFlags};
use wasip3::wit_stream;

wasip3::cli::command::export!(Files);

struct Files;

impl wasip3::exports::cli::run::Guest for Files {
    async fn run() -> Result<(), ()> {
        let args = environment::get_arguments();
        let args: Vec<&str> = args.iter().skip(1).map(String::as_str).collect();
        let (text, outcome) = match carry_out(&args).await {
            Ok(text) => (text, Ok(())),
            Err(code) => (format!("error: {}", kind(&code)), Err(())),
        };
        say(&text).await;
        outcome
    }
}

async fn say(text: &str) {
    let (mut writer, reader) = wit_stream::new();
    let text = format!("{text}\n").into_bytes();
    let written = stdout::write_via_stream(reader);
    writer.write_all(text).await;
    drop(writer);
    let _outcome = written.await;
}

async fn carry_out(args: &[&str]) -> Result<String, ErrorCode> {
    let none = DescriptorFlags::empty();
    match args {
        ["cwd"] => Ok(environment::get_initial_cwd().unwrap_or_else(|| "none".to_owned())),
        ["read", path] => {
            let file = open(path, OpenFlags::empty(), DescriptorFlags::READ).await?;
            read(&file).await
        }
        ["write", path, text] => {
            let how = OpenFlags::CREATE | OpenFlags::TRUNCATE;
            let file = open(path, how, DescriptorFlags::WRITE).await?;
            write(&file, text, |file, data| file.write_via_stream(data, 0)).await?;
            Ok("written".to_owned())
        }
        ["append", path, text] => {
            let file = open(path, OpenFlags::empty(), DescriptorFlags::WRITE).await?;
            write(&file, text, Descriptor::append_via_stream).await?;
            Ok("appended".to_owned())
        }
        ["truncate", path] => {
            open(path, OpenFlags::TRUNCATE, DescriptorFlags::WRITE).await?;
            Ok("truncated".to_owned())
        }
        ["mkdir", path] => {
            let (dir, path) = place(path)?;
            dir.create_directory_at(path).await?;
            Ok("made".to_owned())
        }
        ["rmdir", path] => {
            let (dir, path) = place(path)?;
            dir.remove_directory_at(path).await?;
            Ok("removed".to_owned())
        }
        ["remove", path] => {
            let (dir, path) = place(path)?;
            dir.unlink_file_at(path).await?;
            Ok("removed".to_owned())
        }
        ["rename", from, to] => {
            let ((dir, path), (to_dir, to)) = (place(from)?, place(to)?);
            dir.rename_at(path, &to_dir, to).await?;
            Ok("renamed".to_owned())
        }
        ["link", from, to] => {
            let ((dir, path), (to_dir, to)) = (place(from)?, place(to)?);
            dir.link_at(PathFlags::empty(), path, &to_dir, to).await?;
            Ok("linked".to_owned())
        }
        ["symlink", target, at] => {
            let (dir, path) = place(at)?;
            dir.symlink_at((*target).to_owned(), path).await?;
            let file = open(at, OpenFlags::empty(), DescriptorFlags::READ).await?;
            read(&file).await
        }
        ["readlink", path] => {
            let (dir, path) = place(path)?;
            dir.readlink_at(path).await
        }
        ["size", path] => {
            let (dir, path) = place(path)?;
            let stat = dir.stat_at(PathFlags::SYMLINK_FOLLOW, path).await?;
            Ok(stat.size.to_string())
        }
        ["list", path] => {
            let dir = open(path, OpenFlags::DIRECTORY, DescriptorFlags::READ).await?;
            let (mut entries, outcome) = dir.read_directory();
            let mut names = Vec::new();
            while let Some(entry) = entries.next().await {
                names.push(entry.name);
            }
            outcome.await?;
            names.sort();
            Ok(names.join(","))
        }
        ["same", a, b] => {
            let a = open(a, OpenFlags::empty(), none).await?;
            let b = open(b, OpenFlags::empty(), none).await?;
            Ok(a.is_same_object(&b).await.to_string())
        }
        ["open-many", path] => {
            let mut files = Vec::new();
            while files.len() < 100_000 {
                match open(path, OpenFlags::empty(), DescriptorFlags::READ).await {
                    Ok(file) => files.push(file),
                    Err(_) => return Ok(format!("limited {}", files.len() > 500)),
                }
            }
            Ok("no limit".to_owned())
        }
        ["list-many", path] => {
            let dir = open(path, OpenFlags::DIRECTORY, DescriptorFlags::READ).await?;
            let mut begun = Vec::new();
            while begun.len() < 100_000 {
                let (mut entries, outcome) = dir.read_directory();
                if entries.next().await.is_none() {
                    break;
                }
                begun.push((entries, outcome));
            }
            let limit = begun.len();
            drop(begun);
            let (mut entries, outcome) = dir.read_directory();
            let mut again = 0;
            while entries.next().await.is_some() {
                again += 1;
            }
            outcome.await?;
            Ok(format!("limited {limit}, then {again}"))
        }
        _ => Ok(format!("unknown: {args:?}")),
    }
}

/// The directory that a path is looked up in, and the rest of it.
fn place(path: &str) -> Result<(Descriptor, String), ErrorCode> {
    let candidates = preopens::get_directories()
        .into_iter()
        .filter_map(|(dir, at)| {
            let rest = path.strip_prefix(at.trim_end_matches('/'))?;
            let below = rest.is_empty() || rest.starts_with('/');
            below.then(|| (at.len(), dir, rest.trim_start_matches('/').to_owned()))
        });
    let (_, dir, rest) = candidates
        .max_by_key(|(length, ..)| *length)
        .ok_or(ErrorCode::NoEntry)?;
    let rest = if rest.is_empty() {
        ".".to_owned()
    } else {
        rest
    };
    Ok((dir, rest))
}

async fn open(path: &str, how: OpenFlags, mode: DescriptorFlags) -> Result<Descriptor, ErrorCode> {
    let (dir, path) = place(path)?;
    dir.open_at(PathFlags::SYMLINK_FOLLOW, path, how, mode)
        .await
}

async fn read(file: &Descriptor) -> Result<String, ErrorCode> {
    let (data, outcome) = file.read_via_stream(0);
    let data = data.collect().await;
    outcome.await?;
    String::from_utf8(data).map_err(|_| ErrorCode::IllegalByteSequence)
}

async fn write<F>(
    file: &Descriptor,
    text: &str,
    begin: impl FnOnce(&Descriptor, wit_bindgen::StreamReader<u8>) -> F,
) -> Result<(), ErrorCode>
where
    F: IntoFuture<Output = Result<(), ErrorCode>>,
{
    let (mut writer, reader) = wit_stream::new();
    let outcome = begin(file, reader);
    writer.write_all(text.as_bytes().to_vec()).await;
    drop(writer);
    outcome.await
}

/// As `std` calls it.
fn kind(code: &ErrorCode) -> String {
    match code {
        ErrorCode::Access | ErrorCode::NotPermitted => "PermissionDenied".to_owned(),
        ErrorCode::Exist => "AlreadyExists".to_owned(),
        ErrorCode::IsDirectory => "IsADirectory".to_owned(),
        ErrorCode::NoEntry => "NotFound".to_owned(),
        ErrorCode::NotDirectory => "NotADirectory".to_owned(),
        ErrorCode::ReadOnly => "ReadOnlyFilesystem".to_owned(),
        other => format!("{other:?}"),
    }
}
