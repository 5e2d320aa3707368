//! Bytes of DNS to questions, and replies to bytes.
//!
//! What a stranger sends is looked at before anything is made of it: one question, no records but those of EDNS.
//! The question goes back as it came, in upper and lower case.
//!
//! Spec: RFC 1035, 6891 (EDNS), 8482 (ANY), 9715 (sizes).

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, RecordType};

use super::zone::Reply;

/// The longest message over UDP, whatever the other side would take: longer ones get lost in pieces.
pub(super) const MAX_DATAGRAM: u16 = 1232;

/// The longest message over UDP for who does not say what it takes.
const SMALL_DATAGRAM: u16 = 512;

/// Length of a message's fixed part.
const HEADER: usize = 12;

/// Records that may stand behind a question: EDNS and a signature.
const MAX_ADDITIONAL: u16 = 2;

/// A question, and what its answer has to be like.
#[derive(Debug, Clone)]
pub(in crate::network) struct Request {
    id: u16,
    pub(in crate::network) question: Query,
    recursion_desired: bool,
    checking_disabled: bool,
    /// The longest datagram that the asker takes, if it speaks EDNS.
    payload: Option<u16>,
}

/// What bytes turned out to be.
#[derive(Debug)]
pub(in crate::network) enum Parsed {
    Question(Request),
    /// Not a question that is answered here; this says so.
    Refusal(Vec<u8>),
    /// Nothing that asks to be answered.
    Noise,
}

/// How an answer travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::network) enum Carrier {
    Datagram,
    Stream,
}

/// Reads what somebody asks.
pub(in crate::network) fn parse(bytes: &[u8]) -> Parsed {
    let Some(header) = bytes.first_chunk::<HEADER>() else {
        return Parsed::Noise;
    };
    let [id0, id1, flags, _, questions @ .., a0, a1] = header;
    if flags & 0x80 != 0 {
        return Parsed::Noise;
    }
    let id = u16::from_be_bytes([*id0, *id1]);
    let op_code = OpCode::from_u8((flags >> 3) & 0x0f);
    let refuse = |code| {
        let message = Message::error_msg(id, op_code, code);
        message.to_vec().map_or(Parsed::Noise, Parsed::Refusal)
    };
    if op_code != OpCode::Query {
        return refuse(ResponseCode::NotImp);
    }
    // One question, no answers, no authorities.
    if *questions != [0, 1, 0, 0, 0, 0] || u16::from_be_bytes([*a0, *a1]) > MAX_ADDITIONAL {
        return refuse(ResponseCode::FormErr);
    }
    match Message::from_vec(bytes) {
        Ok(message) => request(message).unwrap_or_else(Parsed::Refusal),
        Err(_) => refuse(ResponseCode::FormErr),
    }
}

fn request(mut message: Message) -> Result<Parsed, Vec<u8>> {
    let Some(question) = message.queries.pop() else {
        return Ok(Parsed::Noise);
    };
    let request = Request {
        id: message.metadata.id,
        recursion_desired: message.metadata.recursion_desired,
        checking_disabled: message.metadata.checking_disabled,
        payload: message.edns.as_ref().map(Edns::max_payload),
        question,
    };
    let code = match request.question.query_type() {
        _ if message.version() > 0 => ResponseCode::BADVERS,
        RecordType::AXFR | RecordType::IXFR => ResponseCode::Refused,
        // Spec: RFC 8482 lets a server not answer what only those who want to flood others ask.
        RecordType::ANY => ResponseCode::NotImp,
        _ if request.question.query_class() != DNSClass::IN => ResponseCode::Refused,
        _ => return Ok(Parsed::Question(request)),
    };
    Err(request.answer(Reply::code(code), Carrier::Datagram))
}

