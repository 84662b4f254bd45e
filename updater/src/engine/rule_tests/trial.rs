//! From the restart into a release to its end: what the running slot says, the gate, the deadlines, the way back.

use super::*;
use crate::journal::Trial;

/// A trial that began with the running boot, 10 seconds after its start.
fn trial() -> Trial {
    Trial { boot_id: "now".into(), boots: 1, began_millis: 10_000, good_millis: None, power_cuts: 0 }
}

/// A journal in the state trial, or good since the 20th second.
fn on_trial(state: State) -> Journal {
    let mut journal = journal(state);
    let good_millis = (state == State::Good).then_some(20_000);
    install(&mut journal).trial = Some(Trial { good_millis, ..trial() });
    journal
}

/// Slot B runs in the state trial, or good.
fn engine(state: State) -> Engine {
    started(on_trial(state), "B", seconds(10))
}

fn the_trial(engine: &Engine) -> Trial {
    engine.journal().install.as_ref().unwrap().trial.clone().unwrap()
}

fn state(engine: &Engine) -> State {
    engine.journal().state
}

fn failure(engine: &Engine) -> (&str, &str) {
    let failure = engine.journal().last_failure.as_ref().unwrap();
    (&failure.cause, &failure.message)
}

fn gate_at(engine: &mut Engine, at: Now) -> Vec<Output> {
    engine.contact = Some((at.boot, ALL_WELL));
    engine.on(at, Event::Gate(Ok(())))
}

// What the running slot says at the start.

#[test]
fn the_floor_is_written_at_every_start_and_never_below_what_was_confirmed() {
    let (engine, outputs) = start(Journal { v: 1, ..Journal::default() }, "A", seconds(10));
    assert_eq!((outputs, engine.floor()), (vec![Output::Floor(1)], 1));
    let confirmed = Journal { v: 1, confirmed: Some(release()), ..Journal::default() };
    let (engine, outputs) = start(confirmed, "A", seconds(10));
    assert_eq!((outputs, engine.floor()), (vec![Output::Floor(2)], 2));
}

#[test]
fn a_release_whose_slot_runs_after_the_restart_is_on_trial() {
    for was in [State::Staged, State::Activating, State::Rebooting] {
        let mut journal = journal(was);
        install(&mut journal).reboot_from_boot = Some("before".into());
        let (engine, outputs) = start(journal, "B", seconds(10));
        let told = note("state.trial", "the release runs on trial, boot 1");
        assert_eq!(outputs, [Output::Floor(1), Output::Save, told], "{was:?}");
        assert_eq!((state(&engine), the_trial(&engine)), (State::Trial, trial()), "{was:?}");
    }
}

#[test]
fn an_install_whose_restart_was_not_asked_for_goes_on_in_the_old_slot() {
    for was in [State::Writing, State::Staged, State::Activating] {
        let (engine, outputs) = start(journal(was), "A", seconds(10));
        assert_eq!((state(&engine), outputs), (was, vec![Output::Floor(1)]), "{was:?}");
        assert!(!engine.is_reverting(), "{was:?}");
    }
}

#[test]
fn while_the_restart_is_waited_for_the_old_slot_may_run_and_in_another_boot_the_bootloader_went_back() {
    let rebooting = |from: &str| {
        let mut journal = journal(State::Rebooting);
        install(&mut journal).reboot_from_boot = Some(from.into());
        start(journal, "A", seconds(10))
    };
    let (engine, outputs) = rebooting("now");
    assert_eq!((outputs, engine.is_reverting()), (vec![Output::Floor(1)], false));
    let (engine, outputs) = rebooting("before");
    let told = note("rolling_back", "boot_failed: the bootloader went back to the slot before");
    assert_eq!(outputs, [Output::Floor(1), Output::Save, told]);
    assert!(engine.is_reverting());
    assert_eq!(failure(&engine), (cause::BOOT_FAILED, "the bootloader went back to the slot before"));
}

