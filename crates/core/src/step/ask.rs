//! No cycle is in progress: answer an ask, take up a permission, tidy up.

use std::time::Duration;

use jiff::Timestamp;

use super::preflight::{self, Finding};
use super::{Action, Engine, Note, NoteReason, Situation, Step, cycle, finish};
use crate::annotations::{self as key, NodePatch};
use crate::backoff::{LONGEST_PAUSE, doubling};
use crate::ids::{BootId, GrantId, Serial, parse_version};
use crate::reason::EndReason;
use crate::values::{InProgress, LastReboot, Outcome, PROTOCOL, Permission, Phase, Request, Source};

/// How the agent's own `reboot-needed` begins, so that it can tell it from a person's.
const OWN: &str = "update_engine: ";

pub(super) fn idle(s: &Situation<'_>, boot: BootId) -> Step {
    let confirmed = s.node.boot == Some(boot);
    let same_boot = s.node.compatible_request().is_none_or(|request| request.boot == boot);
    if s.node.cordon_is_ours() && s.node.permission.get().is_none() && same_boot {
        // Somebody took a cycle away that an earlier run had begun, and perhaps called logind for.
        let Some(fresh) = s.fresh else { return cycle::refresh("Looking whether a shutdown is under way") };
        match fresh.preparing_for_shutdown {
            Some(true) => {
                return Step::wait("Rebooting: logind is preparing the shutdown").wake_in(cycle::STILL_PREPARING);
            }
            Some(false) => {}
            None => return cycle::ask_logind_again(),
        }
    }
    let step = decide(s, boot, confirmed);
    match step.action {
        // Whatever it waits for: a cordon of ours without a cycle is in nobody's interest. Beside a grant it may be that of
        // a cycle that has begun: `take_up` asks logind first.
        Action::Wait if confirmed && s.node.cordon_is_ours() && s.node.granted().is_none() => {
            Step { action: Action::Write(tidy(s), None), ..step }
        }
        _ => step,
    }
}

fn decide(s: &Situation<'_>, boot: BootId, confirmed: bool) -> Step {
    if let Some(why) = s.node.permission.malformed() {
        // Not permission, and not absence either: nothing is granted over it and nothing else is done.
        return Step::wait(format!("Stopped: annotation {} is malformed: {why}; correct or remove it", key::REBOOT));
    }
    let earlier = s.node.compatible_request().filter(|request| request.boot != boot);
    let reported = s.node.last_reboot.get().and_then(|last| last.id);
    let lapsed = s.node.lapsed().filter(|id| id.boot != boot && reported != Some(*id));
    if earlier.is_some() || lapsed.is_some() {
        return if confirmed { found_rebooted(s, earlier) } else { mismatch() };
    }
    match s.node.permission.get() {
        Some(Permission::Granted(id)) if is_spent(s, *id, boot) => {
            Step::new(Action::Write(tidy(s).remove(key::REBOOT), None))
        }
        Some(Permission::Granted(id)) => take_up(s, *id),
        Some(Permission::Now) if s.node.paused.is_some() => Step::wait("Paused: the forced reboot waits"),
        Some(Permission::Now) if !confirmed => mismatch(),
        Some(Permission::Now) => force(s, boot),
        None => answer(s, boot, confirmed),
    }
}

/// Of another boot, or of a cycle that has ended: somebody put it there again.
fn is_spent(s: &Situation<'_>, id: GrantId, boot: BootId) -> bool {
    id.boot != boot || s.node.last_reboot.get().is_some_and(|last| last.id == Some(id))
}

fn mismatch() -> Step {
    Step::wait("BootIdMismatch: waiting until kubelet reports this machine's boot ID on the Node")
}

/// What every write of an idle agent puts right: a cordon of ours that no cycle needs.
fn tidy(s: &Situation<'_>) -> NodePatch {
    NodePatch::default().uncordon_if(s.node.cordon_is_ours())
}

/// A grant under this boot: begin, or say at once that it will not be used.
fn take_up(s: &Situation<'_>, id: GrantId) -> Step {
    if s.node.cordon_is_ours() {
        // The cycle had begun: its cordon is there and its annotation is not.
        return cycle::removed_from_earlier_run(s, &begin(s, id));
    }
    let unwilling = if s.node.paused.is_some() {
        Some(EndReason::Paused)
    } else if asking(s).is_empty() {
        Some(EndReason::NotNeeded)
    } else {
        None
    };
    if let Some(reason) = unwilling {
        return cycle::give_back(s, &begin(s, id), reason, None);
    }
    match preflight::look(s, id) {
        Finding::Clear => start(s, id),
        Finding::Blocked(reason, why) => cycle::give_back(s, &begin(s, id), reason, Some(why)),
        // It takes a moment, of which there is nothing to say.
        Finding::Unseen(left) => Step { status: s.node.status.clone(), ..Step::new(Action::Wait) }.wake_in(left),
    }
}

