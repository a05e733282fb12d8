//! Who leads (contract §5), and never two at a time: whatever is lost, late, deleted or paused.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use migrations_core::lease::{Candidate, LEASE_DURATION, RENEW_DEADLINE, RENEW_PERIOD, RETRY_PERIOD, Step};
use proptest::prelude::*;
use rstest::rstest;

const fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A Lease as read. An empty holder is one that was given back.
fn lease(version: u64, holder: &str) -> Lease {
    let mut lease = Lease::default();
    lease.metadata.resource_version = Some(version.to_string());
    lease.metadata.uid = Some("uid-1".to_owned());
    lease.spec = Some(LeaseSpec { holder_identity: Some(holder.to_owned()), ..LeaseSpec::default() });
    lease
}

fn candidate() -> Candidate {
    Candidate::new("us".to_owned())
}

/// Another object of the same name.
fn made_anew(version: u64, holder: &str) -> Lease {
    let mut lease = lease(version, holder);
    lease.metadata.uid = Some(format!("uid-{version}"));
    lease
}

/// One that leads since a request sent at `sent`.
fn leader(sent: Duration) -> Candidate {
    let mut leader = candidate();
    leader.wrote(lease(1, "us"), sent, sent);
    leader
}

#[rstest]
#[case::there_is_none_yet(None, at(0), Step::Write)]
#[case::given_back(Some(lease(1, "")), at(0), Step::Write)]
#[case::without_a_spec(Some(Lease::default()), at(0), Step::Write)]
#[case::ours_from_before_a_restart(Some(lease(1, "us")), at(0), Step::Write)]
#[case::held_by_another(Some(lease(1, "other")), at(14), Step::Wait(at(15)))]
#[case::unchanged_for_too_long(Some(lease(1, "other")), at(15), Step::Write)]
fn a_candidate_that_reads_once(#[case] read: Option<Lease>, #[case] now: Duration, #[case] expected: Step) {
    let mut candidate = candidate();
    assert_eq!(candidate.next(now), Step::Read, "it knows nothing");
    candidate.read(read, at(0));
    assert_eq!(candidate.next(now), expected);
    assert!(!candidate.leads(now));
}

#[test]
fn a_renewal_that_is_seen_starts_the_wait_anew_and_seeing_the_same_does_not() {
    let mut candidate = candidate();
    candidate.read(Some(lease(1, "other")), at(0));
    candidate.read(Some(lease(2, "other")), at(10));
    candidate.read(Some(lease(2, "other")), at(20));
    assert_eq!(candidate.next(at(20)), Step::Wait(at(25)));
}

#[rstest]
#[case::longer(60, at(60))]
#[case::shorter(1, LEASE_DURATION)]
#[case::nonsense(-1, LEASE_DURATION)]
fn a_duration_in_the_lease_counts_where_it_is_longer(#[case] seconds: i32, #[case] expected: Duration) {
    let mut held = lease(1, "other");
    held.spec.as_mut().unwrap().lease_duration_seconds = Some(seconds);
    let mut candidate = candidate();
    candidate.read(Some(held), at(0));
    assert_eq!(candidate.next(at(0)), Step::Wait(expected));
}

#[test]
fn who_makes_a_deleted_lease_anew_leads_once_its_holder_must_have_stopped() {
    let mut candidate = candidate();
    candidate.read(Some(lease(1, "other")), at(0));
    candidate.read(None, at(5));
    assert_eq!(candidate.next(at(5)), Step::Write);
    assert_eq!(
        candidate.claim(Timestamp::UNIX_EPOCH).metadata,
        ObjectMeta { name: Some("migrations-controller".to_owned()), ..ObjectMeta::default() }
    );
    candidate.wrote(made_anew(3, "us"), at(5), at(6));
    assert!(!candidate.leads(at(6)));
    assert!(candidate.stands_by(at(6)));
    assert_eq!(candidate.next(at(6)), Step::Wait(at(6) + RENEW_DEADLINE));
    assert_eq!(candidate.next(at(16)), Step::Write);
    candidate.wrote(made_anew(3, "us"), at(16), at(16));
    assert!(candidate.leads(at(16)));
}