#[test]
fn a_release_that_ran_and_whose_slot_runs_no_more_was_given_up_by_the_bootloader() {
    for was in [State::Trial, State::Good] {
        let (engine, _) = start(on_trial(was), "A", seconds(10));
        assert!(engine.is_reverting(), "{was:?}");
        assert_eq!(failure(&engine).0, cause::BOOT_FAILED);
        assert_eq!(engine.next(seconds(10)), Step::Revert { to: "A".into(), from: "B".into() });
    }
}

#[test]
fn a_confirmed_release_that_runs_no_more_is_gone_back_from_only_if_something_speaks_against_it() {
    let left = |last: LastBoot| {
        Engine::start(Policy::default(), on_trial(State::Confirmed), 1, boot("A", "now", last), seconds(10)).0
    };
    let panicked = left(LastBoot { panic: Some("oops".into()), ..LastBoot::default() });
    assert_eq!((panicked.is_reverting(), failure(&panicked).0), (true, cause::PANIC));
    let hung = left(LastBoot { watchdog: true, ..LastBoot::default() });
    assert_eq!((hung.is_reverting(), failure(&hung).0), (true, cause::HANG));
    let cut_off = left(power_failed());
    assert_eq!((cut_off.is_reverting(), state(&cut_off)), (false, State::RolledBack));
    assert!(cut_off.journal().faults.is_empty());
}

#[test]
fn a_process_that_starts_again_in_the_same_boot_counts_no_boot() {
    for was in [State::Trial, State::Good, State::Confirmed] {
        let journal = on_trial(was);
        let (engine, outputs) = start(journal.clone(), "B", seconds(50));
        assert_eq!((outputs, engine.journal()), (vec![Output::Floor(1)], &journal), "{was:?}");
    }
}

#[test]
fn a_rollback_that_was_decided_is_not_decided_anew_at_the_start() {
    for (was, slot) in [(State::Trial, "B"), (State::Trial, "A"), (State::Rebooting, "A"), (State::Good, "B")]
    {
        let mut journal = on_trial(was);
        install(&mut journal).reverting = true;
        install(&mut journal).trial.as_mut().unwrap().boot_id = "before".into();
        let (engine, outputs) = start(journal.clone(), slot, seconds(10));
        assert_eq!((outputs, engine.journal()), (vec![Output::Floor(1)], &journal), "{was:?} in {slot}");
    }
}

#[test]
fn how_the_boot_before_ended_tells_the_cause_a_panic_before_a_hang_before_power() {
    let words = || Some("oops".to_owned());
    for (panic, watchdog, power, cause, how) in [
        (words(), true, true, cause::PANIC, "; the kernel panicked: oops"),
        (None, true, true, cause::HANG, "; the watchdog had to reset the device"),
        (None, false, true, cause::POWER, "; the power failed"),
        (None, false, false, cause::BOOT_FAILED, ""),
    ] {
        let boot = boot("A", "now", LastBoot { panic, watchdog, power });
        let (engine, outputs) =
            Engine::start(Policy::default(), on_trial(State::Trial), 1, boot, seconds(10));
        let message = format!("the bootloader went back to the slot before{how}");
        assert_eq!(outputs[2], note("rolling_back", &format!("{cause}: {message}")));
        assert_eq!(failure(&engine), (cause, message.as_str()));
    }
}

/// The device boots again into a release that is on trial, or good.
fn boot_again(was: State, boots: u32, power_cuts: u32, last: LastBoot) -> (Engine, Vec<Output>) {
    let mut journal = on_trial(was);
    let before = install(&mut journal).trial.as_mut().unwrap();
    (before.boot_id, before.boots, before.power_cuts) = ("before".into(), boots, power_cuts);
    Engine::start(Policy::default(), journal, 1, boot("B", "now", last), seconds(12))
}

fn power_failed() -> LastBoot {
    LastBoot { power: true, ..LastBoot::default() }
}

