//! Object files: YAML or JSON from files, directories or standard input, to objects with their origin.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde_json::Value;
use windlass_api::schema::{Duplicate, decode_yaml};

/// Endings of files that a directory is searched for.
const ENDINGS: [&str; 3] = ["yaml", "yml", "json"];

/// An object and where it was read.
#[derive(Debug)]
pub(crate) struct FileObject {
    /// The object.
    pub(crate) object: Value,
    /// The file, or `-`, for messages.
    pub(crate) origin: String,
    /// What relative paths in the object are relative to.
    pub(crate) base: PathBuf,
}

/// Reads everything that `sources` name, in that order; directories in order of file names.
pub(crate) fn read(sources: &[PathBuf]) -> anyhow::Result<Vec<FileObject>> {
    let mut objects = Vec::new();
    for source in sources {
        if source == Path::new("-") {
            let mut text = String::new();
            std::io::stdin()
                .read_to_string(&mut text)
                .context("read standard input")?;
            objects.extend(parse(&text, "-", Path::new("."))?);
            continue;
        }
        for file in files(source)? {
            let text = std::fs::read_to_string(&file)
                .with_context(|| format!("read {}", file.display()))?;
            let base = file.parent().unwrap_or(Path::new("."));
            objects.extend(parse(&text, &file.display().to_string(), base)?);
        }
    }
    if objects.is_empty() && !sources.is_empty() {
        bail!("no objects found in {}", shown(sources));
    }
    Ok(objects)
}

fn shown(sources: &[PathBuf]) -> String {
    sources
        .iter()
        .map(|source| source.display().to_string())
        .collect::<Vec<_>>()
        .join(", ")
}

/// The file itself, or the object files of a directory.
fn files(source: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let metadata =
        std::fs::metadata(source).with_context(|| format!("read {}", source.display()))?;
    if !metadata.is_dir() {
        return Ok(vec![source.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(source).with_context(|| format!("read {}", source.display()))? {
        let path = entry?.path();
        let ending = path
            .extension()
            .and_then(|ending| ending.to_str())
            .unwrap_or_default();
        if path.is_file() && ENDINGS.contains(&ending) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Every object of a text with one or more documents. Errors name the line in the whole text.
fn parse(text: &str, origin: &str, base: &Path) -> anyhow::Result<Vec<FileObject>> {
    let mut objects = Vec::new();
    for document in documents(text) {
        let decoded = decode_yaml(document.as_bytes()).with_context(|| origin.to_owned())?;
        if let Some(duplicate) = decoded.duplicates.first() {
            bail!("{origin}: {}", duplicate_text(duplicate));
        }
        for object in expand(decoded.value) {
            check(&object).with_context(|| origin.to_owned())?;
            objects.push(FileObject {
                object,
                origin: origin.to_owned(),
                base: base.to_owned(),
            });
        }
    }
    Ok(objects)
}

fn duplicate_text(duplicate: &Duplicate) -> String {
    match duplicate {
        Duplicate::Field(path) => format!("duplicate field {path:?}"),
        Duplicate::YamlKey { line, key } => format!("line {line}: key {key:?} already set in map"),
    }
}

/// Splits at lines that begin a document. Each part is preceded by as many empty lines as stand before
/// it, so that the decoder's line numbers are those of the whole text.
fn documents(text: &str) -> Vec<String> {
    let mut documents = vec![String::new()];
    for (at, line) in text.lines().enumerate() {
        let separates = line == "---" || line.starts_with("--- ");
        if separates {
            documents.push("\n".repeat(at + 1));
        } else if let Some(current) = documents.last_mut() {
            current.push_str(line);
            current.push('\n');
        }
    }
    let says_something = |document: &String| {
        document
            .lines()
            .any(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#'))
    };
    documents.into_iter().filter(says_something).collect()
}

/// A list's items, or the object itself.
fn expand(object: Value) -> Vec<Value> {
    let is_list = object.get("kind").and_then(Value::as_str) == Some("List");
    match (is_list, object) {
        (true, Value::Object(mut list)) => match list.remove("items") {
            Some(Value::Array(items)) => items,
            _ => Vec::new(),
        },
        (_, Value::Null) => Vec::new(),
        (_, object) => vec![object],
    }
}

fn check(object: &Value) -> anyhow::Result<()> {
    for pointer in ["/apiVersion", "/kind", "/metadata/name"] {
        let text = object
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default();
        if text.is_empty() {
            bail!(
                "an object has no {}",
                pointer.trim_start_matches('/').replace('/', ".")
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = "# first\napiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\n---\n---\napiVersion: v1\nkind: Secret\nmetadata:\n  name: b\n";

    fn parsed(text: &str) -> anyhow::Result<Vec<FileObject>> {
        parse(text, "app.yaml", Path::new("."))
    }

    #[test]
    fn every_document_is_an_object() {
        let objects = parsed(TWO).unwrap();
        let kinds: Vec<_> = objects
            .iter()
            .map(|o| o.object["kind"].as_str().unwrap())
            .collect();
        assert_eq!(kinds, ["ConfigMap", "Secret"]);
    }

    #[test]
    fn lists_are_their_items() {
        let list = "kind: List\napiVersion: v1\nitems:\n- kind: A\n  apiVersion: v1\n  metadata: {name: x}\n";
        assert_eq!(parsed(list).unwrap()[0].object["kind"], "A");
    }

    #[test]
    fn errors_name_the_line_of_the_whole_file() {
        let broken = format!("{TWO}---\nkind: [\n");
        let text = format!("{:#}", parsed(&broken).unwrap_err());
        assert!(
            text.contains("app.yaml") && text.contains("line 1"),
            "{text}"
        );
        let twice = format!("{TWO}---\napiVersion: v1\nkind: A\nkind: B\nmetadata: {{name: c}}\n");
        let text = format!("{:#}", parsed(&twice).unwrap_err());
        assert!(text.contains("line 15"), "{text}");
        let unnamed = parsed("apiVersion: v1\nkind: A\n").unwrap_err();
        assert!(
            format!("{unnamed:#}").contains("metadata.name"),
            "{unnamed:#}"
        );
    }
}
