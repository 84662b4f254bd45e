//! Whose fault a rollback was, and what is quarantined for it.

use super::*;
use crate::journal::Faulty;
use vigil_wire::Fault;

/// Slot A runs again, 100 seconds after its start, and is told that it is first in the boot order.
fn rolled_back(cause: &str, message: &str) -> (Engine, Vec<Output>) {
    rolled_back_with(cause, message, |_| {})
}

fn rolled_back_with(cause: &str, message: &str, change: impl FnOnce(&mut Journal)) -> (Engine, Vec<Output>) {
    let mut journal = journal(State::Trial);
    install(&mut journal).reverting = true;
    journal.last_failure = Some(Failure {
        release: Some(release()),
        cause: cause.into(),
        message: message.into(),
        rolled_back: true,
        fault: None,
        after: None,
        at_seconds: 1_700_000_000,
    });
    change(&mut journal);
    let mut engine = started(journal, "A", seconds(100));
    let outputs = engine.on(seconds(100), Event::Reverted);
    assert_eq!(engine.journal().state, State::RolledBack);
    assert!(!engine.is_reverting());
    let why = format!("{cause}: {message}");
    assert_eq!(outputs[..2], [Output::Save, note("state.rolled_back", &why)]);
    (engine, outputs[2..].to_vec())
}

fn fault(engine: &Engine) -> Option<Fault> {
    engine.journal().last_failure.as_ref().unwrap().fault
}

fn after(engine: &Engine) -> Option<&str> {
    engine.journal().last_failure.as_ref().unwrap().after.as_deref()
}

fn is_judging(engine: &Engine) -> bool {
    engine.journal().install.as_ref().unwrap().judging
}

fn faulty(failures: u32, cause: &str, order: u64) -> Faulty {
    Faulty { failures, cause: cause.into(), order }
}

const ROOM: &str = "the room is at fault; the release before: ";
const RELEASE: &str = "the release is at fault; the release before: ";
const NOBODY: &str = "it could not be told whose fault it was; the release before: ";

#[test]
fn a_crash_is_the_releases_fault_at_once() {
    for cause in [cause::PANIC, cause::HANG, cause::BOOT_FAILED, cause::CRASH_LOOP] {
        let (engine, outputs) = rolled_back(cause, "why");
        assert_eq!(outputs, [Output::Save, note("finding", "the release is at fault")], "{cause}");
        assert_eq!((fault(&engine), after(&engine)), (Some(Fault::Release), None), "{cause}");
        assert_eq!(engine.journal().faults, [(TARGET.to_owned(), faulty(1, cause, 1))].into(), "{cause}");
        assert!(!is_judging(&engine));
    }
}

#[test]
fn power_that_fails_is_the_rooms_fault_and_counts_against_no_release() {
    let (engine, outputs) = rolled_back(cause::POWER, "why");
    assert_eq!(outputs, [Output::Save, note("finding", "the room is at fault")]);
    assert_eq!((fault(&engine), after(&engine)), (Some(Fault::Room), None));
    assert!(engine.journal().faults.is_empty());
    assert!(!is_judging(&engine));
}

#[test]
fn what_a_person_rolled_back_is_not_judged_and_nothing_later_makes_it_anyones_fault() {
    for cause in [cause::OPERATOR, cause::CANCELLED, cause::STORAGE] {
        let (mut engine, outputs) = rolled_back(cause, "why");
        assert_eq!(outputs, [], "{cause}");
        assert!(!is_judging(&engine));
        assert_eq!((engine.next(seconds(100)), engine.deadline()), (Step::Rest, None), "{cause}");
        assert_eq!(engine.on(seconds(110), Event::Contact(ALL_WELL)), []);
        assert_eq!(engine.on(seconds(110), Event::Gate(Ok(()))), [], "{cause}");
        assert_eq!(engine.on(seconds(110), failed("camera", "not found")), [], "{cause}");
        assert_eq!(engine.on(seconds(9_999), Event::Tick), [], "{cause}");
        assert_eq!(fault(&engine), None, "{cause}");
        assert!(engine.journal().faults.is_empty());
    }
}

