//! `metadata.managedFields`: who owns which field, kept on every write.
//!
//! An entry names a manager, its operation (`Apply` or `Update`), the subresource and the API version it
//! wrote through, and the set of fields it owns. A write that is no apply:
//!
//! 1. compares the old object with the new one; if nothing that can be owned differs, no entry changes;
//! 2. takes changed and removed fields from every other entry;
//! 3. adds changed and new fields to the writer's own entry, with the time.
//!
//! Invariant: entries are unique by (manager, operation, subresource, apiVersion of updates), sorted by
//! operation, time and manager, own at least one field each, and at most [`MAX_UPDATERS`] of them are
//! updates: the oldest beyond that are folded into one entry per version, [`ANCIENT`].
//! `apply.rs` holds the other kind of write.

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use windlass_api::schema::{Schema, TypeRef};
use windlass_api::time::format_seconds;

use super::compare::{Comparison, Ignored, compare};
use super::field_set::FieldSet;

/// Most entries of operation `Update`.
const MAX_UPDATERS: usize = 10;
/// The manager into which the oldest updates are folded.
const ANCIENT: &str = "ancient-changes";

/// A write that is no apply.
#[derive(Clone, Copy, Debug)]
pub struct UpdateRequest<'a> {
    /// Who writes: `fieldManager`, or the user agent up to its first `/`.
    pub manager: &'a str,
    /// The API version written through.
    pub api_version: &'a str,
    /// The subresource written through; empty for the object itself.
    pub subresource: &'a str,
    /// The time of the write.
    pub now: Timestamp,
    /// Fields this endpoint can't change, as names from the root: `status` for the object itself.
    pub ignored: Ignored<'a>,
}

/// What an entry is about, besides its fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ManagedOperation {
    /// Server-side apply.
    Apply,
    /// Every other write.
    Update,
}

impl ManagedOperation {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Apply => "Apply",
            Self::Update => "Update",
        }
    }
}

/// One entry of `metadata.managedFields`.
#[derive(Clone, Debug, PartialEq)]
pub struct Manager {
    /// Name of the manager.
    pub name: String,
    /// How it wrote.
    pub operation: ManagedOperation,
    /// Through which subresource; empty for the object itself.
    pub subresource: String,
    /// Through which API version.
    pub api_version: String,
    /// When it last took a field, as written.
    pub time: String,
    /// What it owns.
    pub fields: FieldSet,
}

impl Manager {
    /// Whether two entries are the same manager's. An applier is the same through any version.
    fn is(&self, other: &Self) -> bool {
        self.name == other.name
            && self.operation == other.operation
            && self.subresource == other.subresource
            && (self.operation == ManagedOperation::Apply || self.api_version == other.api_version)
    }

    fn from_value(entry: Value) -> Option<Self> {
        let Value::Object(mut entry) = entry else {
            return None;
        };
        let fields = FieldSet::from_value(entry.remove("fieldsV1")?)?;
        let mut text = |key: &str| match entry.remove(key) {
            Some(Value::String(text)) => Some(text),
            None => Some(String::new()),
            Some(_) => None,
        };
        let operation = match text("operation")?.as_str() {
            "Apply" => ManagedOperation::Apply,
            "Update" => ManagedOperation::Update,
            _ => return None,
        };
        Some(Self {
            name: text("manager")?,
            operation,
            subresource: text("subresource")?,
            api_version: text("apiVersion")?,
            time: text("time")?,
            fields,
        })
    }

    fn into_value(self) -> Value {
        let mut entry = Map::with_capacity(7);
        entry.insert("manager".to_owned(), self.name.into());
        entry.insert("operation".to_owned(), self.operation.as_str().into());
        entry.insert("apiVersion".to_owned(), self.api_version.into());
        if !self.time.is_empty() {
            entry.insert("time".to_owned(), self.time.into());
        }
        entry.insert("fieldsType".to_owned(), "FieldsV1".into());
        entry.insert("fieldsV1".to_owned(), self.fields.into_value());
        if !self.subresource.is_empty() {
            entry.insert("subresource".to_owned(), self.subresource.into());
        }
        Value::Object(entry)
    }
}