#[test]
fn who_makes_the_first_lease_leads_at_once() {
    let mut candidate = candidate();
    candidate.read(None, at(0));
    candidate.wrote(lease(1, "us"), at(0), at(1));
    assert!(candidate.leads(at(1)));
}

#[rstest]
#[case::deleted(None, Step::Write)]
#[case::made_anew_by_another(Some(made_anew(3, "other")), Step::Wait(at(16)))]
#[case::made_anew_by_a_request_of_its_own(Some(made_anew(3, "us")), Step::Wait(at(11)))]
#[case::taken_by_another(Some(lease(2, "other")), Step::Wait(at(16)))]
#[case::given_back_by_hand(Some(lease(2, "")), Step::Write)]
fn a_leader_whose_lease_is_gone_leads_no_longer(#[case] read: Option<Lease>, #[case] expected: Step) {
    let mut leader = leader(at(0));
    leader.read(read, at(1));
    assert!(!leader.leads(at(1)));
    assert_eq!(leader.next(at(1)), expected);
}

#[test]
fn a_leader_renews_in_time_and_counts_from_before_the_request() {
    let leader = leader(at(0));
    assert_eq!(leader.next(at(1)), Step::Wait(RENEW_PERIOD));
    assert_eq!(leader.next(RENEW_PERIOD), Step::Write);
    assert!(leader.leads(at(9)));
    assert!(!leader.leads(RENEW_DEADLINE));
    let mut late = candidate();
    late.wrote(lease(1, "us"), at(0), at(9));
    assert!(!late.leads(RENEW_DEADLINE));
}

#[test]
fn after_a_failure_it_pauses_and_then_reads_what_there_is() {
    let mut leader = leader(at(0));
    leader.failed(at(2));
    assert_eq!(leader.next(at(2)), Step::Wait(at(2) + RETRY_PERIOD));
    assert_eq!(leader.next(at(3)), Step::Read);
    assert!(leader.leads(at(3)), "one failure costs nothing");
}

#[rstest]
#[case::held_by_another(lease(1, "other"), true)]
#[case::given_back(lease(1, ""), false)]
fn it_stands_by_while_another_one_leads(#[case] read: Lease, #[case] expected: bool) {
    let mut candidate = candidate();
    assert!(!candidate.stands_by(at(0)), "before the lease is read");
    candidate.read(Some(read), at(0));
    assert_eq!(candidate.stands_by(at(0)), expected);
    assert!(!leader(at(0)).stands_by(at(0)));
}

#[test]
fn a_claim_keeps_what_others_wrote_and_tells_people_when() {
    let mut held = lease(7, "other");
    held.metadata.labels = Some([("team".to_owned(), "shop".to_owned())].into());
    held.spec.as_mut().unwrap().lease_transitions = Some(3);
    let mut candidate = candidate();
    candidate.read(Some(held), at(0));
    let [first, later] = [1, 2].map(|second| Timestamp::from_second(second).unwrap());

    let claim = candidate.claim(first);
    assert_eq!(claim.metadata.resource_version.as_deref(), Some("7"));
    assert_eq!(claim.metadata.uid.as_deref(), Some("uid-1"));
    assert_eq!(claim.metadata.labels.as_ref().unwrap()["team"], "shop");

    candidate.wrote(claim, at(15), at(15));
    let spec = candidate.claim(later).spec.unwrap();
    assert_eq!(spec.holder_identity.as_deref(), Some("us"));
    assert_eq!(spec.lease_transitions, Some(4), "counted once");
    assert_eq!((spec.acquire_time.unwrap().0, spec.renew_time.unwrap().0), (first, later));
}

#[rstest]
#[case::its_own(lease(5, "us"), true)]
#[case::of_another(lease(5, "other"), false)]
#[case::while_one_of_before_may_be_at_work(made_anew(5, "us"), false)]
fn a_lease_is_given_back_by_its_holder(#[case] read: Lease, #[case] expected: bool) {
    let mut leader = leader(at(0));
    let released = leader.release(read, at(1));
    assert!(!leader.leads(at(1)));
    assert_eq!(released.is_some(), expected);
    let Some(released) = released else { return };
    assert_eq!(released.metadata.resource_version.as_deref(), Some("5"));
    assert_eq!(released.spec.unwrap().holder_identity, None);
}

