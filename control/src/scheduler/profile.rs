//! What a scheduler of one name does: which plugins, with which weights and arguments.
//!
//! Read from a file of kind `KubeSchedulerConfiguration` (kubescheduler.config.k8s.io/v1), upstream's. What
//! it can say and this scheduler does not do is refused by name instead of being skipped.

use std::collections::{BTreeMap, HashSet};

use k8s_openapi::api::core::v1::{NodeAffinity, TopologySpreadConstraint};
use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;

use super::plugins::{PLUGINS, position};
use super::pod_affinity::Spread;
use super::pod_info::DEFAULT;
use crate::file_kind;
use crate::node_terms::NodeTerms;

const API_VERSION: &str = "kubescheduler.config.k8s.io/v1";
const KIND: &str = "KubeSchedulerConfiguration";
/// The plugin that makes room, which is no row of the table.
const PREEMPTION: &str = "DefaultPreemption";
/// Upstream's plugins whose work is done elsewhere and cannot be switched off: waiting for gates, the
/// order of the queue, and binding.
const ALWAYS: [&str; 3] = ["SchedulingGates", "PrioritySort", "DefaultBinder"];

/// What is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("scheduler configuration: {0}")]
pub struct ConfigError(String);

/// The profiles of all schedulers of this process.
#[derive(Clone, Debug)]
pub struct Profiles(BTreeMap<String, Profile>);

/// What a scheduler of one name does.
#[derive(Clone, Debug)]
pub(super) struct Profile {
    /// Positions in [`PLUGINS`] of the filters that are asked.
    pub(super) filters: Vec<usize>,
    /// Positions in [`PLUGINS`] of the scores that count, with their weights.
    pub(super) scores: Vec<(usize, i64)>,
    /// Whether pods of lower priority make room.
    pub(super) preempts: bool,
    /// Of all nodes, how many are looked at at least until enough have room; `None` adapts it.
    pub(super) percentage: Option<usize>,
    pub(super) fit: FitArgs,
    pub(super) balanced: Vec<Weighted>,
    pub(super) added_affinity: NodeTerms,
    pub(super) spread: SpreadArgs,
    pub(super) hard_affinity_weight: i64,
    pub(super) ignores_preferences_of_others: bool,
    pub(super) preemption: PreemptionArgs,
}

/// A resource and how much it counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Weighted {
    pub(super) name: String,
    pub(super) weight: i64,
}

/// How full nodes should be.
#[derive(Clone, Debug)]
pub(super) struct FitArgs {
    pub(super) strategy: Strategy,
    pub(super) resources: Vec<Weighted>,
}

/// What of the use of a resource is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Strategy {
    LeastAllocated,
    MostAllocated,
    /// Points of a line: percent in use, score.
    RequestedToCapacityRatio(Vec<(i64, i64)>),
}

/// Constraints for pods that have none.
#[derive(Clone, Debug)]
pub(super) struct SpreadArgs {
    pub(super) constraints: Vec<Spread>,
    /// Whether nobody wrote them.
    pub(super) is_builtin: bool,
}

/// How many nodes are tried to make room on.
#[derive(Clone, Copy, Debug)]
pub(super) struct PreemptionArgs {
    pub(super) percentage: usize,
    pub(super) least: usize,
}

impl Default for Profiles {
    fn default() -> Self {
        Self(BTreeMap::from([(DEFAULT.to_owned(), Profile::default())]))
    }
}

impl Default for Profile {
    fn default() -> Self {
        let filters = PLUGINS.iter().enumerate();
        let scores = filters.clone().filter(|(_, plugin)| plugin.score.is_some());
        Self {
            filters: filters
                .filter(|(_, plugin)| plugin.filter.is_some())
                .map(|(at, _)| at)
                .collect(),
            scores: scores.map(|(at, plugin)| (at, plugin.weight)).collect(),
            preempts: true,
            percentage: None,
            fit: FitArgs {
                strategy: Strategy::LeastAllocated,
                resources: cpu_and_memory(),
            },
            balanced: cpu_and_memory(),
            added_affinity: NodeTerms::default(),
            spread: SpreadArgs {
                constraints: builtin_spread(),
                is_builtin: true,
            },
            hard_affinity_weight: 1,
            ignores_preferences_of_others: false,
            preemption: PreemptionArgs {
                percentage: 10,
                least: 100,
            },
        }
    }
}

