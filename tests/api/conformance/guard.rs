//! Keeps the list of rows honest: each is tested or a known gap, with a reason, and never both.

use std::collections::BTreeSet;
use std::path::Path;

const ROWS: &str = include_str!("rows.tsv");
const KNOWN_GAPS: &str = include_str!("known_gaps.tsv");
const MARK: &str = "/// Conformance: ";

/// The rows that tests below a directory say they cover.
fn marked(directory: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            marked(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let names = text
                .lines()
                .filter_map(|line| line.trim_start().strip_prefix(MARK));
            found.extend(names.map(str::to_owned));
        }
    }
}

#[test]
fn every_row_is_tested_or_a_known_gap() {
    let rows: BTreeSet<&str> = ROWS.lines().skip(1).collect();
    let mut covered = BTreeSet::new();
    for binary in ["api", "clients", "cluster", "../control/tests/controllers"] {
        marked(
            &Path::new(env!("CARGO_MANIFEST_DIR")).join(binary),
            &mut covered,
        );
    }
    for line in KNOWN_GAPS.lines().skip(1) {
        let (name, reason) = line.split_once('\t').unwrap();
        assert!(!reason.is_empty(), "{name} is a gap without a reason");
        assert!(rows.contains(name), "{name} is a gap but not a row");
        assert!(covered.insert(name.to_owned()), "{name} is covered twice");
    }
    // Tests may cover rows that need more than the API, too.
    let missing: Vec<_> = rows.iter().filter(|row| !covered.contains(**row)).collect();
    assert!(missing.is_empty(), "{missing:#?}");
}