/// What happens next. Numbers name a candidate, or a request by its place among those under way.
#[derive(Clone, Debug)]
enum Happening {
    /// Nobody does anything for so many seconds: a pause of whoever had something to do.
    Pass(u64),
    /// A candidate does what it wants to do, and is answered in the same moment.
    Exchange(usize),
    /// A candidate does what it wants to do, as far as that is its own: requests are only sent.
    Act(usize),
    /// A request reaches the API server; its answer is under way.
    Arrive(usize),
    /// An answer comes back.
    Answer(usize),
    /// A candidate no longer waits for its answer. The request may still arrive.
    GiveUp(usize),
    /// A candidate's watch shows how the lease was some changes ago.
    Watch(usize, usize),
    /// The lease is deleted by hand.
    Delete,
    /// A candidate's program ends, orderly or not; another one starts.
    Restart(usize, bool),
}

fn happening() -> impl Strategy<Value = Happening> {
    let who = 0..2_usize;
    prop_oneof![
        6 => prop_oneof![Just(1), Just(2), Just(5), Just(9), Just(15), 0..20_u64].prop_map(Happening::Pass),
        8 => who.clone().prop_map(Happening::Exchange),
        4 => who.clone().prop_map(Happening::Act),
        4 => (0..4_usize).prop_map(Happening::Arrive),
        4 => (0..4_usize).prop_map(Happening::Answer),
        2 => who.clone().prop_map(Happening::GiveUp),
        2 => (who.clone(), 0..3_usize).prop_map(|(who, ago)| Happening::Watch(who, ago)),
        1 => Just(Happening::Delete),
        1 => (who, any::<bool>()).prop_map(|(who, orderly)| Happening::Restart(who, orderly)),
    ]
}

struct Replica {
    candidate: Candidate,
    /// Its clocks, monotonic and of the wall, are this far ahead.
    ahead: Duration,
    knows: bool,
}

#[derive(Debug)]
struct Request {
    /// None where nobody waits for it any more.
    from: Option<usize>,
    sent: Duration,
    /// None to read.
    write: Option<Lease>,
    answer: Option<Result<Option<Lease>, ()>>,
}