impl Request {
    /// The bytes of an answer; cut short, and saying so, where a datagram would be too long for the asker.
    pub(in crate::network) fn answer(&self, reply: Reply, carrier: Carrier) -> Vec<u8> {
        let mut message = Message::response(self.id, OpCode::Query);
        message.metadata.recursion_desired = self.recursion_desired;
        message.metadata.checking_disabled = self.checking_disabled;
        message.metadata.recursion_available = true;
        message.metadata.authoritative = reply.authoritative;
        message.metadata.response_code = reply.code;
        message.queries = vec![self.question.clone()];
        message.answers = reply.answers;
        message.authorities = reply.authority;
        if self.payload.is_some() {
            let mut edns = Edns::new();
            edns.set_max_payload(MAX_DATAGRAM);
            message.edns = Some(edns);
        }
        let limit = match carrier {
            Carrier::Stream => usize::from(u16::MAX),
            Carrier::Datagram => self.datagram_limit().into(),
        };
        match message.to_vec() {
            Ok(bytes) if bytes.len() <= limit => bytes,
            // Spec: RFC 2181, 9: who sees this asks again by TCP, whatever else stands there.
            Ok(_) => message.truncate().to_vec().unwrap_or_default(),
            Err(error) => {
                tracing::warn!(%error, "an answer cannot be written");
                let failed = Message::error_msg(self.id, OpCode::Query, ResponseCode::ServFail);
                failed.to_vec().unwrap_or_default()
            }
        }
    }

    fn datagram_limit(&self) -> u16 {
        let wanted = self.payload.unwrap_or(SMALL_DATAGRAM);
        wanted.clamp(SMALL_DATAGRAM, MAX_DATAGRAM)
    }
}

/// A question of our own to another server: its number and its bytes.
pub(super) fn ask(question: &Query) -> Option<(u16, Vec<u8>)> {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.queries.push(question.clone());
    let mut edns = Edns::new();
    edns.set_max_payload(MAX_DATAGRAM);
    message.edns = Some(edns);
    let bytes = message.to_vec().ok()?;
    Some((message.metadata.id, bytes))
}

/// Reads an answer, if it is one to that question: anything else comes from somebody who guesses.
pub(super) fn read(bytes: &[u8], id: u16, question: &Query) -> Option<Message> {
    let header = bytes.first_chunk::<HEADER>()?;
    if header.first_chunk() != Some(&id.to_be_bytes()) {
        return None;
    }
    let message = Message::from_vec(bytes).ok()?;
    let ours = message.metadata.message_type == MessageType::Response
        && message.metadata.op_code == OpCode::Query
        && message.queries == [question.clone()];
    ours.then_some(message)
}

#[cfg(test)]
mod tests {
    use hickory_proto::rr::{Name, RData, Record};

    use super::*;

    fn packet(change: impl FnOnce(&mut Message)) -> Vec<u8> {
        let mut message = Message::new(7, MessageType::Query, OpCode::Query);
        let name = Name::from_ascii("WeB.shop.svc.cluster.local.").unwrap();
        message.queries.push(Query::query(name, RecordType::A));
        change(&mut message);
        message.to_vec().unwrap()
    }