/// Sets `metadata.managedFields` of `new`, an object about to be written in place of `old` (`None` when it
/// is created).
///
/// A client may edit the entries themselves: valid ones in `new` count instead of those of `old`, and a
/// single empty entry (`[{}]`) resets them. An object without entries stays so until it is applied.
pub fn record_update(
    schema: &Schema,
    ty: TypeRef,
    old: Option<&Value>,
    new: &mut Value,
    request: &UpdateRequest<'_>,
) {
    let recorded = starting_point(old, new);
    if old.is_some() && recorded.is_none() {
        return;
    }
    let nothing = Value::Object(Map::new());
    let comparison = compare(schema, ty, old.unwrap_or(&nothing), new, request.ignored);
    let recorded = recorded.unwrap_or_default();
    if comparison.is_same() {
        return put(new, recorded);
    }
    let Some(mut managers) = parse(recorded) else {
        return;
    };
    give_to_updater(&mut managers, comparison, request);
    fold_oldest(&mut managers);
    put(new, encode(managers));
}

/// Gives `new` the entries of `old` if only their times tell the two objects apart, so that a write which
/// changes nothing in the end stays one. To be called last, once defaults are filled in again: an apply
/// replaces an atomic object by the fields stated, and the defaults put back what it had.
pub fn restore_times(old: &Value, new: &mut Value) {
    let (Some(before), Some(after)) = (entries_of(old), entries_of(new)) else {
        return;
    };
    if before == after || !differ_in_times_only(before, after) {
        return;
    }
    let before = before.clone();
    let after = take(new);
    let is_same = is_same_without_entries(old, new);
    put(
        new,
        if is_same {
            before
        } else {
            after.unwrap_or_default()
        },
    );
}

fn differ_in_times_only(before: &[Value], after: &[Value]) -> bool {
    const BESIDES_TIME: &[&str] = &[
        "manager",
        "operation",
        "apiVersion",
        "subresource",
        "fieldsType",
        "fieldsV1",
    ];
    let is_same = |before: &Value, after: &Value| {
        BESIDES_TIME
            .iter()
            .all(|field| before.get(field) == after.get(field))
    };
    // Entries are sorted by time, so one that was touched may have moved.
    before.len() == after.len()
        && before
            .iter()
            .all(|entry| after.iter().any(|other| is_same(entry, other)))
}

/// Whether an object equals another whose entries were taken out.
fn is_same_without_entries(with: &Value, without: &Value) -> bool {
    let (Value::Object(with), Value::Object(without)) = (with, without) else {
        return false;
    };
    let metadata_is_same = |with: &Value, without: &Value| {
        let (Value::Object(with), Value::Object(without)) = (with, without) else {
            return false;
        };
        with.len() == without.len() + 1
            && without
                .iter()
                .all(|(name, value)| with.get(name) == Some(value))
    };
    with.len() == without.len()
        && without.iter().all(|(name, value)| match with.get(name) {
            Some(own) if name == "metadata" => metadata_is_same(own, value),
            own => own == Some(value),
        })
}

/// Takes the entries to go on from out of `new`: its own if they are valid, else the old object's.
/// `None`: ownership is not tracked.
fn starting_point(old: Option<&Value>, new: &mut Value) -> Option<Vec<Value>> {
    let given = take(new);
    let old = || {
        old.and_then(entries_of)
            .filter(|entries| !entries.is_empty())
    };
    match given {
        Some(given) if is_reset(&given) => None,
        Some(given) if !given.is_empty() => {
            // The common case: a read-modify-write sends back what it read.
            if old().is_some_and(|old| old == &given) || is_valid(&given) {
                return Some(given);
            }
            old().cloned()
        }
        _ => old().cloned(),
    }
}

fn is_reset(entries: &[Value]) -> bool {
    matches!(entries, [Value::Object(entry)] if entry.is_empty())
}

fn is_valid(entries: &[Value]) -> bool {
    parse(entries.to_vec()).is_some()
}

/// The entries of an object, still as JSON.
pub(super) fn entries_of(object: &Value) -> Option<&Vec<Value>> {
    object.get("metadata")?.get("managedFields")?.as_array()
}

/// Takes the entries out of an object.
pub(super) fn take(object: &mut Value) -> Option<Vec<Value>> {
    let metadata = object.get_mut("metadata")?.as_object_mut()?;
    match metadata.shift_remove("managedFields")? {
        Value::Array(entries) => Some(entries),
        _ => None,
    }
}