fn force(s: &Situation<'_>, boot: BootId) -> Step {
    match parse_version(&s.node.resource_version) {
        Some(seen_at) => start(s, GrantId { boot, serial: Serial::Forced(seen_at) }),
        None => Step::wait("Stopped: the Node's resourceVersion is no number, so a forced cycle cannot be told apart"),
    }
}

fn begin(s: &Situation<'_>, id: GrantId) -> InProgress {
    InProgress {
        phase: Phase::Draining,
        id,
        since: s.now.wall_seconds(),
        spent_seconds: 0,
        os_version: s.host.os_version.clone(),
        cordoned: !s.node.unschedulable || s.node.cordon_is_ours(),
        run: None,
    }
}

/// Takes the permission up: `reboot-in-progress` and the cordon, in one write at the resourceVersion where it was seen.
fn start(s: &Situation<'_>, id: GrantId) -> Step {
    let patch = cycle::set_progress(NodePatch::default(), begin(s, id), s);
    let patch = if s.node.unschedulable { patch } else { patch.cordon() };
    let why = s.node.needed.as_deref().filter(|why| !why.is_empty()).unwrap_or("a reboot was asked for");
    let text = if id.is_forced() {
        format!("Draining this node for a forced reboot ({id})")
    } else {
        format!("Draining this node for its reboot ({id}): {why}")
    };
    let mut step = Step::new(Action::Write(patch, Some(Note { warning: false, reason: NoteReason::Draining, text })));
    step.status = Some("Draining: begun".to_owned());
    step
}

/// Something else rebooted the machine under a request, or under the grant that took the request along when it lapsed:
/// the ask is fulfilled, without a drain.
fn found_rebooted(s: &Situation<'_>, request: Option<&Request>) -> Step {
    let os_before = request.and_then(|request| request.os_version.clone());
    let last = LastReboot {
        // Only the controller removes what it noted of a grant that lapsed. It must not count for the next ask, even where
        // this one was answered since.
        id: s.node.waiting.get().and_then(|waiting| waiting.lapsed),
        outcome: Outcome::FoundRebooted,
        reason: EndReason::RebootedByOther,
        detail: None,
        at: s.now.wall_seconds(),
        seconds: 0,
        drain_seconds: 0,
        why: s.node.why(),
        same_version: request.map_or(0, |request| finish::same_version(s, os_before.as_deref(), &request.sources)),
        os_before,
        os_after: s.host.os_version.clone(),
    };
    let text = "The machine was rebooted by something else; the request is fulfilled".to_owned();
    let patch = finish::cleared(s, tidy(s)).set(key::LAST_REBOOT, last);
    Step::new(Action::Write(patch, Some(Note { warning: false, reason: NoteReason::FoundRebooted, text })))
}

/// All who ask now. While update_engine is not heard, what it asked before still stands.
pub(super) fn asking(s: &Situation<'_>) -> Vec<Source> {
    let own = s.node.needed.as_deref().is_some_and(|why| why.starts_with(OWN));
    let answered = s.node.compatible_request().is_some_and(|request| request.sources.contains(&Source::UpdateEngine));
    let engine = match s.host.engine {
        Engine::NeedsReboot(_) => true,
        Engine::Otherwise => false,
        Engine::Unheard => own || answered,
    };
    let person = s.node.needed.is_some() && !own;
    let sources = [engine.then_some(Source::UpdateEngine), person.then_some(Source::Person)];
    sources.into_iter().flatten().collect()
}

/// Keeps `reboot-needed` and `reboot-request` in line with who asks.
fn answer(s: &Situation<'_>, boot: BootId, confirmed: bool) -> Step {
    let sources = asking(s);
    if sources.is_empty() {
        return withdraw(s);
    }
    if !confirmed {
        return mismatch();
    }
    let too_early = too_early(s);
    if s.node.compatible_request().is_none() && !too_early.is_zero() {
        return Step::wait(format!("Waiting until the machine has been up for {}s", s.policy.min_uptime.as_secs()))
            .wake_in(too_early);
    }
    // A cordon of ours without a cycle: somebody ended the cycle by hand while this process did not look.
    let ended = s.node.cordon_is_ours().then_some(EndReason::ProgressRemoved);
    let wanted = wanted_answer(s, boot, sources, ended);
    let mut patch = tidy(s);
    if s.node.needed.is_none() {
        patch = patch.set(key::NEEDED, own_words(&s.host.engine));
    }
    if s.node.compatible_request() != Some(&wanted) {
        patch = patch.set(key::REQUEST, &wanted);
    }
    write_if_any(patch)
}

/// How long it is too early for an answer; zero: no longer.
fn too_early(s: &Situation<'_>) -> Duration {
    s.policy.min_uptime.saturating_sub(s.host.uptime)
}

