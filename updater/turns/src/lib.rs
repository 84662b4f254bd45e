//! How long a daemon's loop is away from its events: a histogram of its turns, by kind of event, that a debug build keeps.
//!
//! With `VIGIL_TURNS=DIRECTORY` a program keeps a file of its own there, which `tests/run` sums up. What a turn took is wall
//! time less what it waited for a processor (schedstat) and for the disk to have what was written (fsync): it is the machine's
//! load, not ours. The bytes are those it read from a device, and those it wrote (`/proc/PID/task/TID/io`).
//!
//! Release builds have none of it: all of this is then empty.

use std::pin::pin;
use std::time::Duration;

#[cfg(debug_assertions)]
mod meter;

/// Begins to measure the loop of the thread that calls it. Before the process gives up the right to open files.
pub fn open(program: &str) {
    #[cfg(debug_assertions)]
    meter::open(program);
    #[cfg(not(debug_assertions))]
    let _ = program;
}

/// A turn that is under way: it ends when this is dropped.
#[derive(Debug)]
#[must_use]
pub struct Turn(());

/// Begins a turn about an event of that kind.
pub fn begin(kind: &'static str) -> Turn {
    #[cfg(debug_assertions)]
    meter::with(|meter| meter.begin(kind));
    #[cfg(not(debug_assertions))]
    let _ = kind;
    Turn(())
}

impl Drop for Turn {
    fn drop(&mut self) {
        #[cfg(debug_assertions)]
        meter::with(meter::Meter::end);
    }
}

/// Says what the turn that is under way is about, once that is known.
pub fn name(kind: &'static str) {
    #[cfg(debug_assertions)]
    meter::with(|meter| meter.name(kind));
    #[cfg(not(debug_assertions))]
    let _ = kind;
}

/// A turn as a whole.
pub fn of<T>(kind: &'static str, work: impl FnOnce() -> T) -> T {
    let _turn = begin(kind);
    work()
}

/// A task of the same thread: each time it is polled is a turn.
pub async fn task<F: Future>(kind: &'static str, future: F) -> F::Output {
    let mut future = pin!(future);
    std::future::poll_fn(|context| {
        let _turn = begin(kind);
        future.as_mut().poll(context)
    })
    .await
}

/// A timer went off by so much too late.
pub fn late(by: Duration) {
    #[cfg(debug_assertions)]
    meter::with(|meter| meter.late(by));
    #[cfg(not(debug_assertions))]
    let _ = by;
}

/// Waits for the disk: not counted.
pub fn sync<T>(work: impl FnOnce() -> T) -> T {
    #[cfg(debug_assertions)]
    return meter::synced(work);
    #[cfg(not(debug_assertions))]
    work()
}