#[test]
fn what_failed_on_trial_is_judged_by_the_release_before_and_only_that_is_saved_first() {
    for cause in [cause::GATE, cause::AGENT_DEAD, cause::NO_CONTACT] {
        let (engine, outputs) = rolled_back(cause, "why");
        assert_eq!(outputs, [Output::Save], "{cause}");
        assert!(is_judging(&engine), "{cause}");
        assert_eq!(fault(&engine), None, "{cause}");
    }
}

#[test]
fn the_gate_of_the_release_before_runs_at_once_then_after_each_pause_and_until_its_deadline() {
    for cause in [cause::GATE, cause::AGENT_DEAD] {
        let (mut engine, _) = rolled_back(cause, "camera: not found");
        assert_eq!(engine.deadline(), Some(Duration::from_secs(700)), "{cause}");
        assert_eq!(engine.next(seconds(100)), Step::RunGate);
        engine.on(seconds(110), failed("camera", "not found"));
        assert_eq!(engine.next(seconds(110)), Step::WaitUntil(Duration::from_secs(115)));
        assert_eq!(engine.next(millis(114_999)), Step::WaitUntil(Duration::from_secs(115)));
        assert_eq!(engine.next(seconds(115)), Step::RunGate);
        engine.on(seconds(698), failed("camera", "not found"));
        assert_eq!(engine.next(seconds(698)), Step::WaitUntil(Duration::from_secs(700)), "{cause}");
    }
}

#[test]
fn without_contact_there_is_nothing_to_run_but_to_wait_for_it_as_long_as_on_trial() {
    let (engine, _) = rolled_back(cause::NO_CONTACT, "no contact");
    assert_eq!(engine.deadline(), Some(Duration::from_secs(1_900)));
    assert_eq!(engine.next(seconds(100)), Step::WaitUntil(Duration::from_secs(1_900)));
}

#[test]
fn judging_goes_on_after_a_restart_with_all_of_its_time() {
    let (engine, _) = rolled_back(cause::GATE, "camera: not found");
    let engine = started(engine.journal().clone(), "A", seconds(30));
    assert_eq!(engine.next(seconds(30)), Step::RunGate);
    assert_eq!(engine.deadline(), Some(Duration::from_secs(630)));
}

#[test]
fn when_the_same_checks_pass_on_the_release_before_the_release_was_at_fault() {
    for cause in [cause::GATE, cause::AGENT_DEAD] {
        let (mut engine, _) = rolled_back(cause, "camera: not found");
        engine.on(seconds(110), Event::Contact(ALL_WELL));
        let outputs = engine.on(seconds(110), Event::Gate(Ok(())));
        let finding = note("finding", &format!("{RELEASE}the same checks pass"));
        assert_eq!(outputs, [Output::Save, finding], "{cause}");
        assert_eq!((fault(&engine), after(&engine)), (Some(Fault::Release), Some("the same checks pass")));
        assert_eq!(engine.journal().faults, [(TARGET.to_owned(), faulty(1, cause, 1))].into());
        assert!(!is_judging(&engine));
        // The finding is final.
        assert_eq!((engine.next(seconds(110)), engine.deadline()), (Step::Rest, None));
        assert_eq!(engine.on(seconds(120), Event::Gate(Ok(()))), []);
        assert_eq!(engine.on(seconds(9_999), failed("camera", "not found")), []);
        assert_eq!(engine.journal().faults[TARGET].failures, 1);
    }
}

#[test]
fn checks_that_pass_without_the_agent_do_not_accuse_the_release() {
    let (mut engine, _) = rolled_back(cause::GATE, "camera: not found");
    let silent = note("gate", "vigild: it has not reported that it is ready");
    assert_eq!(engine.on(seconds(110), Event::Gate(Ok(()))), [silent]);
    assert_eq!(fault(&engine), None);
    assert!(is_judging(&engine));
}

