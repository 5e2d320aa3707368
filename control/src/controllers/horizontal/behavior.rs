//! How fast the number of replicas may follow what is wanted. Pure but for the history it is given.
//!
//! 1. Stabilisation: of the recommendations of a window the most careful counts.
//! 2. Policies: so many pods, or so many percent, per period.
//! 3. The bounds of the autoscaler.

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::{HPAScalingRules, HorizontalPodAutoscalerSpec};

use super::status::Condition;
use crate::controllers::runtime::clock;

/// Upstream's default for autoscalers that say nothing.
const DOWN_WINDOW: i32 = 300;
/// How long anything is remembered: no window may be longer.
const LONGEST: i64 = 3600;

/// What an autoscaler has recommended and done so far; forgotten with the process, as upstream's is.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    /// Number of replicas and when it was recommended.
    recommended: Vec<(i64, Timestamp)>,
    /// By how many replicas it was scaled, up or down, and when.
    scaled: Vec<(i64, Timestamp)>,
}

/// How many replicas there shall be, and what is to be said about it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Allowed {
    pub(super) replicas: i64,
    pub(super) conditions: Vec<Condition>,
}

impl History {
    /// Notes that it was scaled.
    pub(super) fn scaled(&mut self, from: i64, to: i64, now: Timestamp) {
        self.scaled.push((to - from, now));
    }

    /// Notes what was found at first, so that a restart does not scale down at once.
    pub(super) fn begin(&mut self, current: i64, now: Timestamp) {
        if self.recommended.is_empty() {
            self.recommended.push((current, now));
        }
    }

    fn forget(&mut self, now: Timestamp) {
        let keep = |at: Timestamp| clock::after(at, LONGEST) > now;
        self.recommended.retain(|(_, at)| keep(*at));
        self.scaled.retain(|(_, at)| keep(*at));
    }

    fn within(&self, seconds: i32, now: Timestamp) -> impl Iterator<Item = i64> + '_ {
        let recent = self.recommended.iter();
        recent
            .filter(move |(_, at)| clock::after(*at, seconds.into()) > now)
            .map(|(replicas, _)| *replicas)
    }

    /// How many replicas there were at the beginning of a period.
    fn at_begin(&self, current: i64, seconds: i32, now: Timestamp) -> i64 {
        let recent = self.scaled.iter();
        let recent = recent.filter(|(_, at)| clock::after(*at, seconds.into()) > now);
        current - recent.map(|(by, _)| by).sum::<i64>()
    }
}

/// What of `wanted` replicas is allowed now, with `current` there.
pub(super) fn allow(
    spec: &HorizontalPodAutoscalerSpec,
    current: i64,
    wanted: i64,
    history: &mut History,
    now: Timestamp,
) -> Allowed {
    let behavior = spec.behavior.as_ref();
    let up = behavior.and_then(|of| of.scale_up.as_ref());
    let down = behavior.and_then(|of| of.scale_down.as_ref());
    history.forget(now);
    let stable = stabilize(current, wanted, (up, down), history, now);
    history.recommended.push((wanted, now));
    let ready = if stable == wanted {
        Condition::able("ReadyForNewScale", "recommended size matches current size")
    } else if stable > wanted {
        let text = "recent recommendations were higher than current one, applying the highest recent recommendation";
        Condition::able("ScaleDownStabilized", text)
    } else {
        let text = "recent recommendations were lower than current one, applying the lowest recent recommendation";
        Condition::able("ScaleUpStabilized", text)
    };
    let (replicas, limited) = limit(spec, (up, down), current, stable, history, now);
    Allowed {
        replicas,
        conditions: vec![ready, limited],
    }
}

type Rules<'a> = (Option<&'a HPAScalingRules>, Option<&'a HPAScalingRules>);

fn stabilize(
    current: i64,
    wanted: i64,
    (up, down): Rules<'_>,
    history: &History,
    now: Timestamp,
) -> i64 {
    let window = |rules: Option<&HPAScalingRules>, default| {
        let given = rules.and_then(|rules| rules.stabilization_window_seconds);
        given.unwrap_or(default)
    };
    let least = history.within(window(up, 0), now).fold(wanted, i64::min);
    let most = history
        .within(window(down, DOWN_WINDOW), now)
        .fold(wanted, i64::max);
    current.max(least).min(most)
}

