//! Answers from outside, for as long as they say, in bounded memory. Pure: the time is told.
//!
//! Whoever asks gets the records with the time they have left. When there is no room, what would end first goes first.
//!
//! Spec: RFC 2181 (times to live), 2308 (negative answers), 8767 is not followed: what is over is over.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_proto::op::{Query, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use super::zone::Reply;

/// The longest that an answer is kept, in seconds.
const MAX_TTL: u32 = 3600;

/// The longest that a negative answer is kept.
const MAX_NEGATIVE_TTL: u32 = 300;

/// Records of all answers together. One is some 200 bytes.
const MAX_RECORDS: usize = 65_536;

/// What an answer costs besides its records.
const OVERHEAD: usize = 2;

/// A name in lower case and the kind of its records.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key(Name, RecordType);

impl Key {
    pub(super) fn of(question: &Query) -> Self {
        Self(question.name().to_lowercase(), question.query_type())
    }
}

struct Entry {
    reply: Arc<Reply>,
    stored: Instant,
    /// Its place in the order of ends.
    end: (Instant, u64),
}

/// The answers that are known.
#[derive(Default)]
pub(super) struct Cache {
    entries: HashMap<Key, Entry>,
    ends: BTreeMap<(Instant, u64), Key>,
    records: usize,
    next: u64,
}

fn weight(reply: &Reply) -> usize {
    OVERHEAD + reply.answers.len() + reply.authority.len()
}

impl Cache {
    /// The answer, if one is known, with the time it has left.
    pub(super) fn get(&self, key: &Key, now: Instant) -> Option<Reply> {
        let entry = self.entries.get(key).filter(|entry| now < entry.end.0)?;
        let age = now.saturating_duration_since(entry.stored).as_secs();
        let mut reply = Reply::clone(&entry.reply);
        for record in reply.answers.iter_mut().chain(&mut reply.authority) {
            // Less than the cache ends by, so never nothing.
            let left = u64::from(record.ttl).saturating_sub(age);
            record.ttl = u32::try_from(left).unwrap_or(0);
        }
        Some(reply)
    }

    /// Keeps an answer for as long as it says, if that is any time.
    pub(super) fn put(&mut self, key: Key, reply: Arc<Reply>, now: Instant) {
        let ttl = Duration::from_secs(lifetime(&reply).into());
        let weight = weight(&reply);
        self.remove(&key);
        if ttl.is_zero() || weight > MAX_RECORDS {
            return;
        }
        while self.records + weight > MAX_RECORDS {
            let Some((_, first)) = self.ends.first_key_value() else {
                break;
            };
            let first = first.clone();
            self.remove(&first);
        }
        let end = (now + ttl, self.next);
        self.next += 1;
        self.records += weight;
        self.ends.insert(end, key.clone());
        let stored = now;
        self.entries.insert(key, Entry { reply, stored, end });
    }

    fn remove(&mut self, key: &Key) {
        if let Some(old) = self.entries.remove(key) {
            self.ends.remove(&old.end);
            self.records -= weight(&old.reply);
        }
    }
}

/// How many seconds an answer counts.
fn lifetime(reply: &Reply) -> u32 {
    let is_negative = reply.code == ResponseCode::NXDomain || reply.answers.is_empty();
    match (reply.code, is_negative) {
        (ResponseCode::NoError | ResponseCode::NXDomain, true) => {
            let soa = reply
                .authority
                .iter()
                .find_map(|record| match &record.data {
                    RData::SOA(soa) => Some(record.ttl.min(soa.minimum)),
                    _ => None,
                });
            // Spec: RFC 2308, 5: without a SOA record it is not to be kept.
            soa.unwrap_or(0).min(MAX_NEGATIVE_TTL)
        }
        (ResponseCode::NoError, false) => shortest(&reply.answers).min(MAX_TTL),
        _ => 0,
    }
}

fn shortest(records: &[Record]) -> u32 {
    records.iter().map(|record| record.ttl).min().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use hickory_proto::rr::rdata::SOA;

    use super::*;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    fn key(text: &str) -> Key {
        Key::of(&Query::query(name(text), RecordType::A))
    }

    fn address(ttl: u32) -> Record {
        let data = RData::from(std::net::IpAddr::from([192, 0, 2, 1]));
        Record::from_rdata(name("a.example."), ttl, data)
    }

    fn soa(ttl: u32, minimum: u32) -> Record {
        let soa = SOA::new(name("ns.example."), name("m.example."), 1, 1, 1, 1, minimum);
        Record::from_rdata(name("example."), ttl, RData::SOA(soa))
    }

    fn reply(code: ResponseCode, answers: Vec<Record>, authority: Vec<Record>) -> Reply {
        Reply {
            answers,
            authority,
            ..Reply::code(code)
        }
    }

    #[test]
    fn answers_count_as_long_as_they_say_within_bounds() {
        use ResponseCode::{NXDomain, NoError, ServFail};
        for (reply, want) in [
            (reply(NoError, vec![address(60), address(30)], vec![]), 30),
            (reply(NoError, vec![address(0)], vec![]), 0),
            (reply(NoError, vec![address(1_000_000)], vec![]), 3600),
            (reply(NXDomain, vec![], vec![soa(100, 20)]), 20),
            (reply(NXDomain, vec![], vec![soa(10, 20)]), 10),
            (reply(NXDomain, vec![address(60)], vec![soa(100, 20)]), 20),
            (reply(NoError, vec![], vec![soa(9000, 9000)]), 300),
            (reply(NXDomain, vec![], vec![]), 0),
            (reply(ServFail, vec![], vec![soa(100, 20)]), 0),
        ] {
            assert_eq!(lifetime(&reply), want, "{reply:?}");
        }
    }

    #[test]
    fn an_answer_ages_and_ends() {
        let mut cache = Cache::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let stored = reply(
            ResponseCode::NoError,
            vec![address(30), address(90)],
            vec![],
        );
        cache.put(key("A.example."), Arc::new(stored), start);
        let aged = cache.get(&key("a.EXAMPLE."), at(10)).unwrap();
        assert_eq!(
            aged.answers.iter().map(|it| it.ttl).collect::<Vec<_>>(),
            [20, 80]
        );
        assert!(cache.get(&key("a.example."), at(29)).is_some());
        assert!(cache.get(&key("a.example."), at(30)).is_none());
        assert!(cache.get(&key("b.example."), start).is_none());
    }

    #[test]
    fn what_ends_first_makes_room() {
        let mut cache = Cache::default();
        let now = Instant::now();
        let big = |ttl| {
            let answers = vec![address(ttl); MAX_RECORDS / 2 - OVERHEAD];
            Arc::new(reply(ResponseCode::NoError, answers, vec![]))
        };
        cache.put(key("long.example."), big(100), now);
        cache.put(key("short.example."), big(10), now);
        cache.put(key("short.example."), big(20), now);
        assert_eq!(cache.records, MAX_RECORDS);
        cache.put(key("new.example."), big(50), now);
        let known = ["long.example.", "short.example.", "new.example."]
            .map(|it| cache.get(&key(it), now).is_some());
        assert_eq!(known, [true, false, true]);
        assert_eq!((cache.records, cache.ends.len()), (MAX_RECORDS, 2));
    }
}