#[test]
fn the_same_check_that_fails_until_the_deadline_is_the_rooms_fault_and_not_a_moment_earlier() {
    let (mut engine, _) = rolled_back(cause::GATE, "camera: not found");
    let gate = note("gate", "camera: still not found");
    assert_eq!(engine.on(seconds(110), failed("camera", "still not found")), [gate]);
    assert_eq!(engine.on(seconds(115), failed("camera", "still not found")), []);
    assert_eq!(engine.on(millis(699_999), Event::Tick), []);
    assert_eq!(fault(&engine), None);
    let finding = note("finding", &format!("{ROOM}camera: still not found"));
    assert_eq!(engine.on(seconds(700), Event::Tick), [Output::Save, finding]);
    assert_eq!((fault(&engine), after(&engine)), (Some(Fault::Room), Some("camera: still not found")));
    assert!(engine.journal().faults.is_empty());
    assert!(!is_judging(&engine));
    assert_eq!(engine.on(seconds(701), Event::Tick), []);
}

#[test]
fn a_deadline_that_is_long_past_is_still_one() {
    let (mut engine, _) = rolled_back(cause::GATE, "camera: not found");
    engine.on(seconds(110), failed("camera", "not found"));
    let finding = note("finding", &format!("{ROOM}camera: not found"));
    assert_eq!(engine.on(seconds(5_000), Event::Tick), [Output::Save, finding]);
}

#[test]
fn another_check_that_fails_on_the_release_before_says_nothing_of_the_first() {
    for (cause, trial, check) in [
        (cause::GATE, "camera: not found", "speaker"),
        // A part of the name is another name.
        (cause::GATE, "camera: not found", "cam"),
        (cause::GATE, "camera: not found", "vigild"),
        (cause::AGENT_DEAD, "vigild did not run when the time for contact was up", "camera"),
    ] {
        let (mut engine, _) = rolled_back(cause, trial);
        engine.on(seconds(110), failed(check, "it is broken"));
        let finding = note("finding", &format!("{NOBODY}{check}: it is broken"));
        assert_eq!(engine.on(seconds(700), Event::Tick), [Output::Save, finding], "{check}");
        assert_eq!(fault(&engine), None, "{check}");
        assert_eq!(after(&engine), Some(format!("{check}: it is broken").as_str()));
        assert!(engine.journal().faults.is_empty(), "{check}");
        assert!(!is_judging(&engine));
    }
}

#[test]
fn the_last_check_that_failed_decides_and_not_the_first() {
    let (mut engine, _) = rolled_back(cause::GATE, "camera: not found");
    engine.on(seconds(110), failed("camera", "not found"));
    engine.on(seconds(120), failed("speaker", "silent"));
    engine.on(seconds(700), Event::Tick);
    assert_eq!((fault(&engine), after(&engine)), (None, Some("speaker: silent")));
}

#[test]
fn an_agent_that_is_dead_on_the_release_before_as_well_is_the_rooms_fault() {
    let (mut engine, _) =
        rolled_back(cause::AGENT_DEAD, "vigild did not run when the time for contact was up");
    engine.on(seconds(110), Event::Gate(Ok(())));
    let silent = "vigild: it has not reported that it is ready";
    let finding = note("finding", &format!("{ROOM}{silent}"));
    assert_eq!(engine.on(seconds(700), Event::Tick), [Output::Save, finding]);
    assert_eq!((fault(&engine), after(&engine)), (Some(Fault::Room), Some(silent)));
    assert!(engine.journal().faults.is_empty());
}

#[test]
fn checks_that_never_ended_say_nothing() {
    let (mut engine, _) = rolled_back(cause::GATE, "camera: not found");
    let finding = note("finding", &format!("{NOBODY}the checks did not end in time"));
    assert_eq!(engine.on(seconds(700), Event::Tick), [Output::Save, finding]);
    assert_eq!((fault(&engine), after(&engine)), (None, Some("the checks did not end in time")));
    assert!(engine.journal().faults.is_empty());
}

#[test]
fn contact_of_the_release_before_accuses_one_that_had_none() {
    let (mut engine, _) = rolled_back(cause::NO_CONTACT, "no contact");
    let finding = note("finding", &format!("{RELEASE}it has contact"));
    assert_eq!(engine.on(seconds(1_899), Event::Refreshed), [Output::Save, finding]);
    assert_eq!((fault(&engine), after(&engine)), (Some(Fault::Release), Some("it has contact")));
    assert_eq!(engine.journal().faults, [(TARGET.to_owned(), faulty(1, cause::NO_CONTACT, 1))].into());
}