#[test]
fn a_boot_on_trial_counts_unless_power_failed_and_of_such_only_ten_are_forgiven() {
    let in_order = LastBoot::default;
    for (boots, power_cuts, last, boots_then, power_cuts_then) in [
        (1, 0, in_order(), 2, 0),
        (2, 0, in_order(), 3, 0),
        (1, 4, in_order(), 2, 4),
        (1, 0, power_failed(), 1, 1),
        (2, 4, power_failed(), 2, 5),
        (1, 9, power_failed(), 1, 10),
        (1, 10, power_failed(), 2, 10),
        (1, 11, power_failed(), 2, 11),
    ] {
        let case = format!("{boots} boots, {power_cuts} cuts, then {last:?}");
        let (engine, outputs) = boot_again(State::Trial, boots, power_cuts, last);
        let told = note("state.trial", &format!("the release runs on trial, boot {boots_then}"));
        assert_eq!(outputs, [Output::Floor(1), Output::Save, told], "{case}");
        let expected =
            Trial { boots: boots_then, power_cuts: power_cuts_then, began_millis: 12_000, ..trial() };
        assert_eq!((state(&engine), the_trial(&engine)), (State::Trial, expected), "{case}");
    }
}

#[test]
fn only_a_boot_that_follows_a_forgiven_power_cut_gets_its_tries_back_while_on_trial() {
    let next = |power_cuts, last| boot_again(State::Trial, 1, power_cuts, last).0.next(seconds(12));
    assert_eq!(next(0, power_failed()), Step::MarkGood { slot: "B".into() });
    assert_eq!(next(10, power_failed()), Step::RunGate);
    assert_eq!(next(0, LastBoot::default()), Step::RunGate);
}

#[test]
fn the_fourth_boot_on_trial_is_one_too_many_and_the_last_one_tells_why() {
    let hang = LastBoot { watchdog: true, ..LastBoot::default() };
    for (last, power_cuts, cause, how) in [
        (LastBoot::default(), 0, cause::CRASH_LOOP, ""),
        (hang, 0, cause::HANG, "; the watchdog had to reset the device"),
        (power_failed(), 10, cause::POWER, "; the power failed"),
    ] {
        let (engine, _) = boot_again(State::Trial, 3, power_cuts, last);
        assert!(engine.is_reverting());
        let message = format!("booted 4 times on trial without passing its gate{how}");
        assert_eq!(failure(&engine), (cause, message.as_str()));
    }
    let (engine, _) = boot_again(State::Trial, 3, 9, power_failed());
    assert!(!engine.is_reverting(), "a forgiven one is none");
}

#[test]
fn a_good_release_may_boot_as_often_as_it_must_and_waits_for_contact_anew() {
    for (boots, last, boots_then, power_cuts) in
        [(1, LastBoot::default(), 2, 0), (3, LastBoot::default(), 4, 0), (3, power_failed(), 3, 1)]
    {
        let (engine, outputs) = boot_again(State::Good, boots, 0, last);
        let told = note("state.good", "booted again while it waits for contact");
        assert_eq!(outputs, [Output::Floor(1), Output::Save, told]);
        let expected = Trial {
            boots: boots_then,
            power_cuts,
            began_millis: 12_000,
            good_millis: Some(12_000),
            ..trial()
        };
        assert_eq!((state(&engine), the_trial(&engine)), (State::Good, expected));
        assert_eq!(engine.deadline(), Some(Duration::from_secs(1_812)));
    }
}

// The gate.

#[test]
fn the_gate_runs_at_once_and_then_after_each_pause_of_five_seconds() {
    let mut engine = engine(State::Trial);
    assert_eq!(engine.next(seconds(10)), Step::RunGate);
    engine.on(seconds(11), failed("camera", "not found"));
    assert_eq!(engine.next(seconds(11)), Step::WaitUntil(Duration::from_secs(16)));
    assert_eq!(engine.next(millis(15_999)), Step::WaitUntil(Duration::from_secs(16)));
    assert_eq!(engine.next(seconds(16)), Step::RunGate);
    assert_eq!(engine.next(seconds(17)), Step::RunGate);
    // The deadline comes before the next run.
    engine.on(seconds(607), failed("camera", "not found"));
    assert_eq!(engine.next(seconds(607)), Step::WaitUntil(Duration::from_secs(610)));
}

