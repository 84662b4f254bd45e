//! Looks at the machine on a thread of its own: a sensor that never answers (a driver that hangs, a pipe in the file's place)
//! must not hold up the daemon. A thread that is overdue is left to itself and replaced; what made two of them overdue is not
//! asked again, and is reported as missing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::warn;
use vigil_protocol::state::Health;

use super::collect::{Collector, all};
use super::inventory::Machine;

/// A look at everything takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);
/// Threads that one collector may cost.
const STRIKES: u32 = 2;
const STACK_BYTES: usize = 256 * 1024;

/// One of them, by its name.
pub(super) type Named = (&'static str, Box<dyn Collector>);

/// What a thread has seen.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Looked {
    /// How the machine is doing.
    pub health: Health,
    /// What it is: once in the life of the daemon.
    pub machine: Option<Machine>,
}

/// What a thread looks with.
type Make = fn() -> Vec<Named>;

/// The threads, of which the newest counts.
pub struct Collectors {
    make: Make,
    /// How often each collector was the one that a thread did not come back from.
    strikes: Vec<u32>,
    worker: Option<Worker>,
    results: mpsc::Sender<(u64, Looked)>,
    knows_machine: bool,
    number: u64,
    asked: Option<Instant>,
}

struct Worker {
    /// Each with whether it is to be seen, too, what the machine is.
    asks: SyncSender<bool>,
    /// The collector that is being asked, or, after the last of them, what the machine is.
    at: Arc<AtomicUsize>,
}

impl Collectors {
    /// Results come by the other end of the channel.
    pub fn new() -> (Self, mpsc::Receiver<(u64, Looked)>) {
        Self::with(all)
    }

    fn with(make: Make) -> (Self, mpsc::Receiver<(u64, Looked)>) {
        let (results, receiver) = mpsc::channel(2);
        let strikes = vec![0; make().len() + 1];
        let collectors =
            Self { make, strikes, worker: None, results, knows_machine: false, number: 0, asked: None };
        (collectors, receiver)
    }

    /// Has everything looked at, unless that is being done already.
    pub fn ask(&mut self) {
        if self.asked.is_some() {
            return;
        }
        if self.worker.is_none() {
            self.worker = self.start();
        }
        let is_taken =
            self.worker.as_ref().is_some_and(|worker| worker.asks.try_send(!self.knows_machine).is_ok());
        self.asked = is_taken.then(Instant::now);
    }

    /// When the thread is overdue.
    pub fn ends(&self) -> Option<Instant> {
        self.asked.map(|asked| asked + PATIENCE)
    }

    /// The thread is overdue: another one looks the next time, and without what held two of them up.
    pub fn replace(&mut self) {
        self.asked = None;
        let Some(worker) = self.worker.take() else { return };
        let at = worker.at.load(Ordering::Relaxed);
        if let Some(strikes) = self.strikes.get_mut(at) {
            *strikes += 1;
            let name = (self.make)().get(at).map_or("machine", |named| named.0);
            warn!(collector = name, strikes, "a look at the machine did not come back");
        }
    }

    /// What came from a thread; none if that was given up before.
    pub fn take(&mut self, (number, looked): (u64, Looked)) -> Option<Looked> {
        if number != self.number {
            return None;
        }
        self.asked = None;
        self.knows_machine |= looked.machine.is_some();
        Some(looked)
    }

    fn start(&mut self) -> Option<Worker> {
        self.number += 1;
        let (number, make, results) = (self.number, self.make, self.results.clone());
        let left_out: Vec<bool> = self.strikes.iter().map(|strikes| *strikes >= STRIKES).collect();
        let (asks, asked) = sync_channel::<bool>(1);
        let at = Arc::new(AtomicUsize::new(0));
        let progress = Arc::clone(&at);
        let thread = std::thread::Builder::new().name("health".to_owned()).stack_size(STACK_BYTES);
        let started = thread.spawn(move || {
            let mut collectors = make();
            while let Ok(with_machine) = asked.recv() {
                let mut health = Health::default();
                for (position, (name, collector)) in collectors.iter_mut().enumerate() {
                    progress.store(position, Ordering::Relaxed);
                    if left_out[position] {
                        health.missing.push((*name).to_owned());
                    } else {
                        collector.collect(&mut health);
                    }
                }
                let machine = with_machine.then(|| {
                    progress.store(collectors.len(), Ordering::Relaxed);
                    if left_out[collectors.len()] { Machine::default() } else { Machine::look() }
                });
                if results.blocking_send((number, Looked { health, machine })).is_err() {
                    return;
                }
            }
        });
        started.inspect_err(|error| warn!(%error, "no thread to look at the machine")).ok()?;
        Some(Worker { asks, at })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    struct Uptime;
    impl Collector for Uptime {
        fn collect(&mut self, health: &mut Health) {
            health.uptime_seconds = Some(7);
        }
    }

    /// Reads a pipe that nobody writes to.
    struct Pipe;
    impl Collector for Pipe {
        fn collect(&mut self, _: &mut Health) {
            let _ = std::fs::read(pipe());
        }
    }

    fn pipe() -> PathBuf {
        std::env::temp_dir().join(format!("vigil-pipe-{}", std::process::id()))
    }

    fn collectors() -> Vec<Named> {
        vec![("uptime", Box::new(Uptime)), ("pipe", Box::new(Pipe))]
    }

    #[tokio::test]
    async fn a_sensor_that_never_answers_costs_two_threads_and_is_then_missing() {
        use rustix::fs::{CWD, FileType, Mode, mknodat};
        let _ = std::fs::remove_file(pipe());
        mknodat(CWD, pipe(), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let (mut collectors, mut results) = Collectors::with(collectors);
        for _ in 0..STRIKES {
            collectors.ask();
            assert!(collectors.ends().is_some());
            // The thread has come to the pipe.
            while collectors.worker.as_ref().unwrap().at.load(Ordering::Relaxed) != 1 {
                tokio::task::yield_now().await;
            }
            collectors.replace();
        }
        collectors.ask();
        let result = results.recv().await.unwrap();
        let Looked { health, machine } = collectors.take(result).unwrap();
        assert!(machine.is_some());
        assert_eq!((health.uptime_seconds, health.missing), (Some(7), vec!["pipe".to_owned()]));
        assert_eq!(collectors.ends(), None);
        // What a thread brings that was given up counts no more.
        assert_eq!(collectors.take((1, Looked::default())), None);
        // What the machine is is seen once.
        collectors.ask();
        let result = results.recv().await.unwrap();
        assert_eq!(collectors.take(result).unwrap().machine, None);
        std::fs::remove_file(pipe()).unwrap();
    }
}
