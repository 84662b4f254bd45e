//! The engine's rules one by one: it is put into a state by a journal and told one thing. `tests` plays whole installs.

mod control;
mod judge;
mod trial;

use super::*;

const TARGET: &str = "releases/bar/2.0.0.json";

fn seconds(seconds: u64) -> Now {
    millis(seconds * 1000)
}

/// This time after the kernel started. The wall clock stands still.
fn millis(millis: u64) -> Now {
    let wall = jiff::Timestamp::from_second(1_700_000_000).unwrap();
    Now { wall, boot: Duration::from_millis(millis) }
}

fn release() -> vigil_wire::ReleaseId {
    vigil_wire::ReleaseId { version: "2.0.0".into(), sequence: 2 }
}

/// An install of release 2 from slot A to slot B, in this state.
fn journal(state: State) -> Journal {
    Journal {
        v: 1,
        state,
        install: Some(Install {
            number: 1,
            release_target: TARGET.into(),
            release: Some(release()),
            target: "B".into(),
            from: "A".into(),
            ..Install::default()
        }),
        ..Journal::default()
    }
}

/// The install of a journal that has one.
fn install(journal: &mut Journal) -> &mut Install {
    journal.install.as_mut().unwrap()
}

fn boot(slot: &str, id: &str, last: LastBoot) -> Boot {
    Boot { slot: slot.into(), id: id.into(), last }
}

/// Starts with the policy of the defaults and floor 1, in the boot "now", after one that ended in order.
fn start(journal: Journal, slot: &str, at: Now) -> (Engine, Vec<Output>) {
    Engine::start(Policy::default(), journal, 1, boot(slot, "now", LastBoot::default()), at)
}

/// Starts and says that the running slot's tries are refilled.
fn started(journal: Journal, slot: &str, at: Now) -> Engine {
    let (mut engine, _) = start(journal, slot, at);
    engine.on(at, Event::MarkedGood);
    engine
}

fn note(kind: &str, message: &str) -> Output {
    Output::Note { kind: kind.into(), message: message.into() }
}

fn failed(check: &str, message: &str) -> Event {
    Event::Gate(Err(CheckFailure { check: check.into(), message: message.into() }))
}

/// `vigild` is ready, the cable is in and the gateway answers.
const ALL_WELL: Contact = Contact { ready: true, broker: false, carrier: true, gateway: true };