#[test]
fn contact_says_nothing_of_a_release_that_failed_its_gate() {
    for cause in [cause::GATE, cause::AGENT_DEAD] {
        let (mut engine, _) = rolled_back(cause, "camera: not found");
        assert_eq!(engine.on(seconds(110), Event::Refreshed), [], "{cause}");
        assert_eq!(fault(&engine), None, "{cause}");
        assert!(is_judging(&engine), "{cause}");
    }
}

#[test]
fn without_contact_of_the_release_before_either_the_room_is_at_fault_and_later_contact_changes_nothing() {
    let (mut engine, _) =
        rolled_back_with(cause::NO_CONTACT, "no contact", |journal| journal.had_contact = true);
    assert_eq!(engine.on(millis(1_899_999), Event::Tick), []);
    let finding = note("finding", &format!("{ROOM}it has no contact either"));
    assert_eq!(engine.on(seconds(1_900), Event::Tick), [Output::Save, finding]);
    assert_eq!((fault(&engine), after(&engine)), (Some(Fault::Room), Some("it has no contact either")));
    assert_eq!(engine.on(seconds(1_901), Event::Refreshed), []);
    assert_eq!(fault(&engine), Some(Fault::Room));
    assert!(engine.journal().faults.is_empty());
}

#[test]
fn a_release_is_quarantined_the_second_time_it_is_at_fault_and_that_is_told_each_time_from_then_on() {
    let again = |failures: u32| {
        rolled_back_with(cause::PANIC, "why", |journal| {
            journal.faults = [
                (TARGET.to_owned(), faulty(failures, cause::GATE, 3)),
                ("releases/bar/1.0.0.json".to_owned(), faulty(1, cause::HANG, 7)),
            ]
            .into();
        })
    };
    let finding = note("finding", "the release is at fault");
    let (engine, outputs) = again(0);
    assert_eq!(outputs, [Output::Save, finding.clone()]);
    assert_eq!(engine.journal().faults[TARGET], faulty(1, cause::PANIC, 8));
    assert_eq!((engine.quarantine(TARGET), engine.quarantined()), (None, vec![]));
    for failures in [1, 2] {
        let (mut engine, outputs) = again(failures);
        let told = format!("{TARGET}: at fault {} times", failures + 1);
        assert_eq!(outputs, [Output::Save, finding.clone(), note("quarantined", &told)]);
        let entry = faulty(failures + 1, cause::PANIC, 8);
        assert_eq!(engine.quarantine(TARGET), Some(&entry));
        assert_eq!(engine.quarantined(), [TARGET]);
        assert_eq!(engine.quarantine("releases/bar/1.0.0.json"), None, "once may be chance");
        assert_eq!(engine.quarantine("releases/bar/3.0.0.json"), None);
        engine.lift_quarantine(TARGET);
        assert_eq!((engine.quarantine(TARGET), engine.quarantined()), (None, vec![]));
        assert_eq!(engine.journal().faults.len(), 1);
    }
}

#[test]
fn sixteen_releases_at_fault_are_remembered_and_then_the_one_longest_ago_is_forgotten() {
    // The higher the number in the name, the longer ago.
    let before = |count: u64| {
        let name = |number: u64| format!("releases/foo/{number:02}.json");
        (0..count).map(move |number| (name(number), faulty(1, cause::GATE, 100 - number)))
    };
    let names = |count: u64| -> Vec<String> {
        let (engine, _) =
            rolled_back_with(cause::PANIC, "why", |journal| journal.faults = before(count).collect());
        assert_eq!(engine.journal().faults[TARGET], faulty(1, cause::PANIC, 101));
        engine.journal().faults.keys().filter(|name| *name != TARGET).cloned().collect()
    };
    for (count, kept) in [(14, 14), (15, 15), (16, 15), (18, 15)] {
        assert_eq!(names(count), before(kept).map(|(name, _)| name).collect::<Vec<_>>(), "{count} before");
    }
    // One that is among them takes no other's place.
    let (engine, _) = rolled_back_with(cause::PANIC, "why", |journal| {
        journal.faults = before(15).collect();
        journal.faults.insert(TARGET.to_owned(), faulty(1, cause::GATE, 1));
    });
    assert_eq!(engine.journal().faults.len(), 16);
    assert_eq!(engine.journal().faults[TARGET], faulty(2, cause::PANIC, 101));
}