struct World {
    now: Duration,
    replicas: [Replica; 2],
    under_way: Vec<Request>,
    /// What the lease was, last is now.
    lease: Vec<Option<Lease>>,
    version: u64,
    started: usize,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            now: Duration::ZERO,
            // Ten minutes apart.
            replicas: [0, 600].map(|ahead| Replica {
                candidate: Candidate::new(format!("first-{ahead}")),
                ahead: at(ahead),
                knows: false,
            }),
            under_way: Vec::new(),
            lease: vec![None],
            version: 0,
            started: 0,
        };
        // The start with no lease at all is above.
        world.keep(Some(made_anew(0, "")));
        for who in 0..2 {
            world.watch(who, 0);
        }
        world
    }

    fn clock(&self, who: usize) -> Duration {
        self.now + self.replicas[who].ahead
    }

    fn leaders(&self) -> usize {
        (0..2).filter(|who| self.replicas[*who].candidate.leads(self.clock(*who))).count()
    }

    fn current(&self) -> Option<&Lease> {
        self.lease.last().and_then(Option::as_ref)
    }

    fn keep(&mut self, mut lease: Option<Lease>) {
        self.version += 1;
        if let Some(lease) = &mut lease {
            let version = self.version.to_string();
            lease.metadata.uid.get_or_insert_with(|| version.clone());
            lease.metadata.resource_version = Some(version);
        }
        self.lease.push(lease);
    }

    fn waits(&self, who: usize) -> bool {
        self.under_way.iter().any(|request| request.from == Some(who))
    }

    fn happen(&mut self, happening: &Happening) {
        match *happening {
            Happening::Pass(seconds) => self.now += at(seconds),
            Happening::Exchange(who) => self.exchange(who),
            Happening::Act(who) => self.act(who),
            Happening::Arrive(index) => self.arrive(index),
            Happening::Answer(index) => self.answer(index),
            Happening::GiveUp(who) => self.give_up(who),
            Happening::Watch(who, ago) => self.watch(who, ago),
            Happening::Delete => self.delete(),
            Happening::Restart(who, orderly) => self.restart(who, orderly),
        }
    }

    /// Not while a replica has just started: that one begins at once, whoever led.
    fn delete(&mut self) {
        if self.replicas.iter().all(|replica| replica.knows) {
            self.keep(None);
        }
    }

    fn act(&mut self, who: usize) {
        let clock = self.clock(who);
        let candidate = &self.replicas[who].candidate;
        let write = match candidate.next(clock) {
            Step::Wait(_) => return,
            Step::Read => None,
            Step::Write => Some(candidate.claim(Timestamp::UNIX_EPOCH + clock)),
        };
        if !self.waits(who) {
            self.under_way.push(Request { from: Some(who), sent: clock, write, answer: None });
        }
    }

    fn exchange(&mut self, who: usize) {
        self.act(who);
        if let Some(own) = self.under_way.iter().position(|request| request.from == Some(who)) {
            self.arrive(own);
            self.answer(own);
        }
    }

    fn arrive(&mut self, index: usize) {
        let Some(request) = self.under_way.get_mut(index).filter(|request| request.answer.is_none()) else {
            return;
        };
        let Some(write) = request.write.clone() else {
            request.answer = Some(Ok(self.lease.last().cloned().flatten()));
            return;
        };
        let version = |lease: &Lease| lease.metadata.resource_version.clone();
        let matches = self.current().and_then(version) == version(&write);
        if matches {
            self.keep(Some(write));
        }
        let answer = if matches { Ok(self.lease.last().cloned().flatten()) } else { Err(()) };
        self.under_way[index].answer = Some(answer);
    }

    fn answer(&mut self, index: usize) {
        if self.under_way.get(index).is_none_or(|request| request.answer.is_none()) {
            return;
        }
        let request = self.under_way.remove(index);
        let Some(who) = request.from else { return };
        let clock = self.clock(who);
        let replica = &mut self.replicas[who];
        match (request.answer, request.write) {
            (Some(Ok(read)), None) => {
                replica.candidate.read(read, clock);
                replica.knows = true;
            }
            (Some(Ok(Some(written))), Some(_)) => replica.candidate.wrote(written, request.sent, clock),
            _ => replica.candidate.failed(clock),
        }
    }

    fn give_up(&mut self, who: usize) {
        let clock = self.clock(who);
        for request in self.under_way.iter_mut().filter(|request| request.from == Some(who)) {
            request.from = None;
            self.replicas[who].candidate.failed(clock);
        }
    }

    /// As the shell: only one that doesn't lead watches, and not while it waits for an answer.
    fn watch(&mut self, who: usize, ago: usize) {
        let clock = self.clock(who);
        let seen = self.lease.len().saturating_sub(ago + 1);
        // The first that a replica sees is what there is; what is missing later was deleted.
        if self.waits(who)
            || self.replicas[who].candidate.leads(clock)
            || !self.replicas[who].knows && ago > 0
        {
            return;
        }
        let seen = self.lease[seen].clone();
        self.replicas[who].candidate.read(seen, clock);
        self.replicas[who].knows = true;
    }

    fn restart(&mut self, who: usize, orderly: bool) {
        if self.current().is_none() {
            return;
        }
        self.give_up(who);
        let clock = self.clock(who);
        if orderly && let Some(lease) = self.current().cloned() {
            let released = self.replicas[who].candidate.release(lease, clock);
            if released.is_some() {
                self.keep(released);
            }
        }
        self.started += 1;
        self.replicas[who].candidate = Candidate::new(format!("later-{}", self.started));
        self.replicas[who].knows = false;
    }

    /// No more faults: everything arrives and is answered, and nobody pauses.
    fn settle(&mut self) {
        for who in 0..2 {
            self.give_up(who);
        }
        self.under_way.clear();
        for _ in 0..400 {
            self.now += Duration::from_millis(100);
            for who in 0..2 {
                self.exchange(who);
                self.watch(who, 0);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn two_candidates_never_both_lead_and_one_does_when_faults_stop(
        happenings in proptest::collection::vec(happening(), 1..120),
    ) {
        let mut world = World::new();
        for happening in &happenings {
            world.happen(happening);
            prop_assert!(world.leaders() <= 1, "two lead after {happening:?}");
        }
        world.settle();
        prop_assert_eq!(world.leaders(), 1, "who leads at the end");
    }
}
