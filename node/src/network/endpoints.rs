//! Which endpoints of a Service traffic may go to, from where it comes and by what the Service says.
//!
//! | policy | traffic goes to |
//! |---|---|
//! | `Cluster` | all ready endpoints, or those near by if the Service's slices say which those are |
//! | `Local` | the ready ones of this node |
//!
//! Where none is ready, those on their way out that still serve take it. Pure.
//!
//! Source: `CategorizeEndpoints` of kube-proxy, as behaviour.

use super::service_table::{EndpointFacts, SliceFacts};

/// Where this node is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) node: String,
    pub(super) zone: Option<String>,
}

/// How far traffic may go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum TrafficPolicy {
    #[default]
    Cluster,
    Local,
}

impl TrafficPolicy {
    pub(super) fn parse(text: Option<&str>) -> Self {
        match text {
            Some("Local") => Self::Local,
            _ => Self::Cluster,
        }
    }
}

/// An endpoint and the slice that has its ports.
pub(super) type Member<'a> = (&'a SliceFacts, &'a EndpointFacts);

fn all<'a>(slices: &[&'a SliceFacts]) -> Vec<Member<'a>> {
    let of_slice = |slice: &&'a SliceFacts| {
        let slice = *slice;
        slice.endpoints.iter().map(move |each| (slice, each))
    };
    slices.iter().flat_map(of_slice).collect()
}

/// The ready ones; if there are none, those that still serve.
fn usable(members: &[Member<'_>], which: impl Fn(&EndpointFacts) -> bool) -> Vec<usize> {
    let select = |fits: &dyn Fn(&EndpointFacts) -> bool| -> Vec<usize> {
        let numbered = members.iter().enumerate();
        let fitting = numbered.filter(|(_, (_, each))| which(each) && fits(each));
        fitting.map(|(index, _)| index).collect()
    };
    let ready = select(&|each| each.ready);
    if ready.is_empty() {
        select(&|each| each.serving)
    } else {
        ready
    }
}

fn picked<'a>(members: &[Member<'a>], indexes: &[usize]) -> Vec<Member<'a>> {
    let found = indexes.iter().filter_map(|index| members.get(*index));
    found.copied().collect()
}

/// The endpoints for traffic under a policy.
pub(super) fn choose<'a>(
    slices: &[&'a SliceFacts],
    place: &Place,
    policy: TrafficPolicy,
) -> Vec<Member<'a>> {
    let members = all(slices);
    let here = |each: &EndpointFacts| each.node.as_deref() == Some(&*place.node);
    let indexes = match policy {
        TrafficPolicy::Local => usable(&members, here),
        TrafficPolicy::Cluster => {
            near(&members, place).unwrap_or_else(|| usable(&members, |_| true))
        }
    };
    picked(&members, &indexes)
}

/// The ready endpoints meant for this node, or else for its zone: if every ready endpoint says whom it is meant
/// for, and one of them is meant for us.
fn near(members: &[Member<'_>], place: &Place) -> Option<Vec<usize>> {
    let ready = || {
        members
            .iter()
            .enumerate()
            .filter(|(_, (_, each))| each.ready)
    };
    let meant = |hints: fn(&EndpointFacts) -> &[String], us: &str| -> Option<Vec<usize>> {
        let hinted = ready().all(|(_, (_, each))| !hints(each).is_empty());
        let ours = ready().filter(|(_, (_, each))| hints(each).iter().any(|whom| whom == us));
        let ours: Vec<_> = ours.map(|(index, _)| index).collect();
        (hinted && !ours.is_empty()).then_some(ours)
    };
    let zone = place.zone.as_deref();
    meant(|each| &each.for_nodes, &place.node).or_else(|| meant(|each| &each.for_zones, zone?))
}

#[cfg(test)]
mod tests {
    use super::super::service_table::tests::slice;
    use super::*;

    /// `address ready node [z=zone hint] [n=node hint]`, all serving.
    fn members(rows: &[&str]) -> SliceFacts {
        let mut facts = slice("a", "web", &[]);
        for row in rows {
            let mut words = row.split(' ');
            let address = words.next().unwrap();
            let ready = words.next() == Some("ready");
            let mut one = slice("a", "web", &[(address, ready)]).endpoints.remove(0);
            one.node = words.next().map(str::to_owned);
            for word in words {
                let (kind, whom) = word.split_once('=').unwrap();
                let list = if kind == "z" {
                    &mut one.for_zones
                } else {
                    &mut one.for_nodes
                };
                list.push(whom.to_owned());
            }
            facts.endpoints.push(one);
        }
        facts
    }

    #[test]
    fn traffic_goes_where_policy_and_hints_say() {
        use TrafficPolicy::{Cluster, Local};
        let place = Place {
            node: "here".to_owned(),
            zone: Some("z1".to_owned()),
        };
        for (rows, policy, want) in [
            (
                &["10.0.0.1 ready here", "10.0.0.2 ready there"][..],
                Cluster,
                &[1, 2][..],
            ),
            (
                &["10.0.0.1 ready here", "10.0.0.2 ready there"],
                Local,
                &[1],
            ),
            (&["10.0.0.1 ready there"], Local, &[]),
            (
                &["10.0.0.1 leaving here", "10.0.0.2 ready there"],
                Local,
                &[1],
            ),
            (
                &["10.0.0.1 leaving here", "10.0.0.2 ready there"],
                Cluster,
                &[2],
            ),
            (
                &["10.0.0.1 ready there z=z1", "10.0.0.2 ready there z=z2"],
                Cluster,
                &[1],
            ),
            (
                &["10.0.0.1 ready there z=z3", "10.0.0.2 ready there z=z2"],
                Cluster,
                &[1, 2],
            ),
            (
                &["10.0.0.1 ready there z=z1", "10.0.0.2 ready there"],
                Cluster,
                &[1, 2],
            ),
            (
                &[
                    "10.0.0.1 ready here n=here z=z1",
                    "10.0.0.2 ready there n=there z=z1",
                ],
                Cluster,
                &[1],
            ),
            (
                &[
                    "10.0.0.1 ready far n=far z=z1",
                    "10.0.0.2 ready there n=there z=z2",
                ],
                Cluster,
                &[1],
            ),
            (
                &["10.0.0.1 leaving there z=z1", "10.0.0.2 leaving there z=z2"],
                Cluster,
                &[1, 2],
            ),
        ] {
            let facts = members(rows);
            let chosen = choose(&[&facts], &place, policy);
            let last =
                |ip: std::net::IpAddr| ip.to_string().rsplit('.').next().unwrap().parse::<u8>();
            let got: Vec<_> = chosen
                .iter()
                .map(|(_, each)| last(each.address).unwrap())
                .collect();
            assert_eq!(got, want, "{rows:?} {policy:?}");
        }
    }
}