/// Whether an ask may be answered for the first time under this boot.
pub(super) fn may_answer(s: &Situation<'_>) -> bool {
    s.node.boot == s.host.boot && too_early(s).is_zero()
}

/// Nobody asks: what we wrote is removed.
fn withdraw(s: &Situation<'_>) -> Step {
    write_if_any(unasked(s, tidy(s)))
}

pub(super) fn unasked(s: &Situation<'_>, mut patch: NodePatch) -> NodePatch {
    if s.node.needed.is_some() {
        patch = patch.remove(key::NEEDED);
    }
    if !s.node.request.is_absent() {
        patch = patch.remove(key::REQUEST);
    }
    patch
}

fn write_if_any(patch: NodePatch) -> Step {
    let changes = patch.annotations().next().is_some() || patch.unschedulable().is_some();
    Step::new(if changes { Action::Write(patch, None) } else { Action::Wait })
}

fn own_words(engine: &Engine) -> String {
    match engine {
        // After a restart update_engine has forgotten the version and says 0.0.0.
        Engine::NeedsReboot(Some(version)) if version != "0.0.0" => {
            format!("{OWN}a reboot completes the update to {version}")
        }
        _ => format!("{OWN}a reboot completes an update"),
    }
}

/// The answer as it should stand, keeping its place in the queue. `given_back`: why one more cycle failed than it says,
/// where one did.
pub(super) fn wanted_answer(
    s: &Situation<'_>,
    boot: BootId,
    sources: Vec<Source>,
    given_back: Option<EndReason>,
) -> Request {
    let before = s.node.compatible_request();
    let since = before.map(|request| request.since).filter(|at| is_credible(*at, s));
    let attempts = before.map_or(0, |request| request.attempts).saturating_add(u32::from(given_back.is_some()));
    Request {
        protocol: PROTOCOL,
        boot,
        os_version: s.host.os_version.clone(),
        since: since.unwrap_or(s.now.wall_seconds()),
        not_before: not_before(s, &sources, given_back, attempts),
        sources,
        attempts,
    }
}

/// Before when no grant is wanted: the latest time that anything asks for.
fn not_before(
    s: &Situation<'_>,
    sources: &[Source],
    given_back: Option<EndReason>,
    attempts: u32,
) -> Option<Timestamp> {
    let before = s.node.compatible_request();
    let last = s.node.last_reboot.get().filter(|last| is_credible(last.at, s));
    let update_only = sources == [Source::UpdateEngine];
    let given_back_now = given_back.map(|reason| s.now.wall_after(attempt_delay(reason, attempts)));
    // A person who asks anew is not held to what held update_engine back.
    let person_joins = |request: &&Request| is_by_person(sources) && !is_by_person(&request.sources);
    let kept = before.filter(|request| given_back.is_none() && !person_joins(request));
    let kept = kept.and_then(|request| request.not_before).filter(|at| is_credible(*at, s));
    // The request that said so is gone, but it is the same ask that was given back.
    let same_ask = |last: &&LastReboot| before.is_none() && (update_only || last.why == s.node.why());
    let failed = |last: &&LastReboot| last.outcome == Outcome::GaveBack && last.reason != EndReason::Paused;
    let given_back_before = last.filter(|last| failed(last) && same_ask(last));
    let given_back_before = given_back_before.and_then(|last| last.at.checked_add(attempt_delay(last.reason, 1)).ok());
    let not_taken = last.filter(|last| update_only && last.same_version > 0);
    let not_taken = not_taken.and_then(|last| last.at.checked_add(update_delay(last.same_version)).ok());
    // What is over is kept for the order of grants, but is nothing to begin a request with.
    let to_come = [given_back_before, not_taken].into_iter().flatten().filter(|at| *at > s.now.wall);
    to_come.chain(given_back_now).chain(kept).max()
}

/// Whether a time can have been written by a clock like this one. One that was far ahead once would hold for years.
fn is_credible(at: Timestamp, s: &Situation<'_>) -> bool {
    at <= s.now.wall_after(LONGEST_PAUSE)
}

fn is_by_person(sources: &[Source]) -> bool {
    sources.contains(&Source::Person)
}

/// After a cycle that was given back the other nodes go first: 1 min doubling to 1 h. One that a budget or a pod kept from
/// beginning has cost little, and what blocked it may be over soon: 15 s doubling to 10 min.
fn attempt_delay(reason: EndReason, attempts: u32) -> Duration {
    let (first, longest) = match reason {
        EndReason::BlockedByBudget | EndReason::BlockedByPod => (Duration::from_secs(15), Duration::from_mins(10)),
        _ => (Duration::from_mins(1), Duration::from_hours(1)),
    };
    doubling(first, attempts, longest)
}

/// After a reboot that left the version as it was: 1 h doubling to 24 h.
fn update_delay(times: u32) -> Duration {
    doubling(Duration::from_hours(1), times, LONGEST_PAUSE)
}
