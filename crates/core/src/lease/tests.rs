//! Each test is a story in seconds of one candidate's monotonic clock, told against a wall clock that is of no use.

use jiff::Timestamp;

use super::*;

/// What happens; the decision after it is compared.
enum Then {
    /// Nothing: only time has passed.
    Nothing,
    /// Somebody's record is seen: holder, renewal number, resourceVersion.
    See(&'static str, i64, u64),
    SeeNone,
    /// The write decided on last is answered, with this resourceVersion.
    Succeed(u64),
    Fail,
    Conflict,
}

use Then::{Conflict, Fail, Nothing, See, SeeNone, Succeed};

fn at(seconds: u64) -> Now {
    // Steps back and forth, as wall clocks do.
    let wall = if seconds.is_multiple_of(2) { 1_000_000_000 } else { 2_000_000_000 };
    Now { mono: Duration::from_secs(seconds), wall: Timestamp::from_second(wall).unwrap() }
}

fn record(holder: &str, renewal: i64, version: u64) -> Lease {
    Lease {
        metadata: ObjectMeta {
            name: Some(NAME.to_owned()),
            resource_version: Some(version.to_string()),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: Some(30),
            lease_transitions: Some(7),
            renew_time: Some(MicroTime(Timestamp::from_second(renewal).unwrap())),
            ..LeaseSpec::default()
        }),
    }
}

fn tell(decision: &Decision) -> String {
    let written = |lease: &Lease| lease.metadata.resource_version.clone().unwrap_or_else(|| "new".to_owned());
    match decision {
        Decision::Acquire(lease) => format!("acquire {}", written(lease)),
        Decision::Renew(lease) => format!("renew {}", written(lease)),
        Decision::Lead { until } => format!("lead until {}", until.as_secs()),
        Decision::Follow { until: Some(until) } => format!("follow until {}", until.as_secs()),
        Decision::Follow { until: None } => "follow".to_owned(),
        Decision::Lost => "lost".to_owned(),
    }
}

fn check(story: &[(u64, Then, &str)]) {
    let mut elector = Elector::new("me", Terms::STANDARD);
    let mut last = Decision::Follow { until: None };
    for (line, (seconds, then, expected)) in story.iter().enumerate() {
        let now = at(*seconds);
        match then {
            Nothing => {}
            See(holder, renewal, version) => elector.observe(record(holder, *renewal, *version), now.mono),
            SeeNone => elector.observe_absent(),
            Fail => elector.failed(now.mono),
            Conflict => elector.conflicted(now.mono),
            Succeed(version) => {
                let (Decision::Acquire(lease) | Decision::Renew(lease)) = &last else { panic!("nothing was written") };
                let mut lease = lease.clone();
                lease.metadata.resource_version = Some(version.to_string());
                elector.written(lease, now.mono);
            }
        }
        last = elector.decide(now);
        assert_eq!(tell(&last), *expected, "line {line}, at {seconds} s");
        let leads = matches!(last, Decision::Lead { .. } | Decision::Renew(_));
        assert_eq!(elector.leads(), leads, "line {line}, at {seconds} s");
        assert_eq!(elector.time_left(now.mono).is_some(), leads);
    }
}

#[test]
fn nothing_is_written_before_the_lease_was_read() {
    check(&[(0, Nothing, "follow"), (100, Nothing, "follow"), (100, SeeNone, "acquire new")]);
}

#[test]
fn a_lease_is_taken_only_when_its_record_has_not_changed_for_its_duration() {
    check(&[
        (0, See("other", 1, 10), "follow until 30"),
        (20, See("other", 2, 11), "follow until 50"),
        (49, Nothing, "follow until 50"),
        (50, Nothing, "acquire 11"),
        (50, Succeed(12), "lead until 60"),
    ]);
}

#[test]
fn a_change_of_anything_but_the_record_is_no_renewal() {
    check(&[
        (0, See("other", 1, 10), "follow until 30"),
        (29, See("other", 1, 15), "follow until 30"),
        (30, Nothing, "acquire 15"),
    ]);
}

#[test]
fn a_released_lease_is_taken_at_once() {
    check(&[(0, See("other", 1, 10), "follow until 30"), (3, See("", 1, 11), "acquire 11")]);
}

#[test]
fn the_holder_renews_in_time_and_counts_from_before_the_request() {
    check(&[
        (0, SeeNone, "acquire new"),
        (0, Succeed(1), "lead until 10"),
        (9, Nothing, "lead until 10"),
        (10, Nothing, "renew 1"),
        (10, Succeed(2), "lead until 20"),
        (20, Nothing, "renew 2"),
    ]);
}

#[test]
fn a_holder_that_cannot_renew_gives_up_before_others_may_take_over() {
    check(&[
        (0, SeeNone, "acquire new"),
        (0, Succeed(1), "lead until 10"),
        (10, Nothing, "renew 1"),
        (15, Fail, "lead until 17"),
        (17, Nothing, "renew 1"),
        (19, Fail, "lead until 20"),
        (20, Nothing, "lost"),
        // The reply to a lost renewal may still come; the record names this candidate, so trying is right.
        (21, Nothing, "acquire 1"),
        (21, Succeed(2), "lead until 31"),
    ]);
}

#[test]
fn a_holder_that_was_suspended_beyond_the_deadline_has_lost() {
    check(&[(0, SeeNone, "acquire new"), (0, Succeed(1), "lead until 10"), (500, Nothing, "lost")]);
}

