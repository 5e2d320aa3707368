//! What every example brings along, so that a stranger can read, run and rebuild it.

use std::path::{Path, PathBuf};

use crate::root;

/// Committed components are small; larger ones are built when needed.
const LARGEST_COMPONENT: u64 = 300_000;

/// The folders of the examples: those with a README.
fn examples() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root().join("examples")).unwrap();
    let folders = entries.map(|entry| entry.unwrap().path());
    folders
        .filter(|path| path.is_dir() && !path.ends_with("target"))
        .collect()
}

/// Every file below `directory` with this ending, build output left aside.
fn files(directory: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("target") {
            found.extend(files(&path, ending));
        } else if path.extension().is_some_and(|own| own == ending) {
            found.push(path);
        }
    }
    found
}

/// The paths of `.wasm` files that an object file names as images.
fn components(object_file: &Path) -> Vec<PathBuf> {
    let text = std::fs::read_to_string(object_file).unwrap();
    let images = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("image: "));
    let paths = images
        .map(|image| image.trim_matches('"'))
        .filter(|image| image.ends_with(".wasm"));
    paths
        .map(|path| object_file.parent().unwrap().join(path))
        .collect()
}

#[test]
fn every_example_has_a_readme_object_files_and_guest_source() {
    let examples = examples();
    assert!(examples.len() >= 2, "{examples:?}");
    for example in examples {
        let shown = example.display();
        assert!(
            example.join("README.md").is_file(),
            "{shown} has no README.md"
        );
        assert!(!files(&example, "yaml").is_empty(), "{shown} has no YAML");
        assert!(
            !files(&example, "rs").is_empty(),
            "{shown} has no guest source"
        );
    }
}

#[test]
fn every_component_an_example_names_is_committed_and_small() {
    for example in examples() {
        for object_file in files(&example, "yaml") {
            for component in components(&object_file) {
                let shown = component.display();
                let metadata = std::fs::metadata(&component);
                let size = metadata
                    .unwrap_or_else(|error| panic!("{shown}: {error}"))
                    .len();
                assert!(size <= LARGEST_COMPONENT, "{shown} has {size} bytes");
            }
        }
    }
}

#[test]
fn committed_components_hold_no_path_of_the_machine_that_built_them() {
    for component in files(&root().join("examples"), "wasm") {
        let bytes = std::fs::read(&component).unwrap();
        for trace in ["/.cargo/", "/registry/src/", "/home/", "/root/", "/Users/"] {
            let found = bytes
                .windows(trace.len())
                .any(|window| window == trace.as_bytes());
            assert!(
                !found,
                "{} holds {trace:?}: build it with examples/build",
                component.display()
            );
        }
    }
}

#[test]
fn the_overview_lists_every_example() {
    let overview = std::fs::read_to_string(root().join("examples/README.md")).unwrap();
    for example in examples() {
        let name = example.file_name().unwrap().to_str().unwrap().to_owned();
        assert!(
            overview.contains(&format!("]({name})")),
            "examples/README.md does not list {name}"
        );
    }
}