/// Slot A holds images for three hooks, of which the configuration names two; slot B other ones.
fn with_hooks() -> Engine {
    let payloads = |camera: &str, speaker: &str| {
        [("camera", camera), ("light", "l1"), ("speaker", speaker)]
            .map(|(image, sha256)| (image.to_owned(), sha256.to_owned()))
            .into()
    };
    let journal = Journal {
        v: 1,
        payloads: [("A".to_owned(), payloads("c1", "s1")), ("B".to_owned(), payloads("c2", "s2"))].into(),
        applied: [("camera".to_owned(), "c1".to_owned()), ("speaker".to_owned(), "s2".to_owned())].into(),
        ..Journal::default()
    };
    let policy = Policy { hooks: vec!["speaker".into(), "camera".into()], ..Policy::default() };
    let boot = boot("A", "now", LastBoot::default());
    let (mut engine, _) = Engine::start(policy, journal, 1, boot, seconds(10));
    engine.on(seconds(10), Event::MarkedGood);
    engine
}

/// What the hook left before is forgotten, once, before it runs.
fn begin_to_apply(engine: &mut Engine) {
    let begun = || Event::ApplyBegun { image: "speaker".into() };
    assert_eq!(engine.on(seconds(10), begun()), [Output::Save]);
    assert_eq!(engine.journal().applied.get("speaker"), None);
    assert_eq!(engine.on(seconds(10), begun()), []);
}

fn applied(engine: &mut Engine, result: Result<(), String>) -> Vec<Output> {
    engine.on(seconds(11), Event::Applied { image: "speaker".into(), sha256: "s1".into(), result })
}

#[test]
fn a_hook_is_handed_the_running_slots_image_if_it_was_last_handed_another() {
    let mut engine = with_hooks();
    assert_eq!(engine.next(seconds(10)), Step::BeginApply { image: "speaker".into() });
    begin_to_apply(&mut engine);
    assert_eq!(engine.next(seconds(10)), Step::Apply { image: "speaker".into(), sha256: "s1".into() });
    assert_eq!(applied(&mut engine, Ok(())), [Output::Save, note("hook.applied", "speaker: s1")]);
    assert_eq!(engine.journal().applied["speaker"], "s1");
    assert_eq!(engine.next(seconds(11)), Step::Rest);
}

#[test]
fn after_a_power_cut_while_a_hook_ran_the_next_boot_hands_over_its_image_whichever_slot_that_is() {
    let mut engine = with_hooks();
    begin_to_apply(&mut engine);
    let journal = engine.journal().clone();
    for (slot, image) in [("A", "s1"), ("B", "s2")] {
        let policy = Policy { hooks: vec!["speaker".into()], ..Policy::default() };
        let boot = boot(slot, "later", LastBoot::default());
        let (mut engine, _) = Engine::start(policy, journal.clone(), 1, boot, seconds(10));
        engine.on(seconds(10), Event::MarkedGood);
        assert_eq!(engine.next(seconds(10)), Step::Apply { image: "speaker".into(), sha256: image.into() });
    }
}

#[test]
fn a_hook_that_failed_is_not_run_again_in_this_boot_and_in_the_next_it_is() {
    let mut engine = with_hooks();
    begin_to_apply(&mut engine);
    let told = note("hook.failed", "speaker: it does not answer");
    let failed = applied(&mut engine, Err("it does not answer".into()));
    assert_eq!(failed, [told]);
    assert_eq!(engine.journal().applied.get("speaker"), None);
    assert_eq!(engine.journal().applied["camera"], "c1");
    assert_eq!(engine.next(seconds(11)), Step::Rest);
    let boot = boot("A", "later", LastBoot::default());
    let policy = Policy { hooks: vec!["speaker".into(), "camera".into()], ..Policy::default() };
    let (mut engine, _) = Engine::start(policy, engine.journal().clone(), 1, boot, seconds(10));
    engine.on(seconds(10), Event::MarkedGood);
    assert_eq!(engine.next(seconds(10)), Step::Apply { image: "speaker".into(), sha256: "s1".into() });
}
