//! Crash everywhere: a run is forked before and after each point at which something leaves or reaches a process, and the
//! process is killed there; every fork must end well.

use std::sync::{Mutex, PoisonError, mpsc};
use std::time::Duration;

use super::{Event, Process, RunResult, Simulation};

/// A kind of point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Point {
    /// An append reaches the store.
    StoreAppend,
    /// A record goes to the disk of a node.
    JournalWrite,
    /// A message leaves an agent or a server.
    MessageSent,
    /// A message reaches an agent or a server.
    MessageReceived,
    /// A request leaves for the API server.
    RequestSent,
    /// The answer of the API server comes.
    RequestAnswered,
}

/// One fork.
#[derive(Clone, Debug)]
pub struct Fork {
    /// Which point it was, counted from the begin.
    pub number: usize,
    /// Its kind.
    pub point: Point,
    /// Whether the crash came before.
    pub before: bool,
    /// Who was killed.
    pub process: Process,
    /// How it ended.
    pub result: RunResult,
}

impl Simulation {
    /// The point that an event is, and whose process it concerns.
    fn point_of(event: &Event) -> Option<(Point, Process)> {
        Some(match event {
            Event::Append { driver, .. } => (Point::StoreAppend, Process::Server(driver.server)),
            Event::Journal { node, .. } => (Point::JournalWrite, Process::Agent(*node)),
            Event::ToServer { server, .. } => (Point::MessageReceived, Process::Server(*server)),
            Event::ToAgent { exchange, .. } => (Point::MessageReceived, Process::Agent(exchange.node)),
            Event::Api { ask, .. } => (Point::RequestSent, Process::Server(ask.driver.server)),
            Event::Answered { ask, .. } => (Point::RequestAnswered, Process::Server(ask.driver.server)),
            _ => return None,
        })
    }

    /// Who sent what is on its way.
    fn sender_of(event: &Event) -> Option<(Point, Process)> {
        match event {
            Event::ToServer { exchange, .. } => Some((Point::MessageSent, Process::Agent(exchange.node))),
            Event::ToAgent { .. } => Some((Point::MessageSent, Process::Server(0))),
            _ => None,
        }
    }

    fn kill(&mut self, process: Process) {
        match process {
            Process::Server(index) => self.crash_server(index, Duration::from_secs(2)),
            Process::Agent(node) => self.crash_agent(node, Duration::from_secs(2)),
        }
    }

    fn forget(&mut self, sequence: u64) {
        self.queue.retain(|queued| queued.0.sequence != sequence);
    }

    /// The next event of ours, if it comes before anything in the world.
    fn next_is(&self) -> Option<(u64, Option<(Point, Process)>)> {
        let next = self.queue.peek()?;
        let theirs = self.world.next_at();
        theirs.is_none_or(|theirs| next.0.at <= theirs).then(|| (next.0.sequence, Self::point_of(&next.0.event)))
    }
}

/// A fork that is about to run.
type Begun = (usize, Point, bool, Process, Simulation);

/// Runs `base` to its end and each fork of it too, on so many threads; `seen` is told of each fork, in no order. The result
/// of the base run comes back. Journal writes are also torn: one fork for each number of sectors.
pub fn crash_everywhere(
    base: Simulation,
    at_most: Duration,
    threads: usize,
    seen: &mut (dyn FnMut(Fork) + Send),
) -> RunResult {
    // A fork holds a whole world: few wait at a time.
    let (begun, waiting) = mpsc::sync_channel::<Begun>(threads);
    let (waiting, seen) = (Mutex::new(waiting), Mutex::new(seen));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok((number, point, before, process, mut fork)) = next else { return };
                    let result = fork.run(at_most);
                    let fork = Fork { number, point, before, process, result };
                    (seen.lock().unwrap_or_else(PoisonError::into_inner))(fork);
                }
            });
        }
        let mut number = 0;
        let result = walk(base, at_most, &mut |fork, point, before, process| {
            number += 1;
            // Nobody takes it where every thread has panicked, which the scope tells.
            let _ = begun.send((number, point, before, process, fork));
        });
        drop(begun);
        result
    })
}

/// The fork with a number, before it has run; none where there are not so many.
pub fn fork(base: Simulation, at_most: Duration, wanted: usize) -> Option<Simulation> {
    let (mut number, mut found) = (0, None);
    walk(base, at_most, &mut |fork, _, _, _| {
        number += 1;
        if number == wanted {
            found = Some(fork);
        }
    });
    found
}

/// Goes through `base` and forks it at every point.
fn walk(mut base: Simulation, at_most: Duration, run: &mut dyn FnMut(Simulation, Point, bool, Process)) -> RunResult {
    loop {
        let next = base.next_is();
        let before_sequence = base.sequence;
        if let Some((sequence, Some((point, process)))) = next {
            // Before: the process dies and what was to happen does not, but for requests that are on their way already.
            let mut fork = base.clone();
            if !matches!(point, Point::RequestSent) {
                fork.forget(sequence);
            }
            if point == Point::JournalWrite {
                for fork in fork.torn_forks(&base, sequence) {
                    run(fork, point, true, process);
                }
            } else {
                fork.kill(process);
                run(fork, point, true, process);
            }
            let mut fork = base.clone();
            if !fork.step() {
                break;
            }
            fork.kill(process);
            run(fork, point, false, process);
        }
        if !base.step() {
            break;
        }
        // What this event sent: the sender dies before it left, or right after.
        let sent: Vec<(u64, Point, Process)> = base
            .queue
            .iter()
            .filter(|queued| queued.0.sequence > before_sequence)
            .filter_map(|queued| {
                let (point, process) = Simulation::sender_of(&queued.0.event)?;
                Some((queued.0.sequence, point, process))
            })
            .collect();
        for (sequence, point, process) in sent {
            for before in [true, false] {
                let mut fork = base.clone();
                if before {
                    fork.forget(sequence);
                }
                fork.kill(process);
                run(fork, point, before, process);
            }
        }
    }
    base.run(at_most)
}

impl Simulation {
    /// The machine loses power while a record is written: one world for each number of sectors that reached the disk, and
    /// one whose agent alone is killed ahead of the write.
    fn torn_forks(&self, base: &Simulation, sequence: u64) -> Vec<Simulation> {
        let bytes =
            base.queue.iter().find(|queued| queued.0.sequence == sequence).and_then(|queued| match &queued.0.event {
                Event::Journal { node, bytes, .. } => Some((*node, bytes.clone())),
                _ => None,
            });
        let Some((node, bytes)) = bytes else { return Vec::new() };
        let mut forks = Vec::new();
        let mut killed = self.clone();
        killed.kill(Process::Agent(node));
        forks.push(killed);
        for sectors in 0..=bytes.len() / 512 {
            let mut fork = self.clone();
            fork.keep_of_journal(node, &bytes[..sectors * 512]);
            fork.crash_node(node);
            forks.push(fork);
        }
        forks
    }
}