#[test]
fn a_failure_of_the_gate_is_told_until_it_is_another_one() {
    let mut engine = engine(State::Trial);
    let camera = [note("gate", "camera: not found")];
    assert_eq!(engine.on(seconds(11), failed("camera", "not found")), camera);
    assert_eq!(engine.on(seconds(12), failed("camera", "not found")), []);
    assert_eq!(engine.on(seconds(13), failed("camera", "dark")), [note("gate", "camera: dark")]);
    assert_eq!(engine.on(seconds(14), failed("speaker", "dark")), [note("gate", "speaker: dark")]);
    assert_eq!(engine.on(seconds(15), failed("camera", "not found")), camera);
}

#[test]
fn a_release_is_good_when_its_gate_has_held_for_sixty_seconds() {
    let mut engine = engine(State::Trial);
    assert_eq!(gate_at(&mut engine, seconds(11)), []);
    assert_eq!(gate_at(&mut engine, seconds(40)), []);
    assert_eq!(gate_at(&mut engine, millis(70_999)), []);
    assert_eq!(state(&engine), State::Trial);
    let told = note("state.good", "the gate is passed");
    assert_eq!(gate_at(&mut engine, seconds(71)), [Output::Save, told]);
    assert_eq!((state(&engine), the_trial(&engine).good_millis), (State::Good, Some(71_000)));
    assert_eq!(engine.deadline(), Some(Duration::from_secs(1_871)));
}

#[test]
fn a_gate_that_is_first_seen_to_hold_long_after_the_boot_must_still_hold_for_sixty_seconds() {
    let mut engine = engine(State::Trial);
    assert_eq!(gate_at(&mut engine, seconds(500)), []);
    assert_eq!(state(&engine), State::Trial);
    gate_at(&mut engine, seconds(565));
    assert_eq!(state(&engine), State::Good);
}

#[test]
fn one_failure_in_between_and_the_sixty_seconds_begin_again() {
    let mut engine = engine(State::Trial);
    gate_at(&mut engine, seconds(11));
    engine.on(seconds(30), failed("camera", "not found"));
    gate_at(&mut engine, seconds(31));
    gate_at(&mut engine, millis(90_999));
    assert_eq!(state(&engine), State::Trial);
    gate_at(&mut engine, seconds(91));
    assert_eq!(state(&engine), State::Good);
}

#[test]
fn checks_pass_no_gate_while_vigild_is_not_ready_or_has_been_silent_for_sixty_seconds() {
    let silent = [note("gate", "vigild: it has not reported that it is ready")];
    let judge = |contact: Option<Contact>, told_at: u64, at: Now| {
        let mut engine = engine(State::Trial);
        if let Some(contact) = contact {
            engine.on(seconds(told_at), Event::Contact(contact));
        }
        engine.on(at, Event::Gate(Ok(())))
    };
    assert_eq!(judge(None, 0, seconds(20)), silent);
    assert_eq!(judge(Some(Contact { ready: false, ..ALL_WELL }), 20, seconds(20)), silent);
    assert_eq!(judge(Some(ALL_WELL), 20, seconds(20)), []);
    assert_eq!(judge(Some(ALL_WELL), 20, millis(79_999)), []);
    assert_eq!(judge(Some(ALL_WELL), 20, seconds(80)), silent);
    assert_eq!(judge(Some(ALL_WELL), 20, seconds(81)), silent);
    // Readiness is all that is asked of it.
    let ready = Contact { ready: true, ..Contact::default() };
    assert_eq!(judge(Some(ready), 20, seconds(20)), []);
}

