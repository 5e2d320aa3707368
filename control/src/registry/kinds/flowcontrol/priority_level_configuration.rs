//! PriorityLevelConfiguration: how many requests of a level run at once, and how many wait.

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use windlass_api::resource::GroupVersionKind;

use super::{GROUP, conditions};
use crate::registry::age;
use crate::registry::field_error::FieldError;
use crate::registry::kinds::field_path::Field;
use crate::registry::kinds::{default, default_number, text};
use crate::registry::object_meta as meta;
use crate::registry::strategy::{AGE, Column, Endpoint, Kind, NAME, Strategy};

struct PriorityLevelConfiguration;

/// The row of the table.
pub(in crate::registry::kinds) fn kind() -> Kind {
    let gvk = GroupVersionKind::of(GROUP, "v1", "PriorityLevelConfiguration");
    Kind::cluster(
        gvk,
        "prioritylevelconfigurations",
        &PriorityLevelConfiguration,
    )
}

const COLUMNS: &[Column] = &[
    NAME,
    Column::new("Type", "string", "Exempt from limits, or limited."),
    Column::new(
        "NominalConcurrencyShares",
        "string",
        "Its share of requests that run at once.",
    ),
    Column::new("Queues", "string", "Number of queues."),
    Column::new("HandSize", "string", "Queues a flow may use."),
    Column::new("QueueLengthLimit", "string", "Requests a queue holds."),
    AGE,
];

const TYPES: &[&str] = &["Exempt", "Limited"];
const RESPONSES: &[&str] = &["Queue", "Reject"];
const EXEMPT: &str = "exempt";
const MAX_QUEUES: i64 = 10_000_000;
/// Bits of the hash that deals a flow its queues.
const HASH_BITS: i64 = 60;

const NOT_NEGATIVE: &str = "must be a non-negative integer";

impl Strategy for PriorityLevelConfiguration {
    fn set_defaults(&self, object: &mut Value) {
        let spec = meta::member_mut(object, "spec");
        for (member, shares) in [("exempt", 0), ("limited", 30)] {
            if let Some(level) = spec.get_mut(member).and_then(Value::as_object_mut) {
                default(level, "nominalConcurrencyShares", shares);
                default(level, "lendablePercent", 0);
                set_queuing_defaults(level);
            }
        }
    }

    fn prepare_for_create(&self, object: &mut Value, _: &crate::identity::UserInfo) {
        if let Some(object) = object.as_object_mut() {
            object.insert("status".into(), json!({}));
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let spec = Field::root(object).at("spec");
        let (kind, exempt, limited) = (spec.at("type"), spec.at("exempt"), spec.at("limited"));
        let mut errors = Vec::new();
        if (meta::name(object) == EXEMPT) != (kind.text() == "Exempt") {
            let detail = "type must be 'Exempt' if and only if name is 'exempt'";
            errors.push(kind.invalid(detail));
        }
        match kind.text() {
            "Exempt" => {
                if limited.is_set() {
                    errors.push(limited.forbidden("must be nil if the type is not Limited"));
                }
                errors.extend(validate_shares(&exempt));
            }
            "Limited" => {
                if exempt.is_set() {
                    errors.push(exempt.forbidden("must be nil if the type is Limited"));
                }
                errors.extend(validate_limited(&limited));
            }
            _ => errors.extend(kind.one_of(TYPES)),
        }
        errors
    }

    fn validate_update(&self, _: &Value, new: &Value, endpoint: Endpoint) -> Vec<FieldError> {
        match endpoint {
            Endpoint::Status => conditions(&Field::root(new).at("status").at("conditions")),
            _ => Vec::new(),
        }
    }

    fn not_enforced(&self) -> Option<&'static str> {
        Some("PriorityLevelConfiguration is stored but not enforced by Windlass yet")
    }

    fn has_status(&self) -> bool {
        true
    }

    fn updates_unconditionally(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let limited = |pointer: &str| {
            let value = object.pointer(&format!("/spec/limited/{pointer}"));
            value.cloned().unwrap_or_else(|| "<none>".into())
        };
        vec![
            meta::name(object).into(),
            text(object, "/spec/type").into(),
            limited("nominalConcurrencyShares"),
            limited("limitResponse/queuing/queues"),
            limited("limitResponse/queuing/handSize"),
            limited("limitResponse/queuing/queueLengthLimit"),
            age(object, now).into(),
        ]
    }
}