    fn question(bytes: &[u8]) -> Request {
        match parse(bytes) {
            Parsed::Question(request) => request,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_no_question_is_refused_by_its_number_or_dropped() {
        use ResponseCode::{BADVERS, FormErr, NotImp, Refused};
        let mut short = packet(|_| {});
        short.truncate(20);
        let mut many = packet(|_| {});
        many[5] = 9;
        let mut answers = packet(|_| {});
        (answers[6], answers[7]) = (0xff, 0xff);
        for (bytes, want) in [
            (short, FormErr),
            (many, FormErr),
            (answers, FormErr),
            (packet(|it| it.metadata.op_code = OpCode::Notify), NotImp),
            (
                packet(|it| {
                    it.queries[0].set_query_type(RecordType::ANY);
                }),
                NotImp,
            ),
            (
                packet(|it| {
                    it.queries[0].set_query_type(RecordType::AXFR);
                }),
                Refused,
            ),
            (
                packet(|it| {
                    it.queries[0].set_query_class(DNSClass::CH);
                }),
                Refused,
            ),
            (
                packet(|it| {
                    let mut edns = Edns::new();
                    edns.set_version(1);
                    it.edns = Some(edns);
                }),
                BADVERS,
            ),
        ] {
            let Parsed::Refusal(answer) = parse(&bytes) else {
                panic!("{want}");
            };
            let answer = Message::from_vec(&answer).unwrap().metadata;
            // BADVERS and BADSIG share a number.
            let code = u16::from(answer.response_code);
            assert_eq!((answer.id, code), (7, u16::from(want)));
        }
        let response = packet(|it| it.metadata.message_type = MessageType::Response);
        for bytes in [&b""[..], b"eleven byte", &response] {
            assert!(matches!(parse(bytes), Parsed::Noise));
        }
    }

    fn long(records: u8) -> Reply {
        let name = Name::from_ascii("web.shop.svc.cluster.local.").unwrap();
        let address = |last| RData::from(std::net::IpAddr::from([10, 42, 0, last]));
        let answers = (0..records).map(|last| Record::from_rdata(name.clone(), 5, address(last)));
        Reply {
            answers: answers.collect(),
            ..Reply::code(ResponseCode::NoError)
        }
    }

    #[test]
    fn answers_fit_what_the_asker_takes_and_say_when_they_do_not() {
        let with = |payload: u16| {
            packet(|it| {
                let mut edns = Edns::new();
                edns.set_max_payload(payload);
                it.edns = Some(edns);
            })
        };
        // 200 addresses are some 3,300 bytes, 50 some 850.
        for (bytes, records, carrier, whole) in [
            (packet(|_| {}), 20, Carrier::Datagram, true),
            (packet(|_| {}), 50, Carrier::Datagram, false),
            (with(1000), 50, Carrier::Datagram, true),
            (with(0), 50, Carrier::Datagram, false),
            (with(65_535), 200, Carrier::Datagram, false),
            (packet(|_| {}), 200, Carrier::Stream, true),
        ] {
            let request = question(&bytes);
            let answer = request.answer(long(records), carrier);
            let read = Message::from_vec(&answer).unwrap();
            assert_eq!(!read.metadata.truncation, whole, "{records} {carrier:?}");
            assert_eq!(read.answers.len(), if whole { records.into() } else { 0 });
            assert!(carrier == Carrier::Stream || answer.len() <= 1232);
            assert_eq!(read.edns.is_some(), request.payload.is_some());
            assert!(read.queries[0].name().eq_case(request.question.name()));
        }
    }

    #[test]
    fn only_the_answer_to_the_question_is_heard() {
        let question = Query::query(Name::from_ascii("a.example.").unwrap(), RecordType::A);
        let other = Query::query(Name::from_ascii("b.example.").unwrap(), RecordType::A);
        let (id, asked) = ask(&question).unwrap();
        let answer = |id, of: &Query| {
            let mut message = Message::response(id, OpCode::Query);
            message.queries.push(of.clone());
            message.to_vec().unwrap()
        };
        assert!(read(&answer(id, &question), id, &question).is_some());
        assert!(read(&answer(id.wrapping_add(1), &question), id, &question).is_none());
        assert!(read(&answer(id, &other), id, &question).is_none());
        assert!(read(&asked, id, &question).is_none(), "our own question");
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_are_too_odd(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            let mut bytes = bytes;
            // With a header that is looked behind.
            if let Some(header) = bytes.get_mut(2..12) {
                header.copy_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 1]);
            }
            if let Parsed::Question(request) = parse(&bytes) {
                let answer = request.answer(long(50), Carrier::Datagram);
                proptest::prop_assert!(answer.len() <= 1232);
                proptest::prop_assert!(Message::from_vec(&answer).is_ok());
            }
        }
    }
}