#[test]
fn a_hook_that_failed_fails_the_gate_and_a_check_that_failed_comes_before_it() {
    let mut engine = engine(State::Trial);
    let result = Err("it does not answer".to_owned());
    engine.on(seconds(11), Event::Applied { image: "camera".into(), sha256: "c".into(), result });
    assert_eq!(gate_at(&mut engine, seconds(12)), [note("gate", "camera: its hook failed")]);
    assert_eq!(engine.on(seconds(13), failed("speaker", "silent")), [note("gate", "speaker: silent")]);
}

// Contact.

#[test]
fn contact_confirms_a_good_release_and_raises_the_floor_to_it() {
    let mut engine = engine(State::Good);
    let told = note("state.confirmed", "authenticated contact with the repository: the update is done");
    assert_eq!(engine.on(seconds(30), Event::Refreshed), [Output::Save, told, Output::Floor(2)]);
    assert_eq!((state(&engine), engine.floor()), (State::Confirmed, 2));
    assert_eq!((&engine.journal().confirmed, engine.journal().had_contact), (&Some(release()), true));
    assert_eq!((engine.next(seconds(30)), engine.deadline()), (Step::Rest, None));
}

#[test]
fn a_floor_that_is_higher_already_stays() {
    let (mut engine, _) = Engine::start(
        Policy::default(),
        on_trial(State::Good),
        7,
        boot("B", "now", LastBoot::default()),
        seconds(10),
    );
    assert_eq!(engine.on(seconds(30), Event::Refreshed).last(), Some(&Output::Floor(7)));
    assert_eq!(engine.floor(), 7);
}

#[test]
fn contact_during_the_trial_changes_nothing_yet_and_confirms_the_release_once_it_is_good() {
    let mut engine = engine(State::Trial);
    assert_eq!(engine.on(seconds(11), Event::Refreshed), []);
    assert!(!engine.journal().had_contact);
    assert_eq!(state(&engine), State::Trial);
    gate_at(&mut engine, seconds(12));
    let outputs = gate_at(&mut engine, seconds(72));
    let told = note("state.confirmed", "authenticated contact with the repository: the update is done");
    let expected =
        [Output::Save, note("state.good", "the gate is passed"), Output::Save, told, Output::Floor(2)];
    assert_eq!(outputs, expected);
    assert_eq!(state(&engine), State::Confirmed);
}

#[test]
fn that_a_settled_release_has_contact_is_remembered_and_saved_once() {
    for was in [State::Idle, State::Confirmed, State::Failed, State::RolledBack] {
        let slot = if was == State::Confirmed { "B" } else { "A" };
        let mut engine = started(journal(was), slot, seconds(10));
        assert_eq!(engine.on(seconds(11), Event::Refreshed), [Output::Save], "{was:?}");
        assert!(engine.journal().had_contact, "{was:?}");
        assert_eq!(engine.on(seconds(12), Event::Refreshed), [], "{was:?}");
        assert!(engine.journal().had_contact, "{was:?}");
        assert_eq!(state(&engine), was);
    }
}

// The deadlines.

#[test]
fn a_release_has_600_seconds_from_its_boot_to_pass_its_gate() {
    let mut engine = engine(State::Trial);
    assert_eq!(engine.deadline(), Some(Duration::from_secs(610)));
    engine.on(seconds(11), failed("camera", "not found"));
    assert_eq!(engine.on(millis(609_999), Event::Tick), []);
    assert!(!engine.is_reverting());
    let told = note("rolling_back", "gate: camera: not found");
    assert_eq!(engine.on(seconds(610), Event::Tick), [Output::Save, told]);
    assert_eq!(failure(&engine), (cause::GATE, "camera: not found"));
    // It is decided once.
    assert_eq!(engine.on(seconds(611), Event::Tick), []);
}

#[test]
fn a_gate_that_never_ended_is_no_gate() {
    let mut engine = engine(State::Trial);
    engine.on(seconds(700), Event::Tick);
    assert_eq!(failure(&engine), (cause::GATE, "the gate's checks did not end in time"));
}