/// Puts the entries into an object.
pub(super) fn put(object: &mut Value, entries: Vec<Value>) {
    if entries.is_empty() {
        return;
    }
    let Value::Object(object) = object else {
        return;
    };
    let metadata = object.entry("metadata").or_insert_with(|| json!({}));
    if let Value::Object(metadata) = metadata {
        metadata.insert("managedFields".to_owned(), Value::Array(entries));
    }
}

/// Reads entries; `None` if one of them is malformed.
pub(super) fn parse(entries: Vec<Value>) -> Option<Vec<Manager>> {
    entries.into_iter().map(Manager::from_value).collect()
}

/// Writes entries in their order, without those that own nothing.
pub(super) fn encode(mut managers: Vec<Manager>) -> Vec<Value> {
    managers.retain(|manager| !manager.fields.is_empty());
    managers.sort_by(|a, b| {
        (
            a.operation,
            &a.time,
            &a.name,
            &a.api_version,
            &a.subresource,
        )
            .cmp(&(
                b.operation,
                &b.time,
                &b.name,
                &b.api_version,
                &b.subresource,
            ))
    });
    managers.into_iter().map(Manager::into_value).collect()
}

fn give_to_updater(
    managers: &mut Vec<Manager>,
    comparison: Comparison,
    request: &UpdateRequest<'_>,
) {
    for manager in managers.iter_mut() {
        manager.fields.subtract(&comparison.removed);
        manager.fields.subtract(&comparison.modified);
        manager.fields.subtract(&comparison.added);
    }
    let mut taken = comparison.added;
    taken.union(&comparison.modified);
    if taken.is_empty() {
        return;
    }
    let own = Manager {
        name: request.manager.to_owned(),
        operation: ManagedOperation::Update,
        subresource: request.subresource.to_owned(),
        api_version: request.api_version.to_owned(),
        time: format_seconds(request.now),
        fields: taken,
    };
    match managers.iter_mut().find(|manager| manager.is(&own)) {
        Some(known) => {
            known.fields.union(&own.fields);
            known.time = own.time;
        }
        None => managers.push(own),
    }
}

/// Folds the oldest updaters together while there are too many of them.
fn fold_oldest(managers: &mut Vec<Manager>) {
    let is_updater = |manager: &Manager| manager.operation == ManagedOperation::Update;
    let count = managers
        .iter()
        .filter(|manager| is_updater(manager))
        .count();
    if count <= MAX_UPDATERS {
        return;
    }
    let (mut updaters, appliers): (Vec<_>, Vec<_>) = managers.drain(..).partition(is_updater);
    updaters.sort_by(|a, b| (&a.time, &a.name).cmp(&(&b.time, &b.name)));
    let mut buckets: Vec<Manager> = Vec::new();
    let mut kept = Vec::new();
    let mut count = updaters.len();
    for mut updater in updaters {
        if count <= MAX_UPDATERS {
            kept.push(updater);
            continue;
        }
        match buckets
            .iter_mut()
            .find(|bucket| bucket.api_version == updater.api_version)
        {
            Some(bucket) => {
                bucket.fields.union(&updater.fields);
                bucket.time = updater.time;
                count -= 1;
            }
            None => {
                updater.name = ANCIENT.to_owned();
                updater.subresource.clear();
                buckets.push(updater);
            }
        }
    }
    managers.extend(appliers.into_iter().chain(buckets).chain(kept));
}

#[cfg(test)]
mod tests {
    use super::*;
    use windlass_api::resource::GroupVersionKind;

    fn config_map() -> (&'static Schema, TypeRef) {
        let schema = Schema::builtin();
        (
            schema,
            schema
                .kind(&GroupVersionKind::of("", "v1", "ConfigMap"))
                .expect("is built in"),
        )
    }

    fn update(old: Option<&Value>, mut new: Value, manager: &str, second: i64) -> Value {
        let (schema, ty) = config_map();
        let request = UpdateRequest {
            manager,
            api_version: "v1",
            subresource: "",
            now: Timestamp::from_second(second).expect("is a time"),
            ignored: &[&["status"]],
        };
        record_update(schema, ty, old, &mut new, &request);
        new
    }

