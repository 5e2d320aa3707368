//! What the node's DNS and Ingress servers have answered, counted for metrics.
//!
//! Labels are few whoever asks: types and codes of DNS that have no place in the table are `other`, and Ingress requests are
//! told apart by the Service that an Ingress names, of which there are as many as somebody with rights has made.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;

use super::follow::ObjectKey;

/// Types of questions that are told apart.
const TYPES: [(&str, Option<RecordType>); 7] = [
    ("A", Some(RecordType::A)),
    ("AAAA", Some(RecordType::AAAA)),
    ("CNAME", Some(RecordType::CNAME)),
    ("PTR", Some(RecordType::PTR)),
    ("SRV", Some(RecordType::SRV)),
    ("TXT", Some(RecordType::TXT)),
    ("other", None),
];
/// Codes of answers that are told apart.
const CODES: [(&str, Option<ResponseCode>); 5] = [
    ("NOERROR", Some(ResponseCode::NoError)),
    ("NXDOMAIN", Some(ResponseCode::NXDomain)),
    ("SERVFAIL", Some(ResponseCode::ServFail)),
    ("REFUSED", Some(ResponseCode::Refused)),
    ("other", None),
];
/// Upper bounds of the durations that are told apart, in seconds: those of Prometheus' clients.
pub(crate) const BUCKETS: [f64; 11] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];
/// Pairs of Service and code that are told apart; what comes beyond is counted for no Service.
const MAX_REQUESTS: usize = 10_000;

/// Answers to questions, by type and code.
#[derive(Debug, Default)]
pub(super) struct DnsCounts([[AtomicU64; CODES.len()]; TYPES.len()]);

/// The place in a table of what is asked for; the last is for all others.
fn place<T: PartialEq, const N: usize>(table: &[(&str, Option<T>); N], what: &T) -> usize {
    let mut all = table.iter();
    let found = all.position(|(_, known)| known.as_ref() == Some(what));
    found.unwrap_or(N - 1)
}

impl DnsCounts {
    pub(super) fn count(&self, question: RecordType, answer: ResponseCode) {
        let of_type = self.0.get(place(&TYPES, &question));
        if let Some(counter) = of_type.and_then(|codes| codes.get(place(&CODES, &answer))) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Type, code and how many, of those that there were.
    pub(super) fn told(&self) -> Vec<(&'static str, &'static str, u64)> {
        let rows = TYPES.iter().zip(&self.0);
        let all = rows.flat_map(|((question, _), counters)| {
            let codes = CODES.iter().zip(counters);
            codes.map(move |((code, _), counter)| {
                (*question, *code, counter.load(Ordering::Relaxed))
            })
        });
        all.filter(|(_, _, count)| *count > 0).collect()
    }
}

/// Requests to Ingresses.
#[derive(Debug, Default)]
pub(super) struct IngressCounts(Mutex<Requests>);

/// Requests that were answered.
#[derive(Clone, Debug, Default)]
pub(crate) struct Requests {
    /// By namespace and name of the Service, both empty where no rule led to one, and by status.
    pub(crate) answered: BTreeMap<(String, String, u16), u64>,
    /// By the first of [`BUCKETS`] that is not exceeded; the last is for longer ones.
    pub(crate) durations: [u64; BUCKETS.len() + 1],
    /// All durations together.
    pub(crate) total: Duration,
}

impl IngressCounts {
    pub(super) fn count(&self, service: Option<&ObjectKey>, status: u16, took: Duration) {
        let mut requests = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (namespace, name) = service.map_or(("", ""), |it| (&*it.namespace, &*it.name));
        let mut key = (namespace.to_owned(), name.to_owned(), status);
        if requests.answered.len() >= MAX_REQUESTS && !requests.answered.contains_key(&key) {
            key = (String::new(), String::new(), status);
        }
        *requests.answered.entry(key).or_default() += 1;
        let within = |bound: &f64| took.as_secs_f64() <= *bound;
        let bucket = BUCKETS.iter().position(within).unwrap_or(BUCKETS.len());
        if let Some(counter) = requests.durations.get_mut(bucket) {
            *counter += 1;
        }
        requests.total += took;
    }

    pub(super) fn told(&self) -> Requests {
        let requests = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        requests.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_of_any_type_have_a_place() {
        let counts = DnsCounts::default();
        counts.count(RecordType::A, ResponseCode::NoError);
        counts.count(RecordType::A, ResponseCode::NoError);
        counts.count(RecordType::MX, ResponseCode::NotImp);
        counts.count(RecordType::from(65_000), ResponseCode::NXDomain);
        let told = counts.told();
        let wanted = [
            ("A", "NOERROR", 2),
            ("other", "NXDOMAIN", 1),
            ("other", "other", 1),
        ];
        assert_eq!(told, wanted);
    }

    #[test]
    fn requests_are_told_apart_up_to_a_bound() {
        let counts = IngressCounts::default();
        for number in 0..MAX_REQUESTS + 5 {
            let service = ObjectKey::new("a", &number.to_string());
            counts.count(Some(&service), 200, Duration::from_millis(7));
        }
        counts.count(None, 404, Duration::from_secs(60));
        let told = counts.told();
        let of_none = |status| (String::new(), String::new(), status);
        assert_eq!(told.answered.get(&of_none(200)), Some(&5));
        assert_eq!(told.answered.get(&of_none(404)), Some(&1));
        assert_eq!(told.durations[1], MAX_REQUESTS as u64 + 5);
        assert_eq!(told.durations[BUCKETS.len()], 1);
    }
}