/// The bound that is met, with its condition.
fn limit(
    spec: &HorizontalPodAutoscalerSpec,
    (up, down): Rules<'_>,
    current: i64,
    wanted: i64,
    history: &History,
    now: Timestamp,
) -> (i64, Condition) {
    let least = i64::from(spec.min_replicas.unwrap_or(1));
    let most = i64::from(spec.max_replicas);
    let behavior = spec.behavior.as_ref();
    if wanted > current || (behavior.is_none() && wanted > most) {
        let fastest = match behavior {
            None => (current * 2).max(4),
            Some(_) => furthest(up, Direction::Up, current, history, now).max(current),
        };
        if wanted > fastest.min(most) {
            return if most < fastest {
                (most, Condition::too_many())
            } else {
                let text =
                    "the desired replica count is increasing faster than the maximum scale rate";
                (fastest, Condition::limited("ScaleUpLimit", text))
            };
        }
    } else if wanted < current {
        let fastest = match behavior {
            None => least,
            Some(_) => furthest(down, Direction::Down, current, history, now).min(current),
        };
        if wanted < fastest.max(least) {
            return if least >= fastest {
                (least, Condition::too_few())
            } else {
                let text =
                    "the desired replica count is decreasing faster than the maximum scale rate";
                (fastest, Condition::limited("ScaleDownLimit", text))
            };
        }
    }
    if wanted < least {
        return (least, Condition::too_few());
    }
    if wanted > most {
        return (most, Condition::too_many());
    }
    (wanted, Condition::unlimited())
}

/// Type, value, period in seconds.
type Policy<'a> = (&'a str, i32, i32);

/// The rules' policies, and how to choose among them; `None` if they forbid it.
fn policies<'a>(
    rules: Option<&'a HPAScalingRules>,
    default: &'a [Policy<'a>],
) -> Option<(Vec<Policy<'a>>, bool)> {
    let select = rules.and_then(|rules| rules.select_policy.as_deref());
    if select == Some("Disabled") {
        return None;
    }
    let given = rules.and_then(|rules| rules.policies.as_deref());
    let policies = match given {
        Some(given) if !given.is_empty() => given
            .iter()
            .map(|of| (of.type_.as_str(), of.value, of.period_seconds))
            .collect(),
        _ => default.to_vec(),
    };
    Some((policies, select != Some("Min")))
}

/// How many replicas the policies of one direction allow at the furthest.
fn furthest(
    rules: Option<&HPAScalingRules>,
    direction: Direction,
    current: i64,
    history: &History,
    now: Timestamp,
) -> i64 {
    let Some((policies, is_most)) = policies(rules, direction.default_policies()) else {
        return current;
    };
    let limits = policies.into_iter().map(|(kind, value, period)| {
        direction.from(history.at_begin(current, period, now), kind, value)
    });
    // What changes most leaves most on the way up, and fewest on the way down.
    let limit = match (direction, is_most) {
        (Direction::Up, true) | (Direction::Down, false) => limits.max(),
        (Direction::Up, false) | (Direction::Down, true) => limits.min(),
    };
    limit.unwrap_or(current)
}

#[derive(Clone, Copy)]
enum Direction {
    Up,
    Down,
}