    fn owners(object: &Value) -> Vec<(String, String)> {
        let entries = entries_of(object).cloned().unwrap_or_default();
        let describe = |entry: &Value| {
            (
                entry["manager"].as_str().expect("is named").to_owned(),
                entry["fieldsV1"].to_string(),
            )
        };
        entries.iter().map(describe).collect()
    }

    fn data(data: &Value) -> Value {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": data})
    }

    #[test]
    fn a_created_objects_fields_belong_to_its_creator() {
        let created = update(None, data(&json!({"a": "1"})), "kubectl-create", 0);
        assert_eq!(
            created["metadata"]["managedFields"],
            json!([{"manager": "kubectl-create", "operation": "Update", "apiVersion": "v1",
                "time": "1970-01-01T00:00:00Z", "fieldsType": "FieldsV1",
                "fieldsV1": {"f:data": {".": {}, "f:a": {}}}}])
        );
    }

    #[test]
    fn changed_fields_change_hands_and_removed_ones_have_no_owner() {
        let first = update(None, data(&json!({"a": "1", "b": "1", "c": "1"})), "one", 0);
        let second = update(
            Some(&first),
            data(&json!({"a": "2", "b": "1", "d": "1"})),
            "two",
            1,
        );
        assert_eq!(
            owners(&second),
            [
                (
                    "one".to_owned(),
                    r#"{"f:data":{"f:b":{},".":{}}}"#.to_owned()
                ),
                (
                    "two".to_owned(),
                    r#"{"f:data":{"f:d":{},"f:a":{}}}"#.to_owned()
                )
            ]
        );
    }

    #[test]
    fn a_write_that_changes_nothing_leaves_the_entries_as_they_are() {
        let first = update(None, data(&json!({"a": "1"})), "one", 0);
        let mut again = first.clone();
        again["metadata"]["resourceVersion"] = json!("7");
        let second = update(Some(&first), again, "two", 9);
        assert_eq!(entries_of(&second), entries_of(&first));
        let without = update(Some(&first), data(&json!({"a": "1"})), "two", 9);
        assert_eq!(entries_of(&without), entries_of(&first));
    }

    #[test]
    fn entries_can_be_edited_and_reset_but_not_broken() {
        let first = update(None, data(&json!({"a": "1"})), "one", 0);
        let mut broken = data(&json!({"a": "1"}));
        broken["metadata"]["managedFields"] =
            json!([{"manager": "x", "operation": "Jump", "fieldsV1": {}}]);
        assert_eq!(
            entries_of(&update(Some(&first), broken, "two", 1)),
            entries_of(&first)
        );
        let mut reset = data(&json!({"a": "1"}));
        reset["metadata"]["managedFields"] = json!([{}]);
        let reset = update(Some(&first), reset, "two", 1);
        assert_eq!(entries_of(&reset), None);
        assert_eq!(
            entries_of(&update(Some(&reset), data(&json!({"a": "2"})), "two", 2)),
            None
        );
        let mut edited = first.clone();
        edited["metadata"]["managedFields"][0]["manager"] = json!("renamed");
        assert_eq!(
            owners(&update(Some(&first), edited, "two", 1))[0].0,
            "renamed"
        );
    }

    #[test]
    fn times_alone_are_no_change() {
        let old = update(None, data(&json!({"a": "1"})), "one", 0);
        let mut touched = old.clone();
        touched["metadata"]["managedFields"][0]["time"] = json!("2001-01-01T00:00:00Z");
        let mut changed = touched.clone();
        changed["data"]["b"] = json!("2");
        let expected = changed.clone();
        restore_times(&old, &mut touched);
        assert_eq!(touched, old);
        restore_times(&old, &mut changed);
        assert_eq!(changed, expected);
    }

    #[test]
    fn the_oldest_updates_beyond_ten_are_folded_together() {
        let mut object = update(None, data(&json!({"k0": "x"})), "m0", 0);
        for at in 1..14 {
            let mut next = object.clone();
            next["data"][format!("k{at}")] = json!("x");
            object = update(Some(&object), next, &format!("m{at}"), at);
        }
        let names: Vec<_> = owners(&object).into_iter().map(|(name, _)| name).collect();
        assert_eq!(
            names,
            [
                "ancient-changes",
                "m5",
                "m6",
                "m7",
                "m8",
                "m9",
                "m10",
                "m11",
                "m12",
                "m13"
            ]
        );
    }
}
