//! What a person may do with an install, in each state, and what comes of it.

use super::*;
use vigil_wire::Control;

const CONTROLS: [Control; 4] = [Control::Pause, Control::Resume, Control::Cancel, Control::Rollback];

const NONE: &str = "no install is under way";
const TOO_LATE: &str = "it is too late to pause: the restart into the new release was begun";
const PAUSED: &str = "it is paused already";
const NOT_PAUSED: &str = "it is not paused";
const RUNS: &str = "the new release runs already; roll it back instead";
const RUNS_NOT: &str = "the new release does not run yet; cancel the install instead";
const GOING_BACK: &str = "the device is going back already";

/// What is said to each of `CONTROLS`; nothing where it is permitted.
fn said(engine: &Engine) -> [String; 4] {
    CONTROLS
        .map(|control| engine.permits(control).map_or_else(|refused| refused.to_string(), |()| String::new()))
}

fn slot_of(state: State) -> &'static str {
    if matches!(state, State::Trial | State::Good | State::Confirmed) { "B" } else { "A" }
}

/// An engine that this process found in `state`, in the boot that the state began in.
fn in_state(state: State, change: impl FnOnce(&mut Install)) -> Engine {
    let mut journal = journal(state);
    let trial = crate::journal::Trial {
        boot_id: "now".into(),
        boots: 1,
        began_millis: 5_000,
        good_millis: (state == State::Good).then_some(6_000),
        power_cuts: 0,
    };
    let found = install(&mut journal);
    found.trial = matches!(state, State::Trial | State::Good).then_some(trial);
    found.reboot_from_boot = (state == State::Rebooting).then(|| "now".to_owned());
    change(found);
    let engine = started(journal, slot_of(state), seconds(10));
    assert_eq!(engine.journal().state, state);
    engine
}

const BEFORE_THE_RESTART: [State; 5] =
    [State::Checking, State::Invalidating, State::Writing, State::Verifying, State::Staged];
const SETTLED: [State; 4] = [State::Idle, State::Confirmed, State::RolledBack, State::Failed];

#[test]
fn where_nothing_is_under_way_nothing_is_permitted_and_nothing_changes() {
    for state in SETTLED {
        let mut engine = in_state(state, |_| {});
        assert_eq!(said(&engine), [NONE; 4], "{state:?}");
        let before = engine.journal().clone();
        for control in CONTROLS {
            assert_eq!(engine.on(seconds(20), Event::Control(control)), [], "{control:?} in {state:?}");
        }
        assert_eq!(engine.journal(), &before, "{state:?}");
    }
}

#[test]
fn before_the_restart_an_install_may_be_paused_resumed_and_cancelled() {
    for state in BEFORE_THE_RESTART {
        let engine = in_state(state, |_| {});
        assert_eq!(said(&engine), ["", NOT_PAUSED, "", RUNS_NOT], "{state:?}");
        let engine = in_state(state, |install| install.paused = true);
        assert_eq!(said(&engine), [PAUSED, "", "", RUNS_NOT], "{state:?}");
    }
}

#[test]
fn once_the_restart_is_begun_an_install_may_be_cancelled_and_once_it_is_done_rolled_back() {
    for state in [State::Activating, State::Rebooting] {
        let engine = in_state(state, |_| {});
        assert_eq!(said(&engine), [TOO_LATE, NOT_PAUSED, "", RUNS_NOT], "{state:?}");
    }
    for state in [State::Trial, State::Good] {
        let engine = in_state(state, |_| {});
        assert_eq!(said(&engine), [TOO_LATE, NOT_PAUSED, RUNS, ""], "{state:?}");
    }
}

#[test]
fn a_device_that_goes_back_does_nothing_else_that_is_asked_of_it() {
    for state in [State::Activating, State::Rebooting, State::Trial, State::Good] {
        let mut engine = in_state(state, |install| install.reverting = true);
        assert_eq!(said(&engine), [GOING_BACK; 4], "{state:?}");
        let before = engine.journal().clone();
        for control in CONTROLS {
            assert_eq!(engine.on(seconds(20), Event::Control(control)), [], "{control:?} in {state:?}");
        }
        assert_eq!(engine.journal(), &before, "{state:?}");
    }
}