impl Direction {
    /// Upstream's.
    fn default_policies(self) -> &'static [Policy<'static>] {
        match self {
            Self::Up => &[("Pods", 4, 15), ("Percent", 100, 15)],
            Self::Down => &[("Percent", 100, 15)],
        }
    }

    /// Where a policy leads from so many replicas.
    #[expect(clippy::cast_possible_truncation, reason = "numbers of replicas")]
    fn from(self, begin: i64, kind: &str, value: i32) -> i64 {
        let part = f64::from(value) / 100.0;
        match (self, kind) {
            (Self::Up, "Pods") => begin + i64::from(value),
            (Self::Down, "Pods") => begin - i64::from(value),
            (Self::Up, _) => (begin as f64 * (1.0 + part)).ceil() as i64,
            (Self::Down, _) => (begin as f64 * (1.0 - part)) as i64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn spec(behavior: &Value) -> HorizontalPodAutoscalerSpec {
        serde_json::from_value(json!({
            "scaleTargetRef": {"kind": "Deployment", "name": "web", "apiVersion": "apps/v1"},
            "minReplicas": 2, "maxReplicas": 20, "behavior": behavior,
        }))
        .unwrap()
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + seconds).unwrap()
    }

    fn reasons(allowed: &Allowed) -> Vec<&str> {
        allowed.conditions.iter().map(|of| of.reason).collect()
    }

    #[test]
    fn without_a_behavior_it_doubles_and_comes_down_late() {
        let (spec, mut history) = (spec(&Value::Null), History::default());
        let mut allow = |current, wanted, seconds| {
            let allowed = allow(&spec, current, wanted, &mut history, at(seconds));
            let reasons = reasons(&allowed).join(" ");
            (allowed.replicas, reasons)
        };
        assert_eq!(
            allow(2, 3, 0),
            (3, "ReadyForNewScale DesiredWithinRange".into())
        );
        assert_eq!(
            allow(3, 15, 15),
            (6, "ReadyForNewScale ScaleUpLimit".into())
        );
        assert_eq!(
            allow(12, 30, 30),
            (20, "ReadyForNewScale TooManyReplicas".into())
        );
        assert_eq!(
            allow(20, 1, 45),
            (20, "ScaleDownStabilized DesiredWithinRange".into())
        );
        assert_eq!(
            allow(20, 1, 331),
            (2, "ReadyForNewScale TooFewReplicas".into())
        );
    }

    #[test]
    fn policies_bound_what_is_done_per_period() {
        let rules = json!({
            "scaleUp": {"stabilizationWindowSeconds": 0, "selectPolicy": "Max",
                "policies": [{"type": "Pods", "value": 2, "periodSeconds": 60},
                    {"type": "Percent", "value": 50, "periodSeconds": 60}]},
            "scaleDown": {"stabilizationWindowSeconds": 0, "selectPolicy": "Min",
                "policies": [{"type": "Pods", "value": 3, "periodSeconds": 60},
                    {"type": "Percent", "value": 50, "periodSeconds": 60}]},
        });
        let (spec, mut history) = (spec(&rules), History::default());
        let up = allow(&spec, 2, 20, &mut history, at(0));
        assert_eq!((up.replicas, reasons(&up)[1]), (4, "ScaleUpLimit"));
        history.scaled(2, 4, at(0));
        // The period is not over.
        assert_eq!(allow(&spec, 4, 20, &mut history, at(30)).replicas, 4);
        assert_eq!(allow(&spec, 4, 20, &mut history, at(61)).replicas, 6);
        history.scaled(4, 6, at(61));
        assert_eq!(allow(&spec, 10, 20, &mut history, at(200)).replicas, 15);
        let down = allow(&spec, 12, 2, &mut history, at(300));
        assert_eq!((down.replicas, reasons(&down)[1]), (9, "ScaleDownLimit"));
        assert_eq!(allow(&spec, 4, 2, &mut history, at(400)).replicas, 2);
    }

    #[test]
    fn a_direction_can_be_closed_and_windows_be_chosen() {
        let rules = json!({
            "scaleUp": {"stabilizationWindowSeconds": 60},
            "scaleDown": {"selectPolicy": "Disabled", "stabilizationWindowSeconds": 0},
        });
        let (spec, mut history) = (spec(&rules), History::default());
        history.begin(5, at(0));
        let up = allow(&spec, 5, 10, &mut history, at(10));
        assert_eq!((up.replicas, reasons(&up)[0]), (5, "ScaleUpStabilized"));
        assert_eq!(allow(&spec, 5, 10, &mut history, at(61)).replicas, 10);
        assert_eq!(allow(&spec, 10, 2, &mut history, at(200)).replicas, 10);
    }
}