/// A good release whose 1800 seconds are up. `had_contact`: the release before had it.
fn without_contact(contact: Option<Contact>, had_contact: bool, at: Now) -> (Engine, Vec<Output>) {
    let mut engine = started(Journal { had_contact, ..on_trial(State::Good) }, "B", seconds(21));
    engine.contact = contact.map(|contact| (Duration::from_secs(1_800), contact));
    let outputs = engine.on(at, Event::Tick);
    (engine, outputs)
}

#[test]
fn a_good_release_waits_for_contact_and_its_agent_until_the_deadline() {
    let engine = engine(State::Good);
    assert_eq!(engine.deadline(), Some(Duration::from_secs(1_820)));
    assert_eq!(engine.next(seconds(21)), Step::WaitUntil(Duration::from_secs(1_820)));
    let (engine, outputs) = without_contact(None, true, millis(1_819_999));
    assert_eq!((outputs, engine.is_reverting()), (vec![], false));
}

#[test]
fn a_good_release_without_its_agent_at_the_deadline_goes_back() {
    for contact in [None, Some(Contact { ready: false, ..ALL_WELL })] {
        for had_contact in [true, false] {
            let (engine, _) = without_contact(contact, had_contact, seconds(1_820));
            assert!(engine.is_reverting());
            let message = "vigild did not run when the time for contact was up";
            assert_eq!(failure(&engine), (cause::AGENT_DEAD, message));
        }
    }
}

#[test]
fn a_good_release_goes_back_for_want_of_contact_only_where_network_and_the_release_before_had_it() {
    let (engine, outputs) = without_contact(Some(ALL_WELL), true, seconds(1_820));
    let message =
        "no contact with the repository, although the network answers and the release before had it";
    assert_eq!(outputs, [Output::Save, note("rolling_back", &format!("no_contact: {message}"))]);
    assert_eq!(failure(&engine), (cause::NO_CONTACT, message));
    for (carrier, gateway, had_contact) in [
        (true, true, false),
        (true, false, true),
        (false, true, true),
        (false, false, true),
        (true, false, false),
        (false, false, false),
    ] {
        let contact = Contact { carrier, gateway, ..ALL_WELL };
        let (engine, outputs) = without_contact(Some(contact), had_contact, seconds(1_820));
        let case = format!("{contact:?}, before: {had_contact}");
        let waiting = note("waiting", "no network: waiting for contact");
        assert_eq!(outputs, [Output::Save, waiting], "{case}");
        assert!(!engine.is_reverting(), "{case}");
        assert_eq!((state(&engine), the_trial(&engine).good_millis), (State::Good, Some(1_820_000)));
        // As long again.
        assert_eq!(engine.deadline(), Some(Duration::from_secs(3_620)), "{case}");
    }
}

// The way back.

/// A release on trial is given up in the 30th second.
fn given_up() -> (Engine, Vec<Output>) {
    let mut journal = on_trial(State::Trial);
    install(&mut journal).reboot_from_boot = Some("before".into());
    let old = vigil_wire::ReleaseId { version: "1.0.0".into(), sequence: 1 };
    journal.contents = [("A".to_owned(), old), ("B".to_owned(), release())].into();
    let mut engine = started(journal, "B", seconds(10));
    let outputs =
        engine.on(seconds(30), Event::Failed { cause: cause::STORAGE, message: "the disk is full".into() });
    (engine, outputs)
}

#[test]
fn giving_a_release_up_is_recorded_with_its_cause_and_its_slot_holds_nothing_any_more() {
    let (engine, outputs) = given_up();
    assert_eq!(outputs, [Output::Save, note("rolling_back", "storage: the disk is full")]);
    let expected = Failure {
        release: Some(release()),
        cause: "storage".into(),
        message: "the disk is full".into(),
        rolled_back: true,
        fault: None,
        after: None,
        at_seconds: 1_700_000_000,
    };
    assert_eq!(engine.journal().last_failure, Some(expected));
    assert_eq!(engine.journal().contents.keys().collect::<Vec<_>>(), ["A"]);
    assert!(engine.is_reverting() && engine.is_busy());
    assert_eq!(state(&engine), State::Trial);
}