fn set_queuing_defaults(level: &mut Map<String, Value>) {
    let response = level.get_mut("limitResponse");
    let queuing = response.and_then(|response| response.get_mut("queuing"));
    if let Some(queuing) = queuing.and_then(Value::as_object_mut) {
        default_number(queuing, "handSize", 8);
        default_number(queuing, "queues", 64);
        default_number(queuing, "queueLengthLimit", 50);
    }
}

fn validate_shares(level: &Field<'_>) -> Vec<FieldError> {
    let (shares, lendable) = (
        level.at("nominalConcurrencyShares"),
        level.at("lendablePercent"),
    );
    let mut errors = Vec::new();
    if shares.integer() < 0 {
        errors.push(shares.invalid(NOT_NEGATIVE));
    }
    if !(0..=100).contains(&lendable.integer()) {
        errors.push(lendable.invalid("must be between 0 and 100, inclusive"));
    }
    errors
}

fn validate_limited(limited: &Field<'_>) -> Vec<FieldError> {
    if !limited.is_set() {
        return vec![limited.required("must not be empty when type is Limited")];
    }
    let mut errors = validate_shares(limited);
    let borrowing = limited.at("borrowingLimitPercent");
    if borrowing.integer() < 0 {
        let detail = format!("if specified, {NOT_NEGATIVE}");
        errors.push(borrowing.invalid(detail));
    }
    let response = limited.at("limitResponse");
    let queuing = response.at("queuing");
    match response.at("type").text() {
        "Reject" if queuing.is_set() => {
            let detail = "must be nil if limited.limitResponse.type is not Limited";
            errors.push(queuing.forbidden(detail));
        }
        "Queue" if !queuing.is_set() => {
            let detail = "must not be empty if limited.limitResponse.type is Limited";
            errors.push(queuing.required(detail));
        }
        "Queue" => errors.extend(validate_queuing(&queuing)),
        _ => errors.extend(response.at("type").one_of(RESPONSES)),
    }
    errors
}

fn validate_queuing(queuing: &Field<'_>) -> Vec<FieldError> {
    let (length, queues, hand) = (
        queuing.at("queueLengthLimit"),
        queuing.at("queues"),
        queuing.at("handSize"),
    );
    let fields = [&length, &queues, &hand].into_iter();
    let mut errors: Vec<_> = fields
        .filter(|field| field.integer() <= 0)
        .map(|field| field.invalid("must be positive"))
        .collect();
    let (deck, size) = (queues.integer(), hand.integer());
    if deck > MAX_QUEUES {
        let detail = format!("must not be greater than {MAX_QUEUES}");
        errors.push(queues.invalid(detail));
    }
    if size > 0 && size > deck {
        let detail = format!("should not be greater than queues ({deck})");
        errors.push(hand.invalid(detail));
    } else if size > 0 && entropy(deck, size) > HASH_BITS {
        let detail = format!(
            "required entropy bits of deckSize {deck} and handSize {size} should not be greater than {HASH_BITS}"
        );
        errors.push(hand.invalid(detail));
    }
    errors
}

/// Bits it takes to deal `hand` of `deck` queues, rather too many than too few.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "an estimate, as upstream's; both numbers are below 10^7"
)]
fn entropy(deck: i64, hand: i64) -> i64 {
    ((deck as f64).log2() * hand as f64).ceil() as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limited_level_gets_queues_and_a_share() {
        let mut object = json!({"metadata": {"name": "p"}, "spec": {"type": "Limited",
            "limited": {"limitResponse": {"type": "Queue", "queuing": {}}}}});
        PriorityLevelConfiguration.set_defaults(&mut object);
        assert_eq!(PriorityLevelConfiguration.validate(&object), []);
        let cells = PriorityLevelConfiguration.cells(&object, Timestamp::UNIX_EPOCH);
        let shown: Vec<_> = cells.iter().skip(1).take(5).cloned().collect();
        assert_eq!(
            shown,
            [json!("Limited"), json!(30), json!(64), json!(8), json!(50)]
        );
    }

    #[test]
    fn a_hand_needs_no_more_bits_than_the_hash_has() {
        let queuing = json!({"queues": 1_000_000, "handSize": 4, "queueLengthLimit": 1});
        let errors = validate_queuing(&Field::new("q", &queuing));
        let texts: Vec<_> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "q.handSize: Invalid value: 4: required entropy bits of deckSize 1000000 and handSize 4 should not be greater than 60"
            ]
        );
    }
}