fn cpu_and_memory() -> Vec<Weighted> {
    let one = |name: &str| Weighted {
        name: name.to_owned(),
        weight: 1,
    };
    vec![one("cpu"), one("memory")]
}

fn builtin_spread() -> Vec<Spread> {
    let constraint = |key: &str, max_skew| TopologySpreadConstraint {
        max_skew,
        topology_key: key.to_owned(),
        when_unsatisfiable: "ScheduleAnyway".into(),
        ..TopologySpreadConstraint::default()
    };
    let constraints = [
        constraint("kubernetes.io/hostname", 3),
        constraint("topology.kubernetes.io/zone", 5),
    ];
    let constraints = constraints.iter();
    constraints
        .map(|of| Spread::of(of, &BTreeMap::new()))
        .collect()
}

impl Profiles {
    /// The profile of the schedulers of that name, if it is one of this process.
    pub(super) fn get(&self, scheduler: &str) -> Option<&Profile> {
        self.0.get(scheduler)
    }

    /// Reads a configuration, as YAML or JSON.
    ///
    /// # Errors
    /// It cannot be understood, or asks for something that is not supported.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let file: File =
            serde_yaml::from_str(text).map_err(|error| ConfigError(error.to_string()))?;
        let kind = (&*file.kind, &*file.api_version);
        let checked = file_kind::check("the file", kind, KIND, &[API_VERSION]);
        checked.map_err(|error| ConfigError(error.to_string()))?;
        let mut profiles = BTreeMap::new();
        for (at, row) in file.profiles.iter().enumerate() {
            let place = |error: String| ConfigError(format!("profiles[{at}]: {error}"));
            let name = row.scheduler_name.clone().unwrap_or_else(|| DEFAULT.into());
            let profile = read(row, file.percentage_of_nodes_to_score).map_err(place)?;
            if profiles.insert(name.clone(), profile).is_some() {
                return Err(place(format!("schedulerName {name:?} is there twice")));
            }
        }
        if profiles.is_empty() {
            let row = ProfileRow::default();
            let profile = read(&row, file.percentage_of_nodes_to_score).map_err(ConfigError)?;
            profiles.insert(DEFAULT.into(), profile);
        }
        Ok(Self(profiles))
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    api_version: String,
    kind: String,
    #[serde(default)]
    profiles: Vec<ProfileRow>,
    percentage_of_nodes_to_score: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ProfileRow {
    scheduler_name: Option<String>,
    percentage_of_nodes_to_score: Option<i64>,
    #[serde(default)]
    plugins: PluginSets,
    #[serde(default)]
    plugin_config: Vec<PluginArgs>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PluginSets {
    #[serde(default)]
    multi_point: PluginSet,
    #[serde(default)]
    filter: PluginSet,
    #[serde(default)]
    post_filter: PluginSet,
    #[serde(default)]
    score: PluginSet,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PluginSet {
    #[serde(default)]
    enabled: Vec<PluginRow>,
    #[serde(default)]
    disabled: Vec<PluginRow>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PluginRow {
    name: String,
    weight: Option<i64>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PluginArgs {
    name: String,
    args: Value,
}

fn read(row: &ProfileRow, of_all: Option<i64>) -> Result<Profile, String> {
    let mut profile = Profile::default();
    let sets = &row.plugins;
    let everywhere = Switched::of("multiPoint", &sets.multi_point)?;
    let filters = Switched::of("filter", &sets.filter)?;
    let scores = Switched::of("score", &sets.score)?;
    let post_filters = Switched::of("postFilter", &sets.post_filter)?;
    profile.filters.retain(|at| everywhere.keeps(*at, &filters));
    profile
        .scores
        .retain(|(at, _)| everywhere.keeps(*at, &scores));
    for (at, weight) in &mut profile.scores {
        let given = scores
            .weights
            .get(at)
            .or_else(|| everywhere.weights.get(at));
        *weight = given.copied().unwrap_or(*weight);
    }
    profile.preempts = post_filters.keeps_preemption && everywhere.keeps_preemption;
    let percentage = row.percentage_of_nodes_to_score.or(of_all).unwrap_or(0);
    profile.percentage = match percentage {
        0 => None,
        1..=100 => usize::try_from(percentage).ok(),
        _ => {
            return Err(format!(
                "percentageOfNodesToScore: {percentage} is not within 0 to 100"
            ));
        }
    };
    let mut seen = HashSet::new();
    for PluginArgs { name, args } in &row.plugin_config {
        if !seen.insert(name) {
            return Err(format!("pluginConfig: {name} is there twice"));
        }
        let read = profile.read_args(name, args.clone());
        read.map_err(|error| format!("pluginConfig of {name}: {error}"))?;
    }
    Ok(profile)
}

/// What a set of a profile switches on and off.
struct Switched {
    all_off: bool,
    off: HashSet<usize>,
    on: HashSet<usize>,
    weights: BTreeMap<usize, i64>,
    keeps_preemption: bool,
}

impl Switched {
    fn of(set: &str, plugins: &PluginSet) -> Result<Self, String> {
        let mut switched = Self {
            all_off: false,
            off: HashSet::new(),
            on: HashSet::new(),
            weights: BTreeMap::new(),
            keeps_preemption: true,
        };
        let unknown = |name: &str| format!("plugins.{set}: there is no plugin {name:?}");
        for PluginRow { name, .. } in &plugins.disabled {
            match (name.as_str(), position(name)) {
                ("*", _) => {
                    switched.all_off = true;
                    switched.keeps_preemption = false;
                }
                (PREEMPTION, _) => switched.keeps_preemption = false,
                (name, _) if ALWAYS.contains(&name) => {
                    return Err(format!("plugins.{set}: {name} cannot be switched off"));
                }
                (_, Some(at)) => {
                    switched.off.insert(at);
                }
                (name, None) => return Err(unknown(name)),
            }
        }
        for PluginRow { name, weight } in &plugins.enabled {
            match (name.as_str(), position(name)) {
                (PREEMPTION, _) => switched.keeps_preemption = true,
                (name, _) if ALWAYS.contains(&name) => {}
                (_, Some(at)) => {
                    switched.on.insert(at);
                    if let Some(weight) = weight.filter(|weight| *weight != 0) {
                        if weight < 0 {
                            return Err(format!(
                                "plugins.{set}: {name}: weight {weight} is below 0"
                            ));
                        }
                        switched.weights.insert(at, weight);
                    }
                }
                (name, None) => return Err(unknown(name)),
            }
        }
        Ok(switched)
    }

    /// Whether the plugin is still there, with `point` having the last word on its own extension point.
    fn keeps(&self, at: usize, point: &Self) -> bool {
        if point.on.contains(&at) {
            return true;
        }
        if point.all_off || point.off.contains(&at) {
            return false;
        }
        self.on.contains(&at) || !(self.all_off || self.off.contains(&at))
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ResourceRow {
    name: String,
    #[serde(default)]
    weight: i64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ShapePoint {
    utilization: i64,
    score: i64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Ratio {
    shape: Vec<ShapePoint>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ScoringStrategy {
    #[serde(rename = "type")]
    kind: String,
    resources: Option<Vec<ResourceRow>>,
    requested_to_capacity_ratio: Option<Ratio>,
}

/// The arguments of every plugin that has some; which of them apply is told by its name.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Args {
    #[serde(rename = "apiVersion")]
    _api_version: Option<String>,
    kind: Option<String>,
    scoring_strategy: Option<ScoringStrategy>,
    resources: Option<Vec<ResourceRow>>,
    added_affinity: Option<NodeAffinity>,
    default_constraints: Option<Vec<TopologySpreadConstraint>>,
    defaulting_type: Option<String>,
    hard_pod_affinity_weight: Option<i64>,
    ignore_preferred_terms_of_existing_pods: Option<bool>,
    min_candidate_nodes_percentage: Option<i64>,
    min_candidate_nodes_absolute: Option<i64>,
}

impl Profile {
    fn read_args(&mut self, name: &str, args: Value) -> Result<(), String> {
        let args: Args = serde_json::from_value(args).map_err(|error| error.to_string())?;
        let expected = format!("{name}Args");
        if let Some(kind) = args.kind.as_ref().filter(|kind| **kind != expected) {
            return Err(format!("kind is {kind}, not {expected}"));
        }
        match name {
            "NodeResourcesFit" => self.read_fit(args.scoring_strategy),
            "NodeResourcesBalancedAllocation" => {
                if let Some(rows) = args.resources {
                    self.balanced = weighted(rows)?;
                }
                Ok(())
            }
            "NodeAffinity" => {
                if let Some(affinity) = args.added_affinity {
                    self.added_affinity = NodeTerms::of_affinity(&affinity);
                }
                Ok(())
            }
            "PodTopologySpread" => {
                self.read_spread(args.default_constraints, args.defaulting_type.as_deref())
            }
            "InterPodAffinity" => {
                let weight = args.hard_pod_affinity_weight.unwrap_or(1);
                if !(0..=100).contains(&weight) {
                    return Err(format!(
                        "hardPodAffinityWeight: {weight} is not within 0 to 100"
                    ));
                }
                self.hard_affinity_weight = weight;
                self.ignores_preferences_of_others = args
                    .ignore_preferred_terms_of_existing_pods
                    .unwrap_or(false);
                Ok(())
            }
            PREEMPTION => {
                let given = |field: &str, value: Option<i64>, default: usize| match value {
                    None => Ok(default),
                    Some(value) => {
                        usize::try_from(value).map_err(|_| format!("{field}: {value} is below 0"))
                    }
                };
                self.preemption = PreemptionArgs {
                    percentage: given(
                        "minCandidateNodesPercentage",
                        args.min_candidate_nodes_percentage,
                        10,
                    )?,
                    least: given(
                        "minCandidateNodesAbsolute",
                        args.min_candidate_nodes_absolute,
                        100,
                    )?,
                };
                Ok(())
            }
            _ => Err("it takes no arguments here".into()),
        }
    }

    fn read_fit(&mut self, strategy: Option<ScoringStrategy>) -> Result<(), String> {
        let Some(given) = strategy else { return Ok(()) };
        let strategy = match (given.kind.as_str(), given.requested_to_capacity_ratio) {
            ("LeastAllocated", _) => Strategy::LeastAllocated,
            ("MostAllocated", _) => Strategy::MostAllocated,
            ("RequestedToCapacityRatio", Some(ratio)) => {
                Strategy::RequestedToCapacityRatio(shape(&ratio.shape)?)
            }
            ("RequestedToCapacityRatio", None) => {
                return Err("scoringStrategy.requestedToCapacityRatio is missing".into());
            }
            (other, _) => return Err(format!("scoringStrategy.type: there is no {other:?}")),
        };
        let resources = given.resources.map(weighted).transpose()?;
        self.fit = FitArgs {
            strategy,
            resources: resources.unwrap_or_else(cpu_and_memory),
        };
        Ok(())
    }

    fn read_spread(
        &mut self,
        constraints: Option<Vec<TopologySpreadConstraint>>,
        defaulting: Option<&str>,
    ) -> Result<(), String> {
        let constraints = constraints.unwrap_or_default();
        match defaulting {
            None | Some("System") if constraints.is_empty() => return Ok(()),
            None | Some("System") => {
                return Err("defaultConstraints need defaultingType List".into());
            }
            Some("List") => {}
            Some(other) => return Err(format!("defaultingType: there is no {other:?}")),
        }
        if constraints.iter().any(|of| of.label_selector.is_some()) {
            return Err("defaultConstraints must not have a labelSelector".into());
        }
        let constraints = constraints.iter();
        self.spread = SpreadArgs {
            constraints: constraints
                .map(|of| Spread::of(of, &BTreeMap::new()))
                .collect(),
            is_builtin: false,
        };
        Ok(())
    }
}

fn weighted(rows: Vec<ResourceRow>) -> Result<Vec<Weighted>, String> {
    let read = |ResourceRow { name, weight }| match weight {
        0 => Ok(Weighted { name, weight: 1 }),
        1..=100 => Ok(Weighted { name, weight }),
        _ => Err(format!(
            "resource {name}: weight {weight} is not within 1 to 100"
        )),
    };
    rows.into_iter().map(read).collect()
}

/// Upstream's scores go to 10.
fn shape(points: &[ShapePoint]) -> Result<Vec<(i64, i64)>, String> {
    if points.is_empty() {
        return Err("shape needs a point".into());
    }
    let mut last = -1;
    for ShapePoint { utilization, score } in points {
        if !(0..=100).contains(utilization) || *utilization <= last {
            return Err(format!(
                "shape: utilization {utilization} does not grow within 0 to 100"
            ));
        }
        if !(0..=10).contains(score) {
            return Err(format!("shape: score {score} is not within 0 to 10"));
        }
        last = *utilization;
    }
    let points = points.iter();
    Ok(points.map(|of| (of.utilization, of.score * 10)).collect())
}