#[test]
fn going_back_changes_the_boot_order_then_restarts_and_changes_it_once_more_in_the_old_slot() {
    let (mut engine, _) = given_up();
    let revert = Step::Revert { to: "A".into(), from: "B".into() };
    assert_eq!(engine.next(seconds(30)), revert);
    assert_eq!(engine.on(seconds(31), Event::Reverted), [Output::Save]);
    assert_eq!((engine.is_reverting(), state(&engine)), (true, State::Trial));
    assert_eq!(engine.next(seconds(31)), Step::Reboot);
    engine.on(seconds(31), Event::RebootAsked);
    assert_eq!(engine.next(seconds(31)), Step::WaitUntil(Duration::from_secs(151)));
    assert_eq!(engine.next(seconds(151)), Step::Reboot);
    // The process may start again before the device does.
    let (again, _) = start(engine.journal().clone(), "B", seconds(140));
    assert_eq!(again.next(seconds(140)), Step::Reboot);
    // The old slot runs.
    let (mut engine, outputs) = start(engine.journal().clone(), "A", seconds(5));
    assert_eq!(outputs, [Output::Floor(1)]);
    assert_eq!(engine.next(seconds(5)), revert);
    let told = note("state.rolled_back", "storage: the disk is full");
    assert_eq!(engine.on(seconds(6), Event::Reverted), [Output::Save, told]);
    assert_eq!((engine.is_reverting(), state(&engine)), (false, State::RolledBack));
    assert_eq!(engine.next(seconds(6)), Step::MarkGood { slot: "A".into() });
    engine.on(seconds(6), Event::MarkedGood);
    assert_eq!(engine.next(seconds(6)), Step::Rest);
}

#[test]
fn a_boot_order_that_nobody_had_changed_back_is_news_to_no_state() {
    for was in [State::Idle, State::Writing, State::Trial, State::Confirmed, State::RolledBack] {
        let journal = on_trial(was);
        let mut engine = started(journal.clone(), if was == State::Writing { "A" } else { "B" }, seconds(10));
        let before = engine.journal().clone();
        assert_eq!(engine.on(seconds(11), Event::Reverted), [], "{was:?}");
        assert_eq!(engine.journal(), &before, "{was:?}");
    }
    let mut nothing = started(Journal { v: 1, ..Journal::default() }, "A", seconds(10));
    assert_eq!(nothing.on(seconds(11), Event::Reverted), []);
}

#[test]
fn the_pause_after_a_failed_fetch_does_not_hold_the_way_back_up() {
    let mut journal = on_trial(State::Trial);
    install(&mut journal).reboot_from_boot = None;
    let mut engine = started(journal, "B", seconds(10));
    engine.on(seconds(20), Event::FetchFailed { cause: cause::FETCH, message: "404".into() });
    engine.on(seconds(21), Event::Failed { cause: cause::STORAGE, message: "the disk is full".into() });
    engine.on(seconds(21), Event::Reverted);
    assert_eq!(engine.next(seconds(21)), Step::Reboot);
}

#[test]
fn a_restart_that_came_back_to_the_release_that_is_given_up_has_its_order_written_again() {
    let (mut engine, _) = given_up();
    engine.on(seconds(31), Event::Reverted);
    assert_eq!(engine.next(seconds(31)), Step::Reboot);
    let boot = boot("B", "the next", LastBoot::default());
    let (engine, _) = Engine::start(Policy::default(), engine.journal().clone(), 1, boot, seconds(5));
    assert_eq!(engine.next(seconds(5)), Step::Revert { to: "A".into(), from: "B".into() });
}