#[test]
fn pausing_and_resuming_are_saved_and_told() {
    let mut engine = in_state(State::Writing, |_| {});
    let paused = [Output::Save, note("install.pause", "in the state writing")];
    assert_eq!(engine.on(seconds(20), Event::Control(Control::Pause)), paused);
    assert!(engine.is_paused());
    assert_eq!(engine.on(seconds(21), Event::Control(Control::Pause)), [], "it is paused already");
    assert!(engine.is_paused());
    let resumed = [Output::Save, note("install.resume", "in the state writing")];
    assert_eq!(engine.on(seconds(30), Event::Control(Control::Resume)), resumed);
    assert!(!engine.is_paused());
    assert_eq!(engine.on(seconds(31), Event::Control(Control::Resume)), [], "it is not paused");
    assert!(!engine.is_paused());
}

#[test]
fn the_courier_has_all_of_its_time_and_its_tries_after_a_pause() {
    let mut engine = in_state(State::Checking, |_| {});
    let broken = || Event::FetchFailed { cause: cause::FETCH, message: "404".into() };
    for _ in 0..8 {
        engine.on(seconds(20), broken());
    }
    // The eighth pause is 256 seconds.
    assert_eq!(engine.next(seconds(20)), Step::WaitUntil(Duration::from_secs(276)));
    engine.on(seconds(30), Event::Control(Control::Pause));
    assert_eq!((engine.next(seconds(30)), engine.deadline()), (Step::Rest, None));
    engine.on(seconds(40), Event::Control(Control::Resume));
    assert_eq!(engine.next(seconds(40)), Step::Refresh);
    assert_eq!(engine.deadline(), Some(Duration::from_secs(1_840)));
    engine.on(seconds(50), broken());
    assert_eq!(engine.next(seconds(50)), Step::WaitUntil(Duration::from_secs(52)));
    assert_eq!(engine.journal().state, State::Checking);
}

#[test]
fn cancelled_before_the_restart_an_install_has_failed_and_the_boot_order_stays() {
    for state in BEFORE_THE_RESTART {
        let mut engine = in_state(state, |_| {});
        let outputs = engine.on(seconds(20), Event::Control(Control::Cancel));
        let why = "cancelled: the install was given up by command";
        assert_eq!(outputs, [Output::Save, note("state.failed", why), Output::DropWork], "{state:?}");
        assert_eq!(engine.journal().state, State::Failed);
        let failure = engine.journal().last_failure.clone().unwrap();
        assert_eq!((failure.cause.as_str(), failure.rolled_back), (cause::CANCELLED, false));
        assert!(!engine.is_reverting());
        assert_eq!(engine.next(seconds(20)), Step::Rest);
    }
}

#[test]
fn cancelled_after_the_boot_order_changed_it_is_changed_back_and_nothing_was_rolled_back() {
    for state in [State::Activating, State::Rebooting] {
        let mut engine = in_state(state, |_| {});
        let outputs = engine.on(seconds(20), Event::Control(Control::Cancel));
        let why = "cancelled: the install was given up by command";
        assert_eq!(outputs, [Output::Save, note("rolling_back", why)], "{state:?}");
        assert!(engine.is_reverting());
        let failure = engine.journal().last_failure.clone().unwrap();
        assert_eq!((failure.cause.as_str(), failure.rolled_back), (cause::CANCELLED, false));
        assert_eq!(engine.next(seconds(20)), Step::Revert { to: "A".into(), from: "B".into() });
        let outputs = engine.on(seconds(21), Event::Reverted);
        assert_eq!(outputs, [Output::Save, note("state.failed", why), Output::DropWork], "{state:?}");
        assert_eq!((engine.journal().state, engine.is_reverting()), (State::Failed, false));
    }
}

#[test]
fn rolled_back_by_command_a_release_goes_and_the_failure_says_that_a_person_wanted_it() {
    for state in [State::Trial, State::Good] {
        let mut engine = in_state(state, |_| {});
        let outputs = engine.on(seconds(20), Event::Control(Control::Rollback));
        let why = "operator: it was rolled back by command";
        assert_eq!(outputs, [Output::Save, note("rolling_back", why)], "{state:?}");
        let failure = engine.journal().last_failure.clone().unwrap();
        assert_eq!((failure.cause.as_str(), failure.rolled_back), (cause::OPERATOR, true));
        assert_eq!(engine.next(seconds(20)), Step::Revert { to: "A".into(), from: "B".into() });
    }
}
