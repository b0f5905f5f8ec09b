//! Single keys while a live view is shown: no echo, no Enter.
//!
//! Only echo and line editing are turned off, so Ctrl-C and Ctrl-Z do what they always do. Must never take keys that
//! were typed for another program: in the background, and after it was dropped, it reads nothing and changes nothing.

use std::io::{IsTerminal as _, Stdin};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::getpgrp;
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetpgrp, tcsetattr};
use tokio::sync::mpsc;

/// Keys that nobody has taken yet.
const KEYS_MAX: usize = 16;
/// How often the thread looks whether it is to end, and whether the terminal is ours again after a stop.
const LOOK_EVERY: Timespec = Timespec { tv_sec: 0, tv_nsec: 250_000_000 };

/// The terminal that keys come from. How it was before is put back at the end.
#[derive(Debug)]
pub(crate) struct Keyboard {
    keys: mpsc::Receiver<char>,
    before: Termios,
    ended: Arc<Mutex<bool>>,
}

impl Keyboard {
    /// None where keys cannot be had: no terminal at stdin or stderr, or the command runs in the background.
    pub(crate) fn open() -> Option<Self> {
        let stdin = std::io::stdin();
        if !stdin.is_terminal() || !std::io::stderr().is_terminal() || !in_foreground(&stdin) {
            return None;
        }
        let before = tcgetattr(&stdin).ok()?;
        let (sender, keys) = mpsc::channel(KEYS_MAX);
        let ended = Arc::new(Mutex::new(false));
        let (modes, end) = (without_line_editing(&before), ended.clone());
        tcsetattr(&stdin, OptionalActions::Now, &modes).ok()?;
        let keyboard = Self { keys, before, ended };
        let listen = move || while hear(&stdin, &modes, &end, &sender).is_some() {};
        std::thread::Builder::new().name("keyboard".to_owned()).spawn(listen).ok()?;
        Some(keyboard)
    }

    /// The next key that is a printable ASCII character; waits for it. None once the terminal is gone.
    pub(crate) async fn key(&mut self) -> Option<char> {
        self.keys.recv().await
    }
}

impl Drop for Keyboard {
    fn drop(&mut self) {
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner) = true;
        let stdin = std::io::stdin();
        if in_foreground(&stdin) {
            // Where it fails nobody can be told any better.
            let _ = tcsetattr(&stdin, OptionalActions::Now, &self.before);
        }
    }
}

fn without_line_editing(before: &Termios) -> Termios {
    let mut modes = before.clone();
    modes.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
    // A read gives what is there and never waits.
    modes.special_codes[SpecialCodeIndex::VMIN] = 0;
    modes.special_codes[SpecialCodeIndex::VTIME] = 0;
    modes
}

/// Waits a moment for keys and hands them on. None when there is nothing more to do.
fn hear(stdin: &Stdin, modes: &Termios, ended: &Mutex<bool>, keys: &mpsc::Sender<char>) -> Option<()> {
    let mut polled = [PollFd::new(stdin, PollFlags::IN)];
    let ready = poll(&mut polled, Some(&LOOK_EVERY)).unwrap_or(0) > 0;
    let hung_up = polled[0].revents().intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL);
    let ended = ended.lock().unwrap_or_else(PoisonError::into_inner);
    if *ended || hung_up {
        return None;
    }
    if !in_foreground(stdin) {
        // What is typed is for another program. While keys wait for it, `poll` does not.
        drop(ended);
        std::thread::sleep(std::time::Duration::from_millis(250));
        return Some(());
    }
    if tcgetattr(stdin).ok()?.local_modes.contains(LocalModes::ICANON) {
        // Brought back after a stop: the shell has set the terminal its own way.
        tcsetattr(stdin, OptionalActions::Now, modes).ok()?;
    } else if ready {
        let mut byte = [0_u8; 1];
        let read = rustix::io::read(stdin, &mut byte).ok()?;
        if read == 1 && byte[0].is_ascii_graphic() {
            // Who presses faster than anything is done loses keys, not order.
            let _ = keys.try_send(char::from(byte[0]));
        }
    }
    Some(())
}

/// Whether this terminal listens to us. A terminal that does not say so does not.
fn in_foreground(terminal: &Stdin) -> bool {
    tcgetpgrp(terminal).is_ok_and(|group| group == getpgrp())
}