#[test]
fn a_holder_stops_when_it_sees_another_or_none() {
    for (seen, next) in
        [(See("other", 5, 9), "follow until 35"), (See("", 5, 9), "acquire 9"), (SeeNone, "acquire new")]
    {
        check(&[(0, SeeNone, "acquire new"), (0, Succeed(1), "lead until 10"), (5, seen, "lost"), (5, Nothing, next)]);
    }
}

#[test]
fn the_watch_that_lags_behind_a_write_changes_nothing() {
    check(&[
        (0, See("", 1, 10), "acquire 10"),
        (0, Succeed(12), "lead until 10"),
        (1, See("other", 1, 9), "lead until 10"),
        (1, See("", 1, 10), "lead until 10"),
        (2, See("me", 3, 13), "lead until 10"),
        (10, Nothing, "renew 13"),
    ]);
}

#[test]
fn after_a_conflict_the_lease_is_read_again_before_anything_is_written() {
    check(&[
        (0, See("", 1, 10), "acquire 10"),
        (0, Conflict, "follow"),
        (50, Nothing, "follow"),
        (50, See("other", 2, 11), "follow until 80"),
    ]);
    check(&[
        (0, SeeNone, "acquire new"),
        (0, Succeed(1), "lead until 10"),
        (10, Nothing, "renew 1"),
        (10, Conflict, "lead until 20"),
        (11, See("me", 2, 3), "lead until 12"),
        (12, Nothing, "renew 3"),
    ]);
}

#[test]
fn an_unchanged_record_keeps_its_age_over_a_conflict() {
    check(&[
        (0, See("other", 1, 10), "follow until 30"),
        (30, Nothing, "acquire 10"),
        (30, Conflict, "follow"),
        (31, See("other", 1, 12), "follow until 32"),
        (32, Nothing, "acquire 12"),
    ]);
}

#[test]
fn versions_that_went_back_are_accepted_after_a_conflict() {
    check(&[
        (0, See("other", 1, 1000), "follow until 30"),
        (5, See("other", 2, 10), "follow until 30"),
        (30, Nothing, "acquire 1000"),
        (30, Conflict, "follow"),
        (31, See("other", 3, 11), "follow until 61"),
    ]);
}

#[test]
fn a_write_whose_reply_was_lost_is_confirmed_by_another() {
    check(&[
        (0, See("", 1, 10), "acquire 10"),
        (5, Fail, "follow until 7"),
        (6, See("me", 2, 11), "follow until 7"),
        (7, Nothing, "acquire 11"),
        (7, Succeed(12), "lead until 17"),
    ]);
}

#[test]
fn what_a_foreign_record_claims_for_itself_is_honoured_within_bounds() {
    for (claimed, expected) in [
        (None, "follow until 30"),
        (Some(15), "follow until 30"),
        (Some(60), "follow until 60"),
        (Some(-5), "follow until 30"),
        (Some(i32::MAX), "follow until 600"),
    ] {
        let mut elector = Elector::new("me", Terms::STANDARD);
        let mut lease = record("other", 1, 1);
        lease.spec.get_or_insert_default().lease_duration_seconds = claimed;
        elector.observe(lease, Duration::ZERO);
        assert_eq!(tell(&elector.decide(at(0))), expected, "{claimed:?}");
    }
}

#[test]
fn a_claim_keeps_what_others_wrote_and_counts_the_transition() {
    for (seen, transitions) in [(Some(record("", 1, 4)), 8), (Some(record("me", 1, 4)), 7), (None, 0)] {
        let mut elector = Elector::new("me", Terms::STANDARD);
        match seen.clone() {
            Some(mut lease) => {
                lease.metadata.labels = Some([("team".to_owned(), "nodes".to_owned())].into());
                elector.observe(lease, Duration::ZERO);
            }
            None => elector.observe_absent(),
        }
        let Decision::Acquire(claim) = elector.decide(at(0)) else { panic!("{seen:?}") };
        let spec = claim.spec.unwrap();
        assert_eq!(spec.lease_transitions, Some(transitions));
        assert_eq!(spec.holder_identity.as_deref(), Some("me"));
        assert_eq!(spec.lease_duration_seconds, Some(30));
        assert_eq!(spec.renew_time, Some(MicroTime(at(0).wall)));
        assert_eq!(claim.metadata.labels.is_some(), seen.is_some());
        assert_eq!(claim.metadata.name.as_deref(), Some(NAME));
    }
}

#[test]
fn the_holder_is_whoever_was_seen_last() {
    let mut elector = Elector::new("me", Terms::STANDARD);
    assert_eq!(elector.holder(), None);
    elector.observe(record("other", 1, 4), Duration::ZERO);
    assert_eq!(elector.holder(), Some("other"));
    elector.observe(record("", 1, 5), Duration::ZERO);
    assert_eq!(elector.holder(), None);
}

#[test]
fn only_the_holder_has_something_to_release() {
    for (seen, released) in [(record("me", 1, 4), true), (record("other", 1, 4), false), (record("", 1, 4), false)] {
        let mut elector = Elector::new("me", Terms::STANDARD);
        elector.observe(seen, Duration::ZERO);
        let lease = elector.release(at(9));
        assert_eq!(lease.is_some(), released);
        assert_ne!(elector.holder(), Some("me"));
        if let Some(spec) = lease.and_then(|lease| lease.spec) {
            assert_eq!((spec.holder_identity, spec.lease_duration_seconds), (None, Some(1)));
            assert_eq!(spec.lease_transitions, Some(7));
        }
    }
    assert_eq!(Elector::new("me", Terms::STANDARD).release(at(0)), None);
}
